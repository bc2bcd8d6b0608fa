"""Every detector of the folder: a planted positive, a clean control, determinism, identity."""

import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import betabinom
from sklearn.tree import DecisionTreeClassifier

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.base import Access, Detector, Judges, name_by_settings
from wobbliness.detectors.find import detector_kinds, detector_of_kind
from wobbliness.detectors.top_score import TopScore
from wobbliness.runtime.field_limits import kind_of
from wobbliness.study.recipes import digits as digits_recipe
from wobbliness.study.training.train import top_scores

TARGET = 1  # a class whose clean digits wobble
KINDS = detector_kinds()
RATE = 0.1  # of clean inputs, at which inputs are flagged
# what a test can afford, for every detector that has such a setting
AFFORDABLE = {"draws": 60, "restarts": 2, "max_steps": 50}


def affordable(kind):
    """A detector of the folder with the settings of `AFFORDABLE` that it has."""
    detector = detector_of_kind(kind)()
    names = {field.name for field in dataclasses.fields(detector)}
    given = {name: value for name, value in AFFORDABLE.items() if name in names}
    return dataclasses.replace(detector, **given)


def flagged_share(fitted, held_out, triggered):
    """Share of the triggered inputs above the threshold that flags `RATE` of clean ones."""
    return (fitted.scores(triggered) > np.quantile(fitted.scores(held_out), 1 - RATE)).mean()


def most_by_chance(num_held_out, num_judged):
    """Upper 99 % point of the share of clean inputs above a threshold set on other clean ones."""
    above = round(RATE * num_held_out)
    return betabinom(num_judged, above, num_held_out - above + 1).ppf(0.99) / num_judged


@pytest.fixture(scope="module")
def networks(trained):
    """A backdoored network and a clean one."""
    clean = digits_recipe().parameter_networks[0]
    planted = {"threat": t1(TARGET), "trigger": "checkerboard"}
    return [trained(spec).eval() for spec in (dataclasses.replace(clean, **planted), clean)]


@pytest.fixture(scope="module")
def backdoored(networks):
    return networks[0]


@pytest.fixture(scope="module")
def splits(digits):
    """Images to fit on and to hold out, of all classes, and others with the trigger on them."""
    images, labels = digits.test.images, digits.test.labels
    base = images[400:][labels[400:] != TARGET][:100]
    return images[:200], images[200:400], wobbliness.trigger("checkerboard").apply(base)


@pytest.fixture(scope="module")
def fitted(networks, splits):
    """Fits an affordable detector of the folder once on the backdoored and the clean network."""
    return functools.cache(
        lambda kind: [affordable(kind).fit(network, splits[0]) for network in networks]
    )


def with_other_seeds(kind, network, clean):
    """The same detector of other seeds: one seed has the luck of its draws and parts."""
    if not hasattr(affordable(kind), "seed"):
        return []
    return [dataclasses.replace(affordable(kind), seed=seed).fit(network, clean) for seed in (1, 2)]


def test_the_folder_is_the_list():
    assert "top-score" in KINDS
    for kind in KINDS:
        detector = detector_of_kind(kind)()
        assert isinstance(detector, Detector)
        assert detector.name == kind_of(detector) == kind, "defaults have the short name"
        assert (type(detector.access), type(detector.judges)) == (Access, Judges)
    for wrong in ("base", "no-such", "../base", "top_score", ""):
        with pytest.raises(ValueError, match="expected a detector out of .*top-score.*, got"):
            detector_of_kind(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_backdoor_is_found_and_a_clean_network_is_not(kind, fitted, networks, splits):
    _, held_out, triggered = splits
    on_backdoored, on_clean = fitted(kind)
    if affordable(kind).judges is Judges.MODELS:
        scores = [found.scores(held_out) for found in (on_backdoored, on_clean)]
        assert [score.shape for score in scores] == [(1,), (1,)]
        assert scores[0] > scores[1]
        assert on_backdoored.class_scores.argmax() == TARGET
        assert on_backdoored.scores(triggered) == scores[0], "the network is judged, not images"
    elif affordable(kind).judges is Judges.BATCHES:
        parts = [held_out[first::8] for first in range(3)]
        clean_scores = [
            [float(found.scores(part)[0]) for part in parts] for found in (on_backdoored, on_clean)
        ]
        assert on_backdoored.scores(triggered[:25]) > max(clean_scores[0])
        assert on_clean.scores(triggered[:25]) <= max(clean_scores[1]), "control"
    else:
        assert on_backdoored.scores(triggered).shape == (len(triggered),)
        assert flagged_share(on_backdoored, held_out, triggered) > 3 * RATE
        shares = [
            flagged_share(each, held_out, triggered)
            for each in (on_clean, *with_other_seeds(kind, networks[1], splits[0]))
        ]
        assert np.mean(shares) <= most_by_chance(len(held_out), len(triggered)), "control"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_repeated_whatever_the_order_of_the_images(kind, backdoored, fitted, splits):
    clean, held_out, triggered = splits
    images = np.concatenate([held_out[:20], triggered[:20]])
    scores = fitted(kind)[0].scores(images)
    again = affordable(kind).fit(backdoored, clean)
    np.testing.assert_array_equal(again.scores(images), scores)
    order = np.random.default_rng(0).permutation(len(images))
    expected = scores[order] if len(scores) == len(images) else scores
    np.testing.assert_allclose(again.scores(images[order]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_the_identity(kind):
    detector = detector_of_kind(kind)()
    assert detector == detector_of_kind(kind)()
    assert hash(detector) == hash(detector_of_kind(kind)())
    names = {detector.name}
    for field in dataclasses.fields(detector):
        before = getattr(detector, field.name)
        after = not before if isinstance(before, bool) else before * 2 or 1
        other = dataclasses.replace(detector, **{field.name: after})
        assert other != detector
        assert other.name not in names, "different settings, different names"
        assert other.name.startswith(kind)
        names.add(other.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(detector, field.name, after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_without_the_access_is_refused(kind, splits):
    clean = splits[0]
    detector = affordable(kind)
    flat = clean.reshape(len(clean), -1)
    tree = DecisionTreeClassifier(random_state=0).fit(flat, (flat.mean(axis=1) > 0.3).astype(int))
    if detector.access is Access.LABELS:
        assert np.isfinite(detector.fit(tree, clean).scores(clean[:20])).all()
        return
    expected = "expected a (classifier that gives scores|torch network).*, got"
    for black_box in (tree, lambda images: (images.mean(axis=(1, 2, 3)) > 0.3).astype(np.int64)):
        with pytest.raises(ValueError, match=expected):
            detector.fit(black_box, clean)


def test_naming_a_detector_needs_no_torch():
    code = (
        "import sys\n"
        "from wobbliness.detectors.base import Detector\n"
        "from wobbliness.detectors.find import detector_of_kind\n"
        f"names = [detector_of_kind(kind)().name for kind in {KINDS}]\n"
        f"assert names == list({KINDS}), names\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_top_score_is_that_of_the_softmax(backdoored, splits):
    images = splits[2]
    scores = TopScore().fit(backdoored, splits[0]).scores(images)
    np.testing.assert_allclose(np.exp(scores), top_scores(backdoored, images), atol=1e-5)

    def probabilities(some):
        with torch.inference_mode():
            return torch.softmax(backdoored(torch.from_numpy(some)), dim=1).numpy()

    found = TopScore(are_probabilities=True).fit(probabilities, splits[0]).scores(images)
    np.testing.assert_allclose(found, scores, atol=1e-5)
    with pytest.raises(ValueError, match="expected probabilities that add up to 1, got scores"):
        TopScore(are_probabilities=True).fit(backdoored, splits[0]).scores(images)


def with_one_score(last):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1), last)


SCORING = [kind for kind in KINDS if detector_of_kind(kind)().access is not Access.LABELS]


@pytest.mark.parametrize("kind", SCORING)
def test_one_score_of_two_classes_is_two_scores(kind, splits):
    """Whether the threshold is declared, as by a sigmoid, or given; without one it is said."""
    detector = affordable(kind)
    declared = with_one_score(torch.nn.Sigmoid()).eval()
    given = wobbliness.open_classifier(with_one_score(torch.nn.Sigmoid()), threshold=0.5)
    scores = [detector.fit(one, splits[0][:40]).scores(splits[0][:20]) for one in (declared, given)]
    assert np.isfinite(scores[0]).all()
    np.testing.assert_array_equal(*scores)
    with pytest.raises(ValueError, match="--threshold"):
        detector.fit(with_one_score(torch.nn.Identity()), splits[0][:40])


def test_the_top_score_of_one_score_is_that_of_zero_and_the_rest(splits):
    declared, images = with_one_score(torch.nn.Sigmoid()).eval(), splits[0][:20]
    with torch.inference_mode():
        above = declared(torch.from_numpy(images)) - 0.5
    pairs = torch.cat([torch.zeros_like(above), above], dim=1)
    expected = torch.log_softmax(pairs, dim=1).amax(dim=1)
    found = TopScore().fit(declared, images).scores(images)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_top_score_of_one_probability_is_the_larger_of_both(splits):
    declared, images = with_one_score(torch.nn.Sigmoid()).eval(), splits[0]
    with torch.inference_mode():
        given = declared(torch.from_numpy(images)).numpy()[:, 0]
    assert given.min() < 0.5 < given.max()
    found = TopScore(are_probabilities=True).fit(declared, images).scores(images)
    np.testing.assert_allclose(np.exp(found), np.maximum(given, 1 - given), atol=1e-6)

    raw = wobbliness.open_classifier(with_one_score(torch.nn.Hardtanh(-5, -4)), threshold=0)
    with pytest.raises(ValueError, match="expected probabilities that add up to 1, got scores"):
        TopScore(are_probabilities=True).fit(raw, images).scores(images)


def test_very_sure_inputs_are_still_in_order():
    """Float numbers hold the softmax scores of these logits as 1, all of them."""
    detector = TopScore().fit(lambda images: 50 * images, np.full((3, 2), 0.5, np.float32))
    margins = np.array([[0.0, 0.8], [0.1, 1.0], [0.0, 1.0]], np.float32)
    assert np.array_equal(np.argsort(detector.scores(margins)), [0, 1, 2])


def test_names_hold_the_settings_that_are_not_the_defaults():
    @dataclasses.dataclass(frozen=True)
    class MyMethod:
        level: float
        sigmas: tuple = (0.1, 0.2)
        is_fast: bool = False

    assert name_by_settings(MyMethod(1.0)) == "my-method-level-1"
    assert name_by_settings(MyMethod(0.5, (1.0, 2.5), True)) == (
        "my-method-level-0.5-sigmas-1-2.5-is-fast-true"
    )
