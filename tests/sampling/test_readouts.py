"""Readouts: each by a slow loop over the copies, and what is missing is said."""

import numpy as np
import pytest
import torch
from scipy import special, stats

import wobbliness
import wobbliness.perturbations as families
from wobbliness.perturbations.base import Scratch, Stream
from wobbliness.sampling import readouts
from wobbliness.sampling.matching import (
    ShiftNotReached,
    changed_share,
    matched,
    matched_level,
)
from wobbliness.sampling.plan import make_plan

DRAWS = 40


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()


def slow_probabilities(network, image, key, perturbation, draws):
    """Class probabilities of the copies of an image, one copy at a time."""
    stream = Stream(0, int(key), scratch=Scratch())
    copies = np.empty((draws, *image.shape), np.float32)
    perturbation.copies(stream, image, draws, copies)
    with torch.no_grad():
        rows = [network(torch.from_numpy(copy[None]))[0].numpy() for copy in copies]
    return special.softmax(np.array(rows, np.float64), axis=1)


PERTURBATIONS = [families.Gaussian(0.3), families.Scale(3, 5, 7), families.SaltAndPepper(0.3)]


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda made: made.name)
def test_each_is_that_of_a_slow_loop(network, pictures, perturbation):
    votes = wobbliness.measure(network, pictures, perturbation, DRAWS, scores="logits")
    with torch.no_grad():
        clean = special.softmax(network(torch.from_numpy(pictures)).double().numpy(), axis=1)
    label = clean.argmax(axis=1)
    assert np.array_equal(votes.clean_label, label)
    for row, (image, key) in enumerate(zip(pictures, votes.keys, strict=True)):
        each = slow_probabilities(network, image, key, perturbation, votes.draws)
        assert np.array_equal(votes.counts[row], np.bincount(each.argmax(axis=1), minlength=3))
        expected = {
            readouts.wobbliness: stats.entropy(votes.counts[row]),
            readouts.agreement: (each.argmax(axis=1) == label[row]).mean(),
            readouts.mean_entropy: stats.entropy(each, axis=1).mean(),
            readouts.retained_confidence: each[:, label[row]].mean(),
            readouts.clean_confidence: clean[row, label[row]],
            readouts.output_variance: each.var(axis=0).sum(),
        }
        for readout, value in expected.items():
            assert readout(votes)[row] == pytest.approx(value, abs=2e-6), readout.__name__


def test_sums_do_not_depend_on_workers_order_or_blocks_and_add(network, pictures):
    def sums(images, draws, **settings):
        return wobbliness.measure(network, images, 0.3, draws, scores="logits", **settings).scores

    whole = sums(pictures, DRAWS)
    parts = sums(pictures, 15) + sums(pictures, DRAWS - 15, first_draw=15)
    turned = sums(pictures[::-1], DRAWS, workers=3)
    for name in ("probabilities", "squares", "entropies"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name)), name
        assert np.array_equal(getattr(turned, name)[::-1], getattr(whole, name)), name


def test_probabilities_are_taken_as_they_are_and_labels_refused(network, pictures):
    def probabilities(batch):
        with torch.no_grad():
            return torch.softmax(network(torch.from_numpy(batch)), dim=1).numpy()

    by_logits = wobbliness.measure(network, pictures, 0.3, DRAWS, scores="logits")
    by_function = wobbliness.measure(probabilities, pictures, 0.3, DRAWS, scores="probabilities")
    np.testing.assert_allclose(
        by_function.scores.probabilities, by_logits.scores.probabilities, atol=1e-3
    )
    with pytest.raises(ValueError, match="at least 0 and with a sum of 1 .* say logits"):
        wobbliness.measure(network, pictures, 0.3, DRAWS, scores="probabilities")

    def labels(batch):
        return probabilities(batch).argmax(axis=1)

    with pytest.raises(ValueError, match="expected probabilities of at least 2 classes, got one"):
        wobbliness.measure(labels, pictures, 0.3, DRAWS, scores="probabilities", num_classes=3)
    with pytest.raises(ValueError, match="expected scores as logits or probabilities, got 'yes'"):
        make_plan(network, pictures, [0.3], draws=DRAWS, seed=0, scores="yes")
    without = wobbliness.measure(network, pictures, 0.3, DRAWS)
    for readout in (readouts.mean_entropy, readouts.output_variance):
        with pytest.raises(ValueError, match="measure with scores='logits'"):
            readout(without)


def brightness(images):
    return (images.reshape(len(images), -1).mean(axis=1) * 4).astype(int).clip(0, 3)


def test_ladders_count_the_rungs_at_which_the_label_changed():
    images = np.full((3, 1, 2, 2), 0.2, np.float32) * np.float32([1, 2, 5]).reshape(3, 1, 1, 1)
    rungs = [families.Scale(factor) for factor in (1.1, 1.5, 3)]
    ladder = wobbliness.sweep(brightness, images, rungs, num_classes=4, keep_clean=True).votes
    # classes of 0.2, 0.4, 1 and of their multiples: 0 0 1 2, 1 1 2 3, 3 3 3 3
    assert readouts.flips(ladder).tolist() == [2, 2, 0]
    assert readouts.breaking_severity(ladder).tolist() == [2, 2, 4]
    assert readouts.agreement(ladder[1]).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="expected votes of the same images at each level"):
        readouts.flips([])
    other = wobbliness.measure(brightness, images[:2], rungs[0], num_classes=4, keep_clean=True)
    with pytest.raises(ValueError, match="expected votes of the same images at each level"):
        readouts.breaking_severity([*ladder, other])


def test_agreement_of_a_class_that_no_copy_got_is_zero():
    images = np.full((1, 4), 0.9, np.float32)
    votes = wobbliness.measure(brightness, images, families.Scale(0.1), keep_clean=True)
    assert votes.clean_label.tolist() == [3]
    assert readouts.agreement(votes).tolist() == [0]
    without = wobbliness.measure(brightness, images, families.Scale(0.1))
    with pytest.raises(ValueError, match="measure with keep_clean=True"):
        readouts.agreement(without)


@pytest.mark.parametrize("shift", [0.1, 0.3])
def test_matched_levels_change_the_stated_share_of_clean_labels(shift):
    images = np.random.default_rng(1).random((60, 1, 6, 6), dtype=np.float32)
    families_of_level = {
        "gaussian": families.Gaussian,
        "uniform": families.Uniform,
        "salt-and-pepper": families.SaltAndPepper,
        "keep-feature": lambda level: families.KeepFeature(1 - level),
    }

    def halves(batch):
        return (batch[..., :3].mean(axis=(1, 2, 3)) > batch[..., 3:].mean(axis=(1, 2, 3))) * 1

    for name, family in families_of_level.items():
        made = matched(family, halves, images, shift=shift, num_classes=2)
        votes = wobbliness.measure(halves, images, made, 200, 1, num_classes=2, keep_clean=True)
        assert 1 - readouts.agreement(votes).mean() == pytest.approx(shift, abs=0.04), name
    with pytest.raises(ValueError, match="expected a level up to 1 that changes 90% of the clean"):
        matched(families.Gaussian, halves, images, shift=0.9, num_classes=2)
    with pytest.raises(ValueError, match=r"expected a shift in \(0, 1\), got 0"):
        matched(families.Gaussian, halves, images, shift=0, num_classes=2)


def test_a_level_that_is_not_reached_says_how_much_changed_there():
    """A threshold at 0.5: images at 0.45 change under a factor above 10 / 9, and no sooner."""
    images = np.full((20, 1, 2, 2), 0.45, np.float32)

    def bright(batch):
        return (batch.mean(axis=(1, 2, 3)) > 0.5) * 1

    def brighter(level):
        return families.Scale(1 + level)

    found = matched_level(brighter, bright, images, num_classes=2)
    assert found.level == 0.112, "1 / 9, rounded up: at 0.111 no image changes"
    assert found.changed == 1.0, "all images at once"
    assert matched(brighter, bright, images, num_classes=2) == brighter(found.level)
    with pytest.raises(ShiftNotReached) as raised:
        matched_level(brighter, bright, images, most=0.1, num_classes=2)
    assert (raised.value.most, raised.value.changed) == (0.1, 0.0)
    share = changed_share(families.Gaussian(0.05), bright, images, draws=4000, num_classes=2)
    # the mean of four pixels has noise of half the sigma: 0.05 / 0.025 = 2 standard deviations;
    # equal images have the same draws, so there are 4,000 of them
    assert share == pytest.approx(0.02275, abs=4 * np.sqrt(0.02275 / 4000))
