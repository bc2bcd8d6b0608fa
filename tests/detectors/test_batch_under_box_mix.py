"""The batch test of two perturbations: its level, which test spoke, and what is mixed with."""

import numpy as np
import pytest
from digits_networks import planted_and_clean
from scipy import stats

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.batches.batch_results import NO_DIFFERENCE, SMOOTHER, WOBBLIER
from wobbliness.detectors.batches.batch_test import DEFAULT_SIGMAS, BoxMixW
from wobbliness.detectors.batches.mixed_images import mix_with_some
from wobbliness.perturbations import BoxMix
from wobbliness.statistics.holm import holm_pvalues

TARGET = 1
DRAWS = 40
FEW_SIGMAS = (0.1, 0.2, 0.4)


@pytest.fixture(scope="module")
def networks(trained):
    """A backdoored network and a clean one."""
    return planted_and_clean(trained, t1(TARGET), "checkerboard")


@pytest.fixture(scope="module")
def batches(digits):
    """Digits of attacked classes, others of the same, and these with the trigger."""
    images = digits.test.images[digits.test.labels != TARGET]
    fresh = images[300:340]
    return images[:200], fresh, wobbliness.trigger("checkerboard").apply(fresh)


def w(rng, size, mean):
    return np.clip(rng.normal(mean, 0.3, size), 0, None)


def compared(rng, noise, mixed, **settings):
    """Batches of clean points of mean W 0.5 against suspects of another mean in each test."""
    box_mix = BoxMixW(
        perturbation="box-mix", clean=w(rng, 80, 0.5), suspect=w(rng, 40, mixed), num_overlays=20
    )
    return wobbliness.compare_w(
        {0.1: w(rng, 50, 0.5)}, {0.1: w(rng, 40, noise)}, box_mix=box_mix, **settings
    )


@pytest.mark.parametrize(
    ("noise", "mixed", "verdict", "spoke", "words"),
    [
        (0.0, 0.0, SMOOTHER, (0.1, "box-mix"), "Both tests spoke, at sigma 0.1 and under box mix"),
        (0.0, 0.5, SMOOTHER, (0.1,), "The test at sigma 0.1 spoke"),
        (0.5, 0.0, SMOOTHER, ("box-mix",), "The test under box mix spoke"),
        (1.5, 0.0, SMOOTHER, ("box-mix",), "The test under box mix spoke"),
        (1.5, 0.5, WOBBLIER, (0.1,), "The test at sigma 0.1 spoke"),
        (0.5, 0.5, NO_DIFFERENCE, (), "Neither of two tests spoke"),
    ],
)
def test_either_test_gives_the_verdict_and_is_named(noise, mixed, verdict, spoke, words):
    found = compared(np.random.default_rng(0), noise, mixed)
    assert (found.verdict, found.spoke) == (verdict, spoke)
    assert words in found.explanation()
    assert "20 clean images were mixed with, and 80 others compared with" in found.explanation()
    assert (found.pvalue <= found.level) == (verdict != NO_DIFFERENCE)
    raw = [row.smoother.pvalue for row in found.tests]
    np.testing.assert_array_equal(found.smoother_pvalues, holm_pvalues(raw))


def test_the_test_under_noise_is_the_one_without_box_mix():
    rng = np.random.default_rng(1)
    clean, suspect = ({s: w(rng, n, 0.5) for s in FEW_SIGMAS} for n in (60, 30))
    alone = wobbliness.compare_w(clean, suspect, seed=2)
    mixed = BoxMixW(perturbation="m", clean=w(rng, 9, 1), suspect=w(rng, 8, 1), num_overlays=3)
    both = wobbliness.compare_w(clean, suspect, seed=2, box_mix=mixed)
    assert (both.at, both.sigma, both.levene_sigma) == (alone.at, alone.sigma, alone.levene_sigma)
    assert alone.box_mix is None
    assert alone.pvalue == alone[alone.sigma].smoother.pvalue, "one test needs no correction"
    assert alone.explanation().endswith(("is unlikely.", "take more points."))


def test_the_power_is_that_of_the_better_test_at_half_the_level():
    """Points of no W under noise cannot be told from smooth ones; under box mix they can."""
    rng = np.random.default_rng(2)
    mixed = {"clean": w(rng, 24, 0.5), "suspect": np.zeros(9)}
    found = wobbliness.compare_w(
        {0.1: np.zeros(24)},
        {0.1: np.zeros(9)},
        box_mix=BoxMixW(perturbation="m", num_overlays=4, **mixed),
    )
    half = wobbliness.compare_w({"m": mixed["clean"]}, {"m": mixed["suspect"]}, level=0.005)
    assert found.power == half.power
    assert found.power > 0.1


def test_clean_splits_of_digits_hold_the_level(networks, batches, monkeypatch):
    """Given the pool, splits are independent, and each is a random one under the null."""
    monkeypatch.setattr("wobbliness.detectors.inputs.noise_level.NUM_BATCHES", 10)
    monkeypatch.setattr("wobbliness.detectors.batches.batch_test.NUM_POWER_BATCHES", 1)
    images, level, trials, num_clean = batches[0], 0.1, 250, 80
    pool, name = images[:160], BoxMix(images[160:]).name
    made = (*FEW_SIGMAS, BoxMix(images[160:]))
    measured = wobbliness.sweep(networks[0], pool, made, draws=DRAWS).wobbliness
    rng, verdicts = np.random.default_rng(3), []
    for seed in range(trials):
        rows = rng.permutation(len(pool))[:120]
        clean, suspect = (
            {level: w[part] for level, w in measured.items()}
            for part in np.split(rows, [num_clean])
        )
        box_mix = BoxMixW(
            perturbation=name, clean=clean.pop(name), suspect=suspect.pop(name), num_overlays=40
        )
        found = wobbliness.compare_w(clean, suspect, level=level, seed=seed, box_mix=box_mix)
        verdicts.append(found.verdict)
    most = stats.binom.ppf(0.999, trials, level)
    assert 0 < verdicts.count(SMOOTHER) <= most, "the level is used, not merely kept"
    # smoother is said first; what is left for the other direction is less
    assert verdicts.count(WOBBLIER) <= most


def test_by_default_a_trigger_is_found_and_only_that(networks, batches):
    clean, fresh, triggered = batches
    found = wobbliness.compare_batches(networks[0], clean, triggered, draws=DRAWS)
    assert found.verdict == SMOOTHER
    assert found.box_mix.at.sigma in found.spoke
    assert (found.box_mix.num_overlays, found.box_mix.num_clean) == (40, 160)
    for network, suspect in ((networks[0], fresh), (networks[1], triggered), (networks[1], fresh)):
        control = wobbliness.compare_batches(network, clean, suspect, draws=DRAWS)
        assert control.verdict != SMOOTHER, "control"
    noise = wobbliness.compare_batches(
        networks[0], clean, triggered, sigmas=DEFAULT_SIGMAS, draws=DRAWS
    )
    assert noise.box_mix is None
    assert (noise.at, noise.sigma, noise.num_clean) == (found.at, found.sigma, found.num_clean)


def test_what_is_mixed_with_is_compared_with_nothing(networks, batches):
    """The p-values are those of W of other images: the overlays chose sigma, and no more."""
    clean, fresh, _ = batches
    found = wobbliness.compare_batches(networks[0], clean, fresh, draws=5, seed=4)
    order = np.random.default_rng(np.random.SeedSequence(4)).permutation(len(clean))
    compared_with, for_choice = order[:100], order[100:]
    mixed = mix_with_some(clean, fresh, np.sort(for_choice), 4)
    overlays = np.flatnonzero(mixed.is_overlay)
    assert set(overlays) <= set(for_choice)
    assert not set(overlays) & set(compared_with)
    others = np.delete(clean, overlays, axis=0)
    name = mixed.box_mix.name
    both = [
        wobbliness.measure(networks[0], images, mixed.box_mix, draws=5, seed=4).wobbliness
        for images in (others, fresh)
    ]
    plain = stats.mannwhitneyu(
        *(np.round(each, 9) for each in both), alternative="greater", method="asymptotic"
    )
    assert found.box_mix.at.smoother.pvalue == pytest.approx(plain.pvalue)
    assert found.box_mix.at.sigma == name


def test_progress_counts_what_is_measured(networks, batches):
    seen, (clean, fresh, _) = [], batches
    wobbliness.compare_batches(
        networks[0], clean, fresh, draws=2, progress=lambda *done: seen.append(done)
    )
    total = 2 * (len(clean) + len(fresh)) - 40
    assert seen[-1] == (total, total)


def test_suspects_are_not_mixed_with_themselves(batches):
    clean, fresh, _ = batches
    among = np.concatenate([fresh, clean[:60]])
    mixed = mix_with_some(clean, among, np.arange(100), 0)
    assert (mixed.num_overlays, mixed.is_overlay[:60].sum()) == (40, 0)
    assert mix_with_some(clean, clean, np.arange(100), 0) is None, "none is left"
    few = mix_with_some(clean, clean[:99], np.arange(100), 0)
    assert few is None, "one image alone is no choice"


def test_inputs_that_are_no_pictures_are_tested_under_noise_alone(half_space):
    points = np.random.default_rng(5).random((60, 64), dtype=np.float32)
    found = wobbliness.compare_batches(half_space, points[:40], points[40:], draws=5, num_classes=2)
    assert found.box_mix is None
    assert [row.sigma for row in found.at] == [*DEFAULT_SIGMAS]
