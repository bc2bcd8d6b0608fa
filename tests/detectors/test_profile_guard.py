"""The guard that reads many perturbations: rate, planted trigger, company, early stopping."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.guards.profile_guard import USUAL_PVALUE, ProfileGuard
from wobbliness.detectors.guards.profiles import default_profile
from wobbliness.detectors.inputs.clean_parts import CleanParts, check_enough
from wobbliness.perturbations import BoxMix, Gaussian, Scale
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.study.recipes import digits as digits_recipe

TARGET, RATE, DRAWS = 1, 0.05, 50


@pytest.fixture(scope="module")
def planted(trained):
    """A network with the checkerboard planted in it."""
    clean = digits_recipe().parameter_networks[0]
    return trained(dataclasses.replace(clean, threat=t1(TARGET), trigger="checkerboard")).eval()


@pytest.fixture(scope="module")
def clean_one(trained):
    return trained(digits_recipe().parameter_networks[0]).eval()


@pytest.fixture(scope="module")
def splits(digits):
    """Images to fit on, to hold out, and others that are to bear a trigger."""
    images, labels = digits.test.images, digits.test.labels
    return images[:300], images[300:500], images[500:][labels[500:] != TARGET][:60]


@pytest.fixture(scope="module")
def fitted(planted, splits):
    return ProfileGuard(planted, draws=DRAWS, false_positive_rate=RATE).fit(splits[0])


def columns_differ(images):
    """Three classes, by the brightest of three columns; strays go where a column is nearly it."""
    return images.reshape(len(images), -1, 3).mean(axis=1).argmax(axis=1)


def flat_inputs(rng, num):
    return rng.random((num, 12))


def test_a_planted_trigger_is_found_and_a_clean_network_stays_silent(fitted, clean_one, splits):
    clean, held_out, bare = splits
    triggered = wobbliness.trigger("checkerboard").apply(bare)
    assert fitted.judge(triggered).is_suspicious.mean() > 0.8
    spared = ProfileGuard(clean_one, draws=DRAWS, false_positive_rate=RATE).fit(clean)
    assert spared.judge(triggered).is_suspicious.mean() < 0.3
    for guard in (fitted, spared):
        flagged = guard.judge(held_out).is_suspicious
        assert stats.binomtest(int(flagged.sum()), len(flagged), RATE).pvalue > 0.001


def test_the_false_positive_rate_is_the_stated_one():
    """Over splits: a fresh input is flagged with chance floor(a (C + 1)) / (C + 1)."""
    rng, flagged = np.random.default_rng(0), []
    settings = {"draws": 6, "num_classes": 3, "workers": 1, "false_positive_rate": 0.2}
    for seed in range(16):
        guard = ProfileGuard(columns_differ, seed=seed, **settings)
        guard.fit(flat_inputs(rng, 60))
        flagged += guard.judge(flat_inputs(rng, 20)).is_suspicious.tolist()
    size = len(guard.stages_[-1].calibration)
    expected = np.floor(0.2 * (size + 1)) / (size + 1)
    # each calibration serves twenty inputs: its own rate varies, too
    spread = np.sqrt(expected * (1 - expected) * (1 / len(flagged) + 1 / (16 * size)))
    assert abs(np.mean(flagged) - expected) < 3.5 * spread


def test_inputs_of_another_kind_are_flagged():
    """Control of the rate above: strays that go elsewhere are seen, by labels alone."""
    rng = np.random.default_rng(0)
    settings = {"draws": 24, "num_classes": 3, "workers": 1, "false_positive_rate": 0.1}
    guard = ProfileGuard(columns_differ, **settings).fit(flat_inputs(rng, 300))
    stubborn = np.zeros((20, 12))
    stubborn[:, ::3] = 1  # one column all white, the others black: it never strays
    assert guard.judge(stubborn + 0.01 * rng.random((20, 12)) * (stubborn == 0)).is_suspicious.all()


def test_verdicts_are_the_same_alone_in_company_and_for_any_number_of_workers(fitted, splits):
    inputs = splits[1][:24]
    together = fitted.judge(inputs)
    alone = [fitted.judge(inputs[[row]]) for row in range(3)]
    assert [each.score[0] for each in alone] == together.score[:3].tolist()
    order = np.random.default_rng(0).permutation(len(inputs))
    fitted.set_params(workers=1)
    assert np.array_equal(fitted.judge(inputs[order]).score, together.score[order])
    fitted.set_params(workers=None)


def test_a_reason_says_which_votes_were_unusual_and_is_true(fitted, splits, digits):
    _, held_out, bare = splits
    inputs = np.concatenate([wobbliness.trigger("checkerboard").apply(bare), held_out[:50]])
    judged = fitted.judge(inputs)
    assert [bool(reason) for reason in judged.reasons] == judged.is_suspicious.tolist()
    pattern = (
        r"(stays|strays to) class (\d) in (\d+) of (\d+) copies (?:although|when) (.+); "
        r".*\b([\d.]+) % of such copies"
    )
    for row in np.flatnonzero(judged.is_suspicious).tolist():
        reasons = judged.reasons_of(row)
        assert judged.reasons[row] == reasons[0]
        assert 1 <= len(set(reasons)) == len(reasons) <= 3
        for reason in reasons:
            verb, label, number, of, effect, share = re.match(pattern, reason).groups()
            votes = judged.votes.votes[judged.effects.index(effect)]
            assert votes.counts[row, int(label)] == int(number)
            assert (verb == "stays") == (int(label) == judged.undisturbed_label[row])
            assert int(of) == votes.draws
            assert int(number) / int(of) > float(share) / 100, "more than clean inputs"
        assert judged.effects[judged.spoke[row]] in reasons[0]
        assert judged.spoken_names[row] == judged.votes.votes[judged.spoke[row]].perturbation
    frame = judged.frame([f"{row}.png" for row in range(len(inputs))])
    assert frame["reason"].tolist() == list(judged.reasons)
    assert [*frame.columns[-4:]] == ["reason", "spoke", "percentile", "name"]
    # the trigger outlives most of it, and where it does not the input is seen
    shown = digits.test.labels[500:][digits.test.labels[500:] != TARGET][:60]
    says_so = [
        reason.startswith((f"stays class {TARGET} ", f"strays to class {own} "))
        for reason, own in zip(judged.reasons, shown, strict=False)
        if reason
    ]
    assert len(says_so) > 40
    assert np.mean(says_so) > 0.8


def test_a_percentile_is_among_the_calibration_inputs_of_the_class(fitted, splits):
    judged = fitted.judge(splits[1][:40])
    clean = zip(fitted.stages_[-1].calibration, fitted.calibration_label_, strict=True)
    by_class = {}
    for score, label in clean:
        by_class.setdefault(int(label), []).append(score)
    for row, label in enumerate(judged.undisturbed_label.tolist()):
        same = np.array(by_class.get(label, []))
        assert judged.num_clean[row] == len(same)
        expected = 100 * np.mean(same > judged.score[row]) if len(same) else np.nan
        np.testing.assert_allclose(judged.percentile[row], expected, atol=1e-9)
    # as in calibration: uniform for clean inputs, near 100 for flagged ones
    assert 30 < np.nanmean(judged.percentile) < 70
    assert (judged.percentile[judged.is_suspicious] > 50).all()


def test_early_stopping_flags_a_part_of_what_all_draws_flag(fitted, splits):
    _, held_out, bare = splits
    inputs = np.concatenate([held_out, wobbliness.trigger("checkerboard").apply(bare)])
    quick, full = fitted.judge_quickly(inputs), fitted.judge(inputs)
    assert not (quick.is_suspicious & ~full.is_suspicious).any()
    assert quick.is_suspicious.sum() > 0.9 * full.is_suspicious.sum()
    assert quick.most_draws == 5 * 50 == sum(each.draws for each in full.votes.votes)
    assert (quick.draws[quick.is_suspicious] == quick.most_draws).all()
    assert np.array_equal(fitted.predict(inputs), np.where(quick.is_suspicious, -1, 1))


def test_three_quarters_of_clean_inputs_are_let_go_early(planted, splits):
    # The digits stand in the order of their writers: mixed, so that those held out are like others.
    mixed = np.random.default_rng(0).permutation(np.concatenate(splits[:2]))
    guard = ProfileGuard(planted, draws=DRAWS).fit(mixed[:300])
    quick = guard.judge_quickly(mixed[300:])
    left = quick.draws == quick.most_draws
    assert (quick.draws[~left] < 0.3 * quick.most_draws).all()
    num_calibration = len(guard.stages_[0].calibration)
    rank = np.ceil(USUAL_PVALUE * (num_calibration + 1))
    law = stats.betabinom(len(left), rank, num_calibration + 1 - rank)
    assert law.ppf(0.0005) <= left.sum() <= law.ppf(0.9995)
    assert law.ppf(0.9995) < 0.45 * len(left)


def test_scores_follow_the_conventions_of_outlier_detectors(fitted, splits):
    inputs = splits[1][:30]
    judged = fitted.judge(inputs)
    assert np.array_equal(fitted.score_samples(inputs), judged.score)
    assert np.array_equal(fitted.decision_function(inputs) < 0, judged.is_suspicious)
    assert np.array_equal(judged.pvalue <= RATE, judged.is_suspicious)
    assert np.array_equal(fitted.pvalues(inputs), judged.pvalue)
    copy = clone(fitted)
    assert copy.classifier is fitted.classifier
    assert not hasattr(copy, "stages_")
    assert copy.get_params() == fitted.get_params()


def test_scores_of_the_classifier_are_read_where_they_are_said_to_be_there(planted, splits):
    clean, held_out, bare = splits
    guard = ProfileGuard(planted, draws=13, scores="logits").fit(clean)
    assert guard.stages_[-1].cloud.points.shape[1] == 5 * 6, "six readings, four from labels alone"
    triggered = guard.judge(wobbliness.trigger("checkerboard").apply(bare))
    assert triggered.is_suspicious.mean() > 0.8
    assert guard.judge(held_out).is_suspicious.mean() < 0.15
    with pytest.raises(ValueError, match="expected logits of at least 2 classes, got"):
        ProfileGuard(columns_differ, draws=6, scores="logits", num_classes=3).fit(
            flat_inputs(np.random.default_rng(0), 60)
        )


def test_ladders_of_few_levels_and_sigmas_may_be_in_a_profile(planted, splits):
    clean, held_out, _ = splits
    profile = (0.3, Scale(2, 3), Gaussian(0.6))
    guard = ProfileGuard(planted, perturbations=profile, draws=18).fit(clean)
    quick = guard.judge_quickly(held_out[:40])
    assert quick.most_draws == 18 + 2 + 18
    assert set(quick.draws) == {4 + 2 + 4, 38}
    assert [votes.draws for votes in guard.judge(held_out[:2]).votes.votes] == [18, 2, 18]


@pytest.mark.parametrize("settings", [{"perturbations": (Scale(2, 3),)}, {"draws": 1}])
def test_few_draws_are_one_stage(planted, splits, settings):
    clean, held_out, _ = splits
    guard = ProfileGuard(planted, **settings).fit(clean[:100])
    assert len(guard.stages_) == 1
    inputs = held_out[:30]
    assert np.array_equal(guard.predict(inputs) == -1, guard.judge(inputs).is_suspicious)


def test_the_clean_inputs_are_in_one_part_each():
    parts = CleanParts.of(300, mixes=True, seed=0)
    assert (len(parts.overlays), len(parts.reference), len(parts.calibration)) == (60, 120, 120)
    rows = np.concatenate([parts.overlays, parts.measured])
    assert np.array_equal(np.sort(rows), np.arange(300))
    assert len(CleanParts.of(300, mixes=False, seed=0).overlays) == 0
    assert len(CleanParts.of(3000, mixes=True, seed=0).overlays) == 100


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.9])
def test_the_least_number_of_clean_inputs_is_said_and_enough(rate, mixes):
    with pytest.raises(ValueError, match="expected at least") as caught:
        check_enough(1, rate, mixes=mixes)
    least = int(re.search(r"at least (\d+) ", str(caught.value))[1])
    check_enough(least, rate, mixes=mixes)
    with pytest.raises(ValueError, match=f"at least {least} "):
        check_enough(least - 1, rate, mixes=mixes)


def test_bad_input_gets_one_line(planted, splits):
    clean = splits[0]
    with pytest.raises(ValueError, match="expected at least 46 clean inputs for a false-positive"):
        ProfileGuard(planted).fit(clean[:30])
    with pytest.raises(ValueError, match="expected clean inputs that differ"):
        ProfileGuard(planted).fit(np.repeat(clean[:20], 10, axis=0))
    with pytest.raises(ValueError, match="expected clean inputs of at least 2 predicted classes"):
        ProfileGuard(lambda some: np.zeros(len(some), int), num_classes=10).fit(clean)
    mixed = (BoxMix(Overlays(clean[:20])),)
    with pytest.raises(ValueError, match="expected overlays that are not among the clean inputs"):
        ProfileGuard(planted, perturbations=mixed).fit(clean)
    with pytest.raises(ValueError, match="expected a false-positive rate between 0 and 1, got 0"):
        ProfileGuard(planted, false_positive_rate=0).fit(clean)


def test_judged_inputs_that_are_overlays_are_refused(fitted, splits):
    parts = CleanParts.of(300, mixes=True, seed=0)
    with pytest.raises(ValueError, match="expected overlays that are not among the inputs"):
        fitted.judge(splits[0][parts.overlays[:2]])


def test_the_default_profile_fits_the_inputs():
    rng, label = np.random.default_rng(0), np.arange(30) % 3
    pictures, rows = (Overlays(rng.random((30, *shape))) for shape in ((1, 8, 8), (12,)))
    kinds = [
        [type(part.whole).__name__ for part in default_profile(each, label, 10, num_classes=3)]
        for each in (pictures, rows)
    ]
    noise = ["Gaussian", "Gaussian"]
    assert kinds[0] == ["Superpose", "BoxMix", *noise, "Affine"]
    assert kinds[1] == ["Superpose", *noise, "KeepFeature", "Gaussian"]


def test_overlays_stand_in_groups_of_like_classes():
    images, label = np.random.default_rng(0).random((40, 1, 8, 8)), np.arange(40) % 4
    first, *_ = default_profile(Overlays(images), label, 50, num_classes=4)
    of_image = {image.tobytes(): own for image, own in zip(np.float32(images), label, strict=True)}
    groups = [
        [of_image[image.tobytes()] for image in each.overlays.images] for each in first.levels
    ]
    assert sorted(np.concatenate(groups)) == sorted(label), "each overlay is in one group"
    assert [len(each) for each in groups] == [4] * 10
    # ten images of a class: two of the ten groups have a class of their own, one has two
    assert sum(len(set(each)) == 1 for each in groups) == 8
    assert first.draws_of(first.levels[0]) == 4, "a group has four overlays to superpose"
    assert {part.num_groups for part in default_profile(Overlays(images), label, 50, 101)} == {1}


def test_tensors_give_the_verdicts_of_arrays(planted, splits):
    clean, held_out, _ = splits
    arrays, tensors = (
        ProfileGuard(planted, draws=6).fit(kind(clean[:80])).judge(kind(held_out[:20])).score
        for kind in (np.asarray, torch.from_numpy)
    )
    assert np.array_equal(arrays, tensors)
