"""The batch test and the guard under other perturbations than noise: planted trigger, controls."""

import numpy as np
import pytest
from digits_networks import planted_and_clean
from scipy import stats

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.batches.batch_results import SMOOTHER
from wobbliness.detectors.smoother_batch import SmootherBatch
from wobbliness.detectors.smoothness import Smoothness
from wobbliness.perturbations import BoxMix, Gaussian, Scale, Superpose
from wobbliness.statistics.conformal import Reference, tie_breakers

TARGET = 1
DRAWS = 60
RATE = 0.05


@pytest.fixture(scope="module")
def networks(trained):
    """A backdoored network and a clean one."""
    return planted_and_clean(trained, t1(TARGET), "checkerboard")


@pytest.fixture(scope="module")
def overlays(digits):
    return digits.test.images[:150]


@pytest.fixture(scope="module")
def clean(digits):
    return digits.test.images[150:450]


@pytest.fixture(scope="module")
def fresh(digits):
    images, labels = digits.test.images[450:], digits.test.labels[450:]
    return images[labels != TARGET][:60]


@pytest.fixture(scope="module")
def triggered(fresh):
    return wobbliness.trigger("checkerboard").apply(fresh)


@pytest.fixture(scope="module")
def box_mix(overlays):
    return BoxMix(overlays)


@pytest.fixture(scope="module")
def guards(networks, clean, box_mix):
    """Guards of the backdoored and of the clean network."""
    settings = {"sigmas": [box_mix], "draws": DRAWS, "false_positive_rate": RATE}
    return [wobbliness.SmoothnessGuard(network, **settings).fit(clean) for network in networks]


def w_of(network, images, perturbation):
    """W by counting votes: -sum p log p."""
    shares = wobbliness.measure(network, images, perturbation, draws=DRAWS).probabilities
    return -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=1)


def test_the_batch_test_finds_a_trigger_and_only_that(networks, clean, fresh, triggered, box_mix):
    settings = {"sigmas": [box_mix], "draws": DRAWS}
    found = wobbliness.compare_batches(networks[0], clean, triggered, **settings)
    assert (found.verdict, found.sigma) == (SMOOTHER, box_mix.name)
    assert f"nats under {box_mix.name}, W is lower" in found.explanation()
    for network, suspect in ((networks[0], fresh), (networks[1], triggered), (networks[1], fresh)):
        control = wobbliness.compare_batches(network, clean, suspect, **settings)
        assert control.verdict != SMOOTHER, "control"


def test_the_verdict_is_that_of_a_plain_computation(networks, clean, fresh, triggered, box_mix):
    at = box_mix.name
    for suspect in (fresh, triggered):
        found = wobbliness.compare_batches(
            networks[0], clean, suspect, sigmas=[box_mix], draws=DRAWS
        )
        w = [w_of(networks[0], batch, box_mix) for batch in (clean, suspect)]
        # equal W must tie, whatever rounding makes of it
        plain = stats.mannwhitneyu(
            *(np.round(each, 9) for each in w), alternative="greater", method="asymptotic"
        )
        assert found[at].smoother.pvalue == pytest.approx(plain.pvalue)
        assert (found.verdict == SMOOTHER) == (plain.pvalue <= found.level)


def pool(rng, size, scale=1.0):
    """W of points under three perturbations, from little to much."""
    depth = rng.exponential(size=size)
    return [np.clip(scale * factor - 0.3 * depth, 0, None) for factor in (0.2, 0.4, 0.8)]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_several_are_chosen_from_as_sigmas_are(scale):
    """Names alone tell them apart: choice, halves and p-values are those of sigmas in this order.

    So the level holds for any number of perturbations, as it does for sigmas (`test_batch_test`).
    """
    rng = np.random.default_rng(0)
    clean, suspect = pool(rng, 61), pool(rng, 30, scale)
    levels, names = (0.1, 0.2, 0.3), ("superpose", "box-mix", "affine")
    by_sigma, by_name = (
        wobbliness.compare_w(*(dict(zip(keys, w, strict=True)) for w in (clean, suspect)), seed=3)
        for keys in (levels, names)
    )
    name_of = dict(zip(levels, names, strict=True))
    assert by_name.sigma == name_of[by_sigma.sigma]
    assert by_name.levene_sigma == name_of[by_sigma.levene_sigma]
    assert by_name.verdict == by_sigma.verdict
    assert (by_name.num_clean, by_name.num_for_sigma) == (31, 30)
    assert [row.smoother for row in by_name.at] == [row.smoother for row in by_sigma.at]
    backwards = wobbliness.compare_w(
        *(dict(zip(names[::-1], w[::-1], strict=True)) for w in (clean, suspect)), seed=3
    )
    assert [row.sigma for row in backwards.at] == [*names[::-1]], "their own order, unlike sigmas"


def test_sigmas_stand_before_others_and_gaussian_is_one(networks, clean, fresh, box_mix):
    chosen = [box_mix, Scale(3, 5), Gaussian(0.2), 0.1]
    found = wobbliness.compare_batches(networks[0], clean, fresh, sigmas=chosen, draws=20)
    assert [row.sigma for row in found.at] == [0.1, 0.2, box_mix.name, "scale-3-5"]
    measured = [
        wobbliness.sweep(networks[0], batch, chosen, draws=20).wobbliness
        for batch in (clean, fresh)
    ]
    assert found == wobbliness.compare_w(*measured)
    with pytest.raises(KeyError, match="expected a sigma out of 0.1, 0.2, box-mix-.*, got 'blur'"):
        found["blur"]


def test_the_guard_finds_a_trigger_and_only_that(guards, fresh, triggered):
    found, *controls = (
        guard.judge(images).is_suspicious
        for guard, images in zip(
            [guards[0], guards[0], guards[1], guards[1]],
            [triggered, fresh, triggered, fresh],
            strict=True,
        )
    )
    assert found.mean() > 0.9
    most = stats.binom.ppf(0.999, len(fresh), RATE + 2 * np.sqrt(RATE / 150))
    assert max(control.sum() for control in controls) <= most


def test_the_guards_pvalues_are_those_of_a_plain_computation(
    guards, networks, clean, triggered, box_mix
):
    order = np.random.default_rng(np.random.SeedSequence(0)).permutation(len(clean))
    first, rest = order[: len(clean) // 2], order[len(clean) // 2 :]

    def measured(images):
        votes = wobbliness.measure(networks[0], images, box_mix, draws=DRAWS)
        label = wobbliness.measure(networks[0], images, 0.0, draws=1).label
        ties = tie_breakers(wobbliness.image_keys(images), 0)
        return votes.wobbliness[None], label, ties

    w, label, ties = measured(clean)
    reference = Reference(wobbliness=w[:, first], label=label[first])
    calibration = reference.scores(w[:, rest], label[rest], ties[rest])
    scores = reference.scores(*measured(triggered))
    expected = [(1 + (calibration <= score).sum()) / (1 + len(calibration)) for score in scores]
    judged = guards[0].judge(triggered)
    np.testing.assert_allclose(judged.pvalue, expected)
    assert np.array_equal(judged.is_suspicious, np.array(expected) <= RATE)
    columns = judged.frame().columns
    assert {f"{what}_{box_mix.name}" for what in ("wobbliness", "smoothed_label", "agrees")} < {
        *columns
    }


def test_early_stopping_measures_a_fixed_number_of_draws_in_full(
    networks, clean, fresh, triggered, overlays
):
    made = [0.3, Superpose(overlays[:40]), Scale(3, 5, 7)]
    guard = wobbliness.SmoothnessGuard(networks[0], sigmas=made[1:], draws=DRAWS).fit(clean)
    images = np.concatenate([fresh, triggered])
    quick = guard.judge_quickly(images)
    assert quick.most_draws == 43
    assert set(quick.draws.tolist()) <= {0, 3, 40, 43}
    assert np.array_equal(quick.is_suspicious, guard.judge(images).is_suspicious), "no test is made"
    with_noise = wobbliness.SmoothnessGuard(networks[0], sigmas=made, draws=DRAWS).fit(clean)
    quick, judged = with_noise.judge_quickly(images), with_noise.judge(images)
    assert quick.most_draws == 43 + DRAWS
    assert (quick.is_suspicious != judged.is_suspicious).mean() <= 0.01
    assert quick.draws.mean() < quick.most_draws / 2
    with pytest.raises(ValueError, match="expected a perturbation with any number of draws"):
        wobbliness.decide(networks[0], images, made[1], 0.5, num_classes=10)


def test_overlays_among_the_inputs_are_refused(networks, clean, fresh, overlays, guards, box_mix):
    """Also copies that decoding changed in the last digits; whatever is measured with them."""
    network, settings = networks[0], {"sigmas": [0.1, box_mix], "draws": 5}
    copies = overlays[:3] + np.float32(1e-5) * (overlays[:3] < 0.5)
    among = [np.concatenate([images, copies]) for images in (clean, fresh)]
    calls = {
        "clean inputs": [
            lambda: wobbliness.compare_batches(network, among[0], fresh, **settings),
            lambda: wobbliness.SmoothnessGuard(network, **settings).fit(among[0]),
            lambda: SmootherBatch(**settings).fit(network, among[0]),
            lambda: Smoothness(**settings).fit(network, among[0]),
        ],
        "suspect inputs": [
            lambda: wobbliness.compare_batches(network, clean, among[1], **settings),
            lambda: SmootherBatch(**settings).fit(network, clean).scores(among[1]),
        ],
        "inputs": [
            lambda: guards[0].judge(among[1]),
            lambda: guards[0].predict(among[1]),
            lambda: Smoothness(**settings).fit(network, clean).scores(among[1]),
        ],
    }
    for what, refused in calls.items():
        for call in refused:
            with pytest.raises(
                ValueError,
                match=f"^expected overlays that are not among the {what}, got 3 of the 150 of box-",
            ):
                call()


@pytest.mark.parametrize("of", [SmootherBatch, Smoothness])
def test_detectors_take_perturbations(of, networks, clean, fresh, triggered, box_mix):
    detector = of((box_mix,), draws=DRAWS)
    assert detector == of([BoxMix(box_mix.overlays)], draws=DRAWS)
    assert hash(detector) == hash(of([BoxMix(box_mix.overlays)], draws=DRAWS))
    assert f"-sigmas-{box_mix.name}-" in detector.name
    assert of((Gaussian(0.1), 0.2)) == of((0.1, 0.2)), "noise is its sigma"
    scores = [
        [fitted.scores(images).mean() for images in (triggered, fresh)]
        for fitted in (detector.fit(network, clean) for network in networks)
    ]
    assert scores[0][0] > 1.5 * scores[0][1]
    assert scores[1][0] < 1.5 * max(scores[1][1], scores[0][1]), "control"
