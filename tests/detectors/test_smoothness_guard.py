"""The guard: exact false-positive rate, closed form, planted trigger and clean network."""

import re

import numpy as np
import pytest
import torch
from digits_networks import planted_and_clean
from scipy import special, stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.statistics.conformal import (
    RANK_STEPS,
    Reference,
    conformal_pvalues,
    num_flagged,
    score_limit,
    tie_breakers,
)
from wobbliness.study.training.train import predict

SIGMAS = (0.1, 0.2, 0.3)
RATE = 0.05
TARGET = 1  # a class whose clean digits wobble


def simulated(rng, num):
    """Clean inputs as seen: classes of very different W, many ties at 0, dependent sigmas."""
    label = rng.choice(4, size=num, p=[0.55, 0.3, 0.1, 0.05])
    others = rng.poisson(np.array([0.5, 3, 10, 30])[label] * rng.gamma(1.0, 1.0, size=num))
    counts = np.stack([np.minimum(others * factor, 120) for factor in (0, 1, 2)])
    # of scipy's own entropy most of the time is its wrapper's
    w = special.entr(np.stack([250 - counts, counts]) / 250).sum(axis=0)
    return w, label, tie_breakers(rng.integers(0, 2**63, num).astype(np.uint64), 0)


def flagged_share(rng, rate, *, num_clean=119, num_fresh=20, ties=True, smoothness=1.0):
    """Flagged of fresh inputs, calibrated on half of the clean ones."""
    (w, label, tie), (fresh_w, fresh_label, fresh_tie) = (
        simulated(rng, num_clean),
        simulated(rng, num_fresh),
    )
    half = num_clean // 2
    reference = Reference(wobbliness=w[:, :half], label=label[:half])
    tie, fresh_tie = (tie, fresh_tie) if ties else (0 * tie + 0.5, 0 * fresh_tie + 0.5)
    calibration = np.sort(reference.scores(w[:, half:], label[half:], tie[half:]))
    scores = reference.scores(fresh_w * smoothness, fresh_label, fresh_tie)
    return conformal_pvalues(scores, calibration) <= rate, len(calibration)


RUNS = pytest.mark.parametrize("runs", [300, pytest.param(1000, marks=pytest.mark.scale)])


@RUNS
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.37])
def test_the_false_positive_rate_is_the_stated_one(rate, runs):
    """One fresh input per calibration, for independence: rate floor(a (C + 1)) / (C + 1)."""
    rng = np.random.default_rng(1)
    flagged, size = zip(*(flagged_share(rng, rate, num_fresh=1) for _ in range(runs)), strict=True)
    expected = num_flagged(size[0], rate) / (size[0] + 1)
    assert expected > rate - 1 / size[0]
    assert stats.binomtest(int(np.sum(flagged)), runs, expected).pvalue > 0.001


@RUNS
def test_without_tie_breakers_the_rate_is_missed(runs):
    """Control: the same check sees that ties at W = 0 would leave the rate short."""
    rng = np.random.default_rng(1)
    flagged = [flagged_share(rng, 0.37, num_fresh=1, ties=False)[0] for _ in range(runs)]
    assert stats.binomtest(int(np.sum(flagged)), runs, 0.37).pvalue < 0.001
    assert np.mean(flagged) < 0.37


def test_smoother_inputs_are_flagged_more_often():
    rng = np.random.default_rng(2)
    clean = np.mean([flagged_share(rng, RATE, num_clean=800)[0].mean() for _ in range(50)])
    smooth = np.mean(
        [flagged_share(rng, RATE, num_clean=800, smoothness=0.0)[0].mean() for _ in range(50)]
    )
    assert smooth > 1.5 * clean


def test_scores_are_the_largest_mid_rank_among_the_same_label():
    w = np.array([[0.0, 0.0, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]])
    reference = Reference(wobbliness=w, label=np.array([0, 0, 0, 1]))
    new, label = np.array([[0.0, 0.3], [0.15, 0.5]]), np.array([0, 2])
    first = (3 * 1 / 3 + 10 * 0.25) / 13  # of label 0 mid-rank 1/3 at both sigmas, of all 1/4
    second = 1.0  # label 2 was never seen: of all, 5/8 and 1
    np.testing.assert_allclose(
        reference.scores(new, label, np.zeros(2)), [first, second], atol=2 / RANK_STEPS
    )


@pytest.mark.parametrize("limit", [0.02, 0.11, 0.4, 0.75, 1.0])
def test_thresholds_say_what_the_scores_say(limit):
    """W below its threshold at every sigma equals a score below the limit, ties included."""
    rng = np.random.default_rng(3)
    (w, label, _), (new_w, new_label, tie) = simulated(rng, 150), simulated(rng, 400)
    reference = Reference(wobbliness=w, label=label)
    scores = reference.scores(new_w, new_label, tie)
    for bound in (limit, *scores[:40]):
        thresholds = reference.thresholds(float(bound), new_label, tie)
        for nudge in (-1e-15, 0.0, 1e-15):
            assert np.array_equal((new_w + nudge < thresholds).all(axis=0), scores < bound)


def test_verdicts_and_pvalues_are_the_same_statement():
    calibration = np.sort(np.random.default_rng(4).uniform(size=99))
    scores = np.r_[calibration, calibration + 1e-9, 0.0, 1.0]
    for rate in (0.005, 0.01, 0.07, 0.29, 0.5):
        assert np.array_equal(
            conformal_pvalues(scores, calibration) <= rate + 1e-12,
            scores < score_limit(calibration, rate),
        )


def test_half_space_is_suspicious_far_from_the_border(half_space):
    """W has a closed form; inputs far beyond the clean margins have W = 0, clean ones have not."""
    rng = np.random.default_rng(5)
    near = np.clip(0.5 + 0.1 * rng.normal(size=(400, 64)), 0, 1)
    far = np.clip(near[:50] + 0.25 * np.sign(half_space.normal), 0, 1)
    guard = wobbliness.SmoothnessGuard(half_space, sigmas=SIGMAS, num_classes=2).fit(near[:300])
    judged, control = guard.judge(far), guard.judge(near[300:])
    for column, sigma in enumerate(SIGMAS):
        p = half_space.probability(near[300:], sigma)
        exact = stats.entropy(np.stack([p, 1 - p]))
        assert (
            np.abs(control.wobbliness[:, column] - exact)
            < 4 * control.votes[sigma].standard_error + 0.005
        ).all()
    assert judged.is_suspicious.mean() > 0.9
    assert judged.agrees.all()
    assert stats.binomtest(int(control.is_suspicious.sum()), 100, RATE).pvalue > 0.001
    assert np.array_equal(
        control.smoothed_label == control.undisturbed_label[:, None], control.agrees
    )


@pytest.fixture(scope="module")
def networks(trained):
    return planted_and_clean(trained, t1(TARGET), "checkerboard")


@pytest.fixture(scope="module")
def guards(networks, digits):
    return [
        wobbliness.SmoothnessGuard(network, sigmas=SIGMAS, workers=2).fit(digits.test.images[:400])
        for network in networks
    ]


def test_a_planted_trigger_is_found_and_a_clean_network_stays_silent(guards, digits):
    fresh, labels = digits.test.images[400:], digits.test.labels[400:]
    stamped = wobbliness.trigger("checkerboard").apply(fresh[labels != TARGET])
    rates = [
        [guard.judge(images).is_suspicious.mean() for images in (stamped, fresh)]
        for guard in guards
    ]
    assert rates[0][0] > 0.5, "active trigger"
    for found, num in (
        (rates[0][1], len(fresh)),
        (rates[1][1], len(fresh)),
        (rates[1][0], len(stamped)),
    ):
        assert found < stats.binom.ppf(0.999, num, RATE + 2 * np.sqrt(RATE / 200)) / num


def test_quick_verdicts_agree_with_all_draws_and_cost_less(guards, digits):
    images = np.concatenate(
        [
            digits.test.images[400:],
            wobbliness.trigger("checkerboard").apply(digits.test.images[400:500]),
        ]
    )
    quick, judged = guards[0].judge_quickly(images), guards[0].judge(images)
    assert (quick.is_suspicious != judged.is_suspicious).mean() <= 0.01
    assert quick.draws[:200].mean() < 0.4 * quick.most_draws
    assert (quick.draws <= quick.most_draws).all()
    assert np.array_equal(guards[0].predict(images), np.where(quick.is_suspicious, -1, 1))


def test_judgements_do_not_depend_on_order_company_or_kind(guards, digits):
    images = digits.test.images[400:430]
    whole, some = guards[0].judge(images), guards[0].judge(images[::-3].copy())
    assert np.array_equal(whole.score[::-3], some.score)
    assert np.array_equal(guards[0].predict(torch.from_numpy(images)), guards[0].predict(images))
    assert np.array_equal(whole.undisturbed_label, predict(guards[0].classifier, images))


def test_the_smooth_pvalue_says_where_a_trigger_could_be_seen(guards):
    guard = guards[0]
    assert guard.smooth_pvalues_.shape == (10,)
    assert guard.smooth_pvalues_[TARGET] <= RATE
    assert (guard.smooth_pvalues_ > 2 * RATE).any(), "control: some classes are smooth by nature"
    w, labels = np.zeros((len(SIGMAS), 10)), np.arange(10)
    scores = [guard.reference_.scores(w, labels, np.full(10, tie)) for tie in (0.0, 0.999)]
    least, most = (conformal_pvalues(score, guard.calibration_) for score in scores)
    assert ((least <= guard.smooth_pvalues_) & (guard.smooth_pvalues_ <= most)).all()
    assert np.array_equal(scores[1] < guard.offset_, most <= RATE)


class Nearest:
    """Labels flat inputs of any width by where their mean lies."""

    def __call__(self, images):
        return (
            np.asarray(images, dtype=np.float64).reshape(len(images), -1).mean(axis=1) > 0.5
        ).astype(np.int64)

    def __eq__(self, other):
        return isinstance(other, Nearest)

    __hash__ = None


class SquashedGuard(wobbliness.SmoothnessGuard):
    """Maps the inputs of scikit-learn's checks into [0, 1]; the rest is the guard's own."""

    def _checked(self, inputs, *, reset):
        values = super()._checked(inputs, reset=reset)
        # of 100 and more, as some are, the sigmoid is 1 throughout
        return 0.5 + values / (2 * (1 + np.abs(values)))


def squashed(**settings):
    return SquashedGuard(
        Nearest(),
        **{
            "sigmas": (0.1, 0.3),
            "draws": 20,
            "false_positive_rate": 0.3,
            "num_classes": 2,
            **settings,
        },
    )


@pytest.mark.parametrize("draws", [3, pytest.param(20, marks=pytest.mark.scale)])
def test_scikit_learns_checks_pass(draws):
    """All of them, once their data are taken into [0, 1]."""
    results = check_estimator(squashed(draws=draws), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40
    # skipped
    assert {result["check_name"] for result in results if result["status"] != "passed"} <= {
        "check_array_api_input"
    }


def test_as_it_is_the_guard_fails_only_checks_whose_data_leave_the_range():
    """Scikit-learn's own data lie in [-4, 9]: they are refused, since a guessed range is worse."""
    guard = SquashedGuard.__base__(**squashed().get_params(deep=False))
    failed = [
        result
        for result in check_estimator(guard, on_fail=None, on_skip=None)
        if result["status"] == "failed"
    ]
    reasons = [
        f"{result['exception']} {result['exception'].__cause__} {result['exception'].__context__}"
        for result in failed
    ]
    assert reasons
    assert all("expected images in [0, 1], got " in reason for reason in reasons), reasons


def test_another_range_is_refused(half_space):
    with pytest.raises(ValueError, match=r"^expected images in \[0, 1\], got "):
        wobbliness.SmoothnessGuard(half_space).fit(np.full((100, 64), 2.0))


def test_a_clone_shares_the_classifier_and_is_not_fitted(guards):
    copy = clone(guards[0]).set_params(false_positive_rate=0.2)
    assert copy.classifier is guards[0].classifier
    assert not hasattr(copy, "calibration_")
    assert copy.get_params(deep=False) == {
        **guards[0].get_params(deep=False),
        "false_positive_rate": 0.2,
    }
    assert guards[0].false_positive_rate == RATE


def test_labels_only_without_the_number_of_classes_takes_all_draws():
    images = np.random.default_rng(6).uniform(size=(60, 4))
    known, unknown = squashed().fit(images), squashed(num_classes=None).fit(images)
    assert (known.judge_quickly(images).draws < known.judge_quickly(images).most_draws).any()
    assert (unknown.judge_quickly(images).draws == 40).all()
    assert np.array_equal(
        unknown.predict(images), np.where(unknown.judge(images).is_suspicious, -1, 1)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"false_positive_rate": 0.0}, "expected a false-positive rate between 0 and 1, got 0.0"),
        ({"error_rate": 1.0}, "expected an error rate between 0 and 1, got 1.0"),
        (
            {"false_positive_rate": 0.01},
            "expected at least 197 clean inputs for a false-positive rate of 0.01, got 196 samples",
        ),
        ({"sigmas": ()}, "expected distinct sigmas, at least one"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        squashed(**settings).fit(np.random.default_rng(0).uniform(size=(196, 4)))


def drawn(rng, num):
    return np.clip(0.5 + 0.25 * rng.normal(size=(num, 64)), 0, 1)


def one_value(rng, num):
    return np.broadcast_to(rng.uniform(size=(num, 1)), (num, 64)).copy()


BAD_CLEAN = {
    "all equal": (
        lambda rng: np.repeat(drawn(rng, 1), 200, axis=0),
        "200 of which 1 do; leave out the copies",
    ),
    "all equal but for rounding": (
        lambda rng: np.clip(
            np.repeat(drawn(rng, 1), 200, axis=0).round(2) + 1e-4 * rng.uniform(size=(200, 64)),
            0,
            1,
        ),
        "of which 1 do",
    ),
    "five different ones": (lambda rng: drawn(rng, 5)[rng.integers(0, 5, 200)], "of which 5 do"),
    "black": (lambda _: np.zeros((200, 64)), "most have one value throughout"),
    "of one grey each": (lambda rng: one_value(rng, 200), "most have one value throughout"),
    "too few different ones": (
        lambda rng: np.concatenate([drawn(rng, 30), np.repeat(drawn(rng, 1), 20, axis=0)]),
        "at least 37 different clean inputs for a false-positive rate of 0.05, got 31",
    ),
}


@pytest.mark.parametrize("name", BAD_CLEAN)
def test_clean_inputs_that_say_nothing_of_new_ones_are_refused(half_space, name):
    make, message = BAD_CLEAN[name]
    with pytest.raises(ValueError, match=f"^expected .*{message}"):
        wobbliness.SmoothnessGuard(half_space, num_classes=2).fit(make(np.random.default_rng(0)))


def test_the_rate_holds_where_some_clean_inputs_are_copies(half_space):
    """The stated false-positive rate over draws of clean inputs, with and without copies."""
    rng, flagged, num = np.random.default_rng(1), {False: 0, True: 0}, 0
    for run in range(12):
        fresh, clean = drawn(rng, 100), drawn(rng, 100)
        copies = np.concatenate([clean[:61], clean[rng.integers(0, 61, 39)]])
        num += len(fresh)
        for has_copies, inputs in ((False, clean), (True, copies)):
            settings = {
                "sigmas": (0.1, 0.3),
                "draws": 20,
                "num_classes": 2,
                "seed": run,
                "workers": 1,
            }
            guard = wobbliness.SmoothnessGuard(half_space, **settings).fit(inputs)
            flagged[has_copies] += guard.judge(fresh).is_suspicious.sum()
    for count in flagged.values():
        spread = np.sqrt(RATE / (num * 12) + RATE / (30 * 12))
        assert count / num < RATE + 3 * spread


def test_a_few_copies_change_nothing(half_space):
    """The verdicts are those of the different ones alone."""
    rng = np.random.default_rng(2)
    clean, fresh = drawn(rng, 100), drawn(rng, 20)
    settings = {"sigmas": (0.1, 0.3), "draws": 20, "num_classes": 2}
    with_copies = wobbliness.SmoothnessGuard(half_space, **settings).fit(
        np.concatenate([clean, clean[:10]])
    )
    without = wobbliness.SmoothnessGuard(half_space, **settings).fit(clean)
    assert np.array_equal(with_copies.pvalues(fresh), without.pvalues(fresh))


def test_as_few_clean_inputs_as_said_will_do():
    images = np.random.default_rng(7).uniform(size=(197, 4))
    assert squashed(false_positive_rate=0.01, draws=5).fit(images).offset_ > 0


def test_inputs_of_another_shape_are_refused(guards):
    with pytest.raises(
        ValueError, match=r"^expected inputs of shape \(1, 8, 8\) each, got \(1, 4, 16\)"
    ):
        guards[0].judge(np.zeros((2, 1, 4, 16), np.float32))
    # Another number of channels, and flat rows: said by shapes, not by numbers of features.
    for shape, kind in (
        ((3, 8, 8), np.asarray),
        ((3, 8, 8), torch.from_numpy),
        ((64,), np.asarray),
    ):
        said = f"expected inputs of shape (1, 8, 8) each, got {shape}"
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            guards[0].judge(kind(np.zeros((2, *shape), np.float32)))
    assert len(guards[0].judge(np.zeros((2, 1, 8, 8), np.float32)).score) == 2
