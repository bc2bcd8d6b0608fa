"""The batch test by vote destinations: all-to-all triggers that W does not show, and controls."""

import re

import numpy as np
import pytest
from digits_networks import planted_and_clean
from scipy import stats

import wobbliness
from wobbliness.attacks.poisoning import t2
from wobbliness.detectors.batches.destination_results import AS_USUAL, ELSEWHERE, compare_votes
from wobbliness.detectors.guards.vote_reading import ProfileVotes
from wobbliness.perturbations import BoxMix
from wobbliness.statistics.destinations import destination_test
from wobbliness.statistics.holm import holm_pvalues

DRAWS = 40


@pytest.fixture(scope="module")
def networks(trained):
    """A network poisoned all to all, and a clean one."""
    return planted_and_clean(trained, t2(), "dot")


@pytest.fixture(scope="module")
def batches(digits):
    images = digits.test.images
    fresh = images[300:340]
    return images[:300], fresh, wobbliness.trigger("dot").apply(fresh)


def test_all_to_all_is_found_and_only_that(networks, batches):
    clean, fresh, triggered = batches
    found = wobbliness.compare_destinations(networks[0], clean, triggered, draws=DRAWS)
    assert (found.verdict, found.num_suspect) == (ELSEWHERE, 40)
    assert (found.num_overlays, found.num_clean) == (60, 240)
    assert [row.perturbation for row in found.at[:2]] == ["gaussian-0.2", "gaussian-0.4"]
    assert all(row.deviance > row.usual_deviance for row in found.at)
    most = found.most_unusual
    assert most.suspect_share > most.clean_share
    assert f"predicted as class {most.predicted} {most.suspect_share:.0%}" in found.explanation()
    control = wobbliness.compare_destinations(networks[0], clean, fresh, draws=DRAWS)
    assert control.verdict == AS_USUAL, "control"
    assert control.explanation().startswith("The votes around the suspect inputs go where")
    w = wobbliness.compare_batches(networks[0], clean, triggered, draws=DRAWS)
    assert w.verdict != "smoother", "W falls around no trigger of this kind"


def test_the_batch_test_reads_its_own_votes_for_it(networks, batches):
    clean, fresh, triggered = batches
    settings = {"draws": DRAWS, "seed": 1}
    plain = wobbliness.compare_batches(networks[0], clean, triggered, **settings)
    found = wobbliness.compare_batches(networks[0], clean, triggered, destinations=True, **settings)
    assert plain.destinations is None
    assert (found.at, found.box_mix, found.sigma) == (plain.at, plain.box_mix, plain.sigma)
    assert (plain.num_tests, found.num_tests) == (2, 3)
    assert found.destinations.num_clean == found.box_mix.num_clean == 240
    assert len(found.destinations.at) == len(found.at) + 1
    assert found.goes_elsewhere
    assert not plain.goes_elsewhere
    raw = [row.smoother.pvalue for row in found.tests]
    corrected = holm_pvalues([*raw, found.destinations.pvalue])
    np.testing.assert_array_equal(found.smoother_pvalues, corrected[:2])
    other = holm_pvalues([*(row.wobblier.pvalue for row in found.tests), found.destinations.pvalue])
    assert found.corrected_destinations.pvalue == max(corrected[2], other[2])
    assert "go elsewhere than those" in found.explanation()
    assert "p is corrected for three tests (Holm)" in found.explanation()
    for network, suspect in ((networks[0], fresh), (networks[1], triggered)):
        control = wobbliness.compare_batches(network, clean, suspect, destinations=True, **settings)
        assert not control.goes_elsewhere, "control"
        assert "go where those around clean inputs" in control.explanation()
    made = [0.2, 0.3]
    alone = wobbliness.compare_batches(
        networks[0], clean, triggered, sigmas=made, destinations=True, **settings
    )
    noise = wobbliness.compare_destinations(
        networks[0], clean, triggered, perturbations=made, **settings
    )
    assert (alone.destinations, alone.num_tests) == (noise, 2)


def test_it_is_the_permutation_test_of_the_votes(networks, batches):
    clean, fresh, _ = batches
    made = [0.3, BoxMix(clean[100:])]
    found = wobbliness.compare_destinations(
        networks[1], clean[:100], fresh, perturbations=made, draws=9, seed=2
    )
    sweeps = [
        wobbliness.sweep(networks[1], images, made, draws=9, seed=2, keep_clean=True)
        for images in (clean[:100], fresh)
    ]
    names = [row.perturbation for row in found.at]
    votes = [ProfileVotes.of(each.votes) for each in sweeps]
    assert found == compare_votes(*votes, names=names, seed=2)
    plain = destination_test(
        np.concatenate([each.widened(10).counts for each in votes], axis=1),
        np.concatenate([each.label for each in votes]),
        np.arange(140) >= 100,
        num_permutations=9999,
        seed=2,
    )
    assert (found.pvalue, found.num_overlays) == (plain.pvalue, 0)


def test_clean_splits_of_digits_hold_the_level(networks, batches):
    """Splits of one pool are independent, and 39 permutations make p a multiple of 1 / 40."""
    images, level, trials = batches[0][:200], 0.1, 250
    made = (0.2, BoxMix(batches[0][200:]))
    sweep = wobbliness.sweep(networks[0], images, made, draws=DRAWS, keep_clean=True)
    names = [votes.perturbation for votes in sweep.votes]
    votes, rng, num_found = ProfileVotes.of(sweep.votes), np.random.default_rng(4), 0
    for seed in range(trials):
        clean, suspect = np.split(rng.permutation(200)[:80], [60])
        settings = {"names": names, "seed": seed, "num_permutations": 39, "level": level}
        num_found += compare_votes(votes[clean], votes[suspect], **settings).verdict == ELSEWHERE
    assert stats.binomtest(num_found, trials, level).pvalue > 1e-3


def test_the_most_unusual_votes_are_those_that_go_where_clean_ones_do_not():
    label = np.arange(40) % 2
    counts = np.zeros((1, 40, 4), np.int64)
    counts[0, np.arange(40), label], counts[0, :, 2] = 30, 10
    other = counts[:, :10].copy()
    other[0, ::2, 2], other[0, ::2, 3] = 0, 10  # those predicted as 0 go to 3
    votes = [
        ProfileVotes(counts=each, parts=np.arange(len(each)), label=label[: each.shape[1]])
        for each in (counts, other)
    ]
    most = compare_votes(*votes, names=["one"], num_permutations=199).most_unusual
    assert (most.predicted, most.destination) == (0, 3)
    assert (most.suspect_share, most.clean_share) == (0.25, 0)
    alike = compare_votes(votes[0], votes[0][np.arange(10)], names=["one"], num_permutations=19)
    assert (alike.pvalue, alike.most_unusual) == (1, None), "control"


@pytest.mark.parametrize(
    ("num_clean", "num_suspect", "level", "message"),
    [
        (15, 8, 0.01, "at least 16 clean inputs and 2 suspect ones, got 15 and 8"),
        (20, 1, 0.01, "at least 16 clean inputs and 2 suspect ones, got 20 and 1"),
        (20, 8, 1.0, "a level in (0, 1), got 1.0"),
    ],
)
def test_bad_batches_are_refused(half_space, num_clean, num_suspect, level, message):
    points = np.random.default_rng(0).random((40, 64), dtype=np.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        wobbliness.compare_destinations(
            half_space, points[:num_clean], points[-num_suspect:], level=level, num_classes=2
        )


def test_overlays_among_the_inputs_are_refused_and_progress_is_told(networks, batches):
    clean, fresh, _ = batches
    with pytest.raises(ValueError, match="^expected overlays that are not among the suspect"):
        wobbliness.compare_destinations(
            networks[1], clean[:50], fresh, perturbations=[BoxMix(fresh[:5])]
        )
    seen = []
    wobbliness.compare_destinations(
        networks[1], clean[:50], fresh, draws=2, progress=lambda *done: seen.append(done)
    )
    assert seen[-1] == (80, 80)
