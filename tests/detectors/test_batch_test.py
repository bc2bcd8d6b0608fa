"""The batch test: level on clean batches, power as stated, verdicts that tell the cases apart."""

import itertools
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

import wobbliness
from wobbliness.detectors.batches.batch_results import NO_DIFFERENCE, SMOOTHER, WOBBLIER
from wobbliness.detectors.batches.batch_test import MIN_POINTS

SIGMAS = (0.05, 0.1, 0.2)


def pool(rng, size, scale=1.0):
    """W of points: many zeros at a small sigma, fewer at a large one, the same points at each."""
    depth = rng.exponential(size=size)
    return {sigma: np.clip(scale * sigma * 4 - depth * 0.3, 0, None) for sigma in SIGMAS}


def test_false_positives_hold_the_level(monkeypatch):
    # the level holds however roughly sigma is chosen
    monkeypatch.setattr("wobbliness.detectors.inputs.noise_level.NUM_BATCHES", 10)
    monkeypatch.setattr("wobbliness.detectors.batches.batch_test.NUM_POWER_BATCHES", 1)
    level, trials = 0.05, 250
    rng = np.random.default_rng(0)
    verdicts = []
    for seed in range(trials):
        clean, suspect = pool(rng, 60), pool(rng, 30)
        verdicts.append(wobbliness.compare_w(clean, suspect, level=level, seed=seed).verdict)
    for verdict in (SMOOTHER, WOBBLIER):
        assert (
            stats.binomtest(verdicts.count(verdict), trials, level, alternative="greater").pvalue
            > 1e-3
        )
    assert verdicts.count(SMOOTHER) > 0  # the level is used, not merely kept


def test_sigma_is_chosen_on_points_that_are_not_compared():
    rng = np.random.default_rng(1)
    clean = pool(rng, 41)
    found = wobbliness.compare_w(clean, pool(rng, 30), seed=3)
    assert (found.num_clean, found.num_for_sigma, found.num_suspect) == (21, 20, 30)
    shifted = {sigma: w.copy() for sigma, w in clean.items()}
    compared = np.random.default_rng(np.random.SeedSequence(3)).permutation(41)[:21]
    for w in shifted.values():
        w[compared] = 0.0  # what is compared must not move the choice
    assert wobbliness.compare_w(shifted, pool(rng, 30), seed=3).sigma == found.sigma


def test_one_sigma_is_taken_as_it_is():
    rng = np.random.default_rng(2)
    clean, suspect = ({0.1: pool(rng, size)[0.1]} for size in (40, 30))
    found = wobbliness.compare_w(clean, suspect)
    reference = stats.mannwhitneyu(
        clean[0.1], suspect[0.1], alternative="greater", method="asymptotic"
    )
    assert (found.num_clean, found.num_for_sigma, found.sigma, found.levene_sigma) == (
        40,
        0,
        0.1,
        0.1,
    )
    assert found[0.1].smoother.pvalue == pytest.approx(reference.pvalue)
    with pytest.raises(KeyError, match="out of 0.1, got 0.2"):
        found[0.2]


def test_power_is_that_of_the_test_against_smooth_batches():
    rng = np.random.default_rng(3)
    clean = pool(rng, 24)[0.05]
    found = wobbliness.compare_w({0.05: clean}, {0.05: np.zeros(10)}, level=0.01)
    hits = [
        stats.mannwhitneyu(
            rng.choice(clean, 24), np.zeros(10), alternative="greater", method="asymptotic"
        ).pvalue
        <= 0.01
        for _ in range(2000)
    ]
    assert 0.05 < found.power < 0.95
    assert found.power == pytest.approx(np.mean(hits), abs=4 * np.sqrt(0.25 / 500))


@pytest.mark.parametrize(
    ("scale", "verdict", "words"),
    [
        (0.0, SMOOTHER, "active trigger does that"),
        (2.0, WOBBLIER, "does not"),
        (1.0, NO_DIFFERENCE, "is unlikely"),
    ],
)
def test_verdict_and_its_words(scale, verdict, words):
    rng = np.random.default_rng(4)
    found = wobbliness.compare_w(pool(rng, 200), pool(rng, 100, scale))
    assert found.verdict == verdict
    assert words in found.explanation()


def test_few_points_are_said_to_say_little():
    rng = np.random.default_rng(5)
    clean = {0.05: np.where(rng.random(20) < 0.8, 0.0, 0.3)}
    found = wobbliness.compare_w(clean, {0.05: clean[0.05][:MIN_POINTS]})
    assert not found.is_powerful
    assert "says little" in found.explanation()


def test_compare_batches_measures_what_compare_w_compares(half_space):
    far, near = _by_margin(half_space)
    found = wobbliness.compare_batches(
        half_space, near, far, sigmas=[0.05, 0.2], draws=60, num_classes=2
    )
    w = [
        wobbliness.sweep(half_space, batch, [0.05, 0.2], draws=60, num_classes=2).wobbliness
        for batch in (near, far)
    ]
    assert found == wobbliness.compare_w(*w)
    assert found.verdict == SMOOTHER
    reversed_roles = wobbliness.compare_batches(
        half_space, far, near, sigmas=[0.2], draws=60, num_classes=2
    )
    assert reversed_roles.verdict == WOBBLIER


def test_progress_counts_both_batches(half_space):
    seen = []
    far, near = _by_margin(half_space)
    wobbliness.compare_batches(
        half_space,
        near,
        far,
        sigmas=[0.1],
        draws=5,
        num_classes=2,
        progress=lambda *done: seen.append(done),
    )
    total = len(near) + len(far)
    assert seen[-1] == (total, total)
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 0.0}, "level in (0, 1)"),
        ({"suspect": {0.1: np.zeros(30)}}, "at the same sigmas"),
        ({"clean": {}, "suspect": {}}, "at the same sigmas"),
        ({"suspect": {0.05: np.zeros(7), 0.1: np.zeros(7)}}, "8 suspect ones"),
        ({"clean": {0.05: np.zeros(15), 0.1: np.zeros(15)}}, "16 clean inputs, half"),
    ],
)
def test_bad_batches_are_refused(arguments, message):
    both = {0.05: np.linspace(0, 1, 30), 0.1: np.linspace(0, 1, 30)}
    clean, suspect = arguments.pop("clean", both), arguments.pop("suspect", both)
    with pytest.raises(ValueError, match=re.escape(message)):
        wobbliness.compare_w(clean, suspect, **arguments)


def _by_margin(half_space):
    """Points far from the boundary, and points on it."""
    rng = np.random.default_rng(6)
    points = rng.random((400, 64)).astype(np.float32)
    margin = np.abs((points * half_space.normal).sum(axis=1) - half_space.offset)
    order = np.argsort(margin)
    return points[order[-40:]], points[order[:40]]


def test_json_holds_all_that_is_printed():
    rng = np.random.default_rng(7)
    found = wobbliness.compare_w(pool(rng, 60), pool(rng, 30, 0.0))
    row = json.loads(json.dumps(asdict(found)))["at"][0]
    assert set(row) == {"sigma", "clean_mean", "suspect_mean", "smoother", "wobblier", "levene"}


def test_copies_are_no_further_points(half_space):
    far, near = _by_margin(half_space)
    settings = {"sigmas": [0.1], "draws": 20, "num_classes": 2}
    found = wobbliness.compare_batches(
        half_space, near, np.concatenate([far, far[:20]]), **settings
    )
    assert found == wobbliness.compare_batches(half_space, near, far, **settings), (
        "control: the same without the copies"
    )
    for clean, suspect in (
        (near, far[:1].repeat(80, 0)),
        (near[:10].repeat(8, 0), far),
        (near, far[:10].repeat(8, 0)),
    ):
        with pytest.raises(
            ValueError, match=r"^expected (clean|suspect) inputs that differ, got 80 of which"
        ):
            wobbliness.compare_batches(half_space, clean, suspect, **settings)
    with pytest.raises(
        ValueError,
        match="^expected suspect inputs with content, got 80 of which most have one value",
    ):
        wobbliness.compare_batches(
            half_space, near, np.zeros((80, *near.shape[1:]), np.float32), **settings
        )
