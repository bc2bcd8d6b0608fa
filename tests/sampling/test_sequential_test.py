"""Sequential decisions: error rates over known probabilities, agreement with all draws."""

import numpy as np
import pytest
from scipy import stats
from simulated_votes import DISTRIBUTIONS, ERROR_RATE, MAX_DRAWS, RUNS, first_crossings, simulate

import wobbliness
from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.statistics.sequential import boundaries as stopping
from wobbliness.statistics.sequential import disagreement
from wobbliness.study.training.networks import build_network


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("side", [0.8, 1.25])
def test_true_decisions_keep_their_error_rate(name, side):
    p = np.array(DISTRIBUTIONS[name])
    entropy = stats.entropy(p)
    threshold = min(entropy * side, 0.999 * np.log(len(p)))
    rule = stopping.true_boundaries(
        threshold, num_classes=len(p), error_rate=ERROR_RATE, max_draws=MAX_DRAWS
    )
    verdict, _ = first_crossings(*simulate(p), rule)
    wrong = int((verdict == (0 if entropy < threshold else 1)).sum())
    assert stats.binomtest(wrong, RUNS, ERROR_RATE, alternative="greater").pvalue > 0.001, wrong


def test_the_error_rate_is_spent_at_the_border():
    """Control: at W equal to the threshold errors do occur, so the simulation can see them."""
    p = np.array([0.95, 0.05])
    rule = stopping.true_boundaries(
        stats.entropy(p), num_classes=2, error_rate=ERROR_RATE, max_draws=MAX_DRAWS
    )
    verdict, _ = first_crossings(*simulate(p), rule)
    for side in (0, 1):
        assert 0.005 < (verdict == side).mean() < ERROR_RATE + 0.01


def test_looser_boundaries_are_caught():
    """Control: the binomial check fails for a rule made for ten times the error rate."""
    p = np.array([0.95, 0.05])
    rule = stopping.true_boundaries(
        stats.entropy(p), num_classes=2, error_rate=0.5, max_draws=MAX_DRAWS
    )
    verdict, _ = first_crossings(*simulate(p), rule)
    wrong = int((verdict == 0).sum())
    assert stats.binomtest(wrong, RUNS, ERROR_RATE, alternative="greater").pvalue < 0.001


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("side", [0.8, 1.25])
def test_curtailed_decisions_agree_with_all_draws(name, side):
    """Given all votes the first ones are a random sample: the rate holds for every set of votes."""
    p = np.array(DISTRIBUTIONS[name])
    threshold = stats.entropy(p) * side
    rule = stopping.curtailed_boundaries(
        threshold, num_classes=len(p), error_rate=ERROR_RATE, max_draws=MAX_DRAWS
    )
    counts, first = simulate(p, runs=4000)
    verdict, draws = first_crossings(counts, first, rule)
    by_all = plug_in_entropy(counts[:, -1].astype(np.int64)) < threshold
    differ = int(((verdict >= 0) & (verdict != by_all)).sum())
    assert stats.binomtest(differ, 4000, ERROR_RATE, alternative="greater").pvalue > 0.001
    assert draws.mean() < MAX_DRAWS


@pytest.mark.parametrize("disagreements", [0, 1, 4, 12, 60])
def test_curtailed_rate_holds_for_each_set_of_votes(disagreements):
    """Worst case: fixed votes in random order."""
    votes = np.repeat([0, 1], [MAX_DRAWS - disagreements, disagreements])
    rng = np.random.default_rng(1)
    labels = rng.permuted(np.tile(votes, (4000, 1)), axis=1)
    counts = (labels[:, :, None] == np.arange(2)).astype(np.int16).cumsum(axis=1, dtype=np.int16)
    w = plug_in_entropy(np.bincount(votes, minlength=2))
    for threshold in (w + 1e-6, max(w - 1e-6, 1e-9), 0.1, 0.3):
        rule = stopping.curtailed_boundaries(
            threshold, num_classes=2, error_rate=ERROR_RATE, max_draws=MAX_DRAWS
        )
        verdict, _ = first_crossings(counts, labels[:, 0], rule)
        differ = int(((verdict >= 0) & (verdict != (w < threshold))).sum())
        assert stats.binomtest(differ, 4000, ERROR_RATE, alternative="greater").pvalue > 0.001, (
            threshold
        )


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_bounds_cover_the_true_w(name):
    p = np.array(DISTRIBUTIONS[name])
    counts, first = simulate(p, runs=2000)
    entropy = stats.entropy(p)
    for draws in (10, 50, 250):
        now = counts[:, draws - 1].astype(np.int64)
        n = np.full(len(now), draws)
        lower = disagreement.lower_bound(
            n, n - now.max(axis=1), num_classes=len(p), error_rate=ERROR_RATE
        )
        of_first = n - now[np.arange(len(now)), first]
        upper = disagreement.upper_bound(n - 1, of_first, num_classes=len(p), error_rate=ERROR_RATE)
        for misses in ((lower > entropy + 1e-9).sum(), (upper < entropy - 1e-9).sum()):
            assert (
                stats.binomtest(int(misses), 2000, ERROR_RATE, alternative="greater").pvalue > 0.001
            )
        assert (lower <= upper).all()
        assert (upper <= np.log(len(p)) + 1e-9).all()


def test_boundaries_decide_whatever_the_bounds_decide():
    """They know the last draw and may decide more."""
    rule = stopping.plain_boundaries(
        0.3, num_classes=10, error_rate=ERROR_RATE, max_draws=MAX_DRAWS
    )
    for draws in (50, 100, 200):
        n = np.full(20, draws)
        upper = disagreement.upper_bound(
            n - 1, np.arange(20), num_classes=10, error_rate=ERROR_RATE
        )
        assert (upper <= 0.3 + 1e-6).sum() <= rule.max_beyond[draws, 0] + 1
        lower = disagreement.lower_bound(
            np.full(draws, draws), np.arange(draws), num_classes=10, error_rate=ERROR_RATE
        )
        assert np.argmax(lower >= 0.3 - 1e-6) >= rule.min_disagreements[draws, 0]


@pytest.mark.parametrize(
    ("split", "spread"), [(0.0, True), (0.3, True), (8 / 9, True), (0.2, False), (0.5, False)]
)
def test_split_disagreements_keep_the_error_rate_at_the_border(split, spread):
    """W at the threshold, with one, two or many other classes: neither verdict may be frequent."""
    threshold = 0.25

    def distribution(share):
        beyond = np.full(8, share * split / 8) if spread else np.array([share * split] + [0.0] * 7)
        return np.array([1 - share, share * (1 - split), *beyond])

    low, high = 0.0, 0.4
    for _ in range(40):
        low, high = (
            (low, (low + high) / 2)
            if stats.entropy(distribution((low + high) / 2)) > threshold
            else ((low + high) / 2, high)
        )
    rule = stopping.true_boundaries(
        threshold, num_classes=10, error_rate=ERROR_RATE, max_draws=MAX_DRAWS
    )
    verdict, _ = first_crossings(*simulate(distribution(low)), rule)
    for side in (0, 1):
        assert (
            stats.binomtest(
                int((verdict == side).sum()), RUNS, ERROR_RATE, alternative="greater"
            ).pvalue
            > 0.001
        ), side


def test_loose_split_boundaries_are_caught():
    """Control: at the border the simulation sees a rule made for a larger error rate."""
    p = np.array([1 - 0.0645, 0.0645] + [0.0] * 8)
    rule = stopping.true_boundaries(
        float(stats.entropy(p)), num_classes=10, error_rate=0.4, max_draws=MAX_DRAWS
    )
    verdict, _ = first_crossings(*simulate(p), rule)
    assert (
        stats.binomtest(int((verdict == 0).sum()), RUNS, ERROR_RATE, alternative="greater").pvalue
        < 0.001
    )


def test_split_disagreements_decide_more():
    """Few disagreements with one class bear less entropy than the plain rule has to allow for."""
    p = np.array([0.98, 0.02] + [0.0] * 8)
    limits = {"num_classes": 10, "error_rate": ERROR_RATE, "max_draws": MAX_DRAWS}
    assert stopping.runner_up.can_split(0.2, num_classes=10, max_draws=MAX_DRAWS)
    decided = [
        (first_crossings(*simulate(p, runs=2000), make(0.2, **limits))[0] == 1).mean()
        for make in (stopping.true_boundaries, stopping.plain_boundaries)
    ]
    assert decided[0] > decided[1] + 0.1
    for unfit in ({"threshold": 0.7}, {"num_classes": 2}, {"max_draws": 5000}):
        arguments = {"threshold": 0.2, "num_classes": 10, "max_draws": MAX_DRAWS} | unfit
        assert not stopping.runner_up.can_split(arguments.pop("threshold"), **arguments)


@pytest.mark.parametrize("group_size", [1, 5])
def test_the_whole_error_rate_is_spent_in_the_hardest_case(group_size):
    """Two classes are the hardest case of both sides: errors are as frequent as allowed."""
    p = np.array([0.9, 0.1])
    rule = stopping.true_boundaries(
        float(stats.entropy(p)),
        num_classes=2,
        error_rate=ERROR_RATE,
        max_draws=MAX_DRAWS,
        group_size=group_size,
    )
    verdict, draws = first_crossings(*simulate(p), rule)
    for side in (0, 1):
        wrong = int((verdict == side).sum())
        assert stats.binomtest(wrong, RUNS, ERROR_RATE, alternative="greater").pvalue > 0.001
        assert wrong / RUNS > ERROR_RATE / 2
    assert (draws % group_size == 0).all()


def test_decisions_of_the_half_space_are_right(half_space, images):
    sigma, threshold = 0.3, 0.3
    p = half_space.probability(images, sigma)
    exact = stats.entropy(np.stack([p, 1 - p]))
    decisions = wobbliness.decide(half_space, images, sigma, threshold, num_classes=2)
    clear = np.abs(exact - threshold) > 0.15
    assert clear.sum() > 10
    assert (decisions.is_below == (exact < threshold))[clear & decisions.is_decided].all()
    assert decisions.is_decided[clear].mean() > 0.9
    assert decisions.draws.mean() < 150
    assert (decisions.draws == decisions.counts.sum(axis=1)).all()
    assert not decisions.is_below[~decisions.is_decided].any()


def test_draws_are_those_of_measure(half_space, images):
    decisions = wobbliness.decide(half_space, images, 0.3, 0.3, num_classes=2, seed=5)
    for index in (0, 3, 7):
        votes = wobbliness.measure(
            half_space,
            images[[index]],
            0.3,
            draws=int(decisions.draws[index]),
            seed=5,
            num_classes=2,
        )
        assert np.array_equal(votes.counts[0], decisions.counts[index])


def test_curtailed_decisions_of_a_network_agree_with_measure(digits):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    images = digits.test.images
    w = wobbliness.measure(network, images, 0.3).wobbliness
    threshold = float(np.quantile(w, 0.6)) + 1e-6
    decisions = wobbliness.decide_as_measured(network, images, 0.3, threshold)
    assert decisions.is_decided.all()
    assert (decisions.is_below != (w < threshold)).mean() <= 0.02
    assert 0.2 < decisions.is_below.mean() < 0.9
    assert decisions.draws.mean() < 200
    assert decisions.execution.backend == "onnxruntime"


@pytest.mark.parametrize("decide", [wobbliness.decide, wobbliness.decide_as_measured])
def test_decisions_do_not_depend_on_order_company_or_workers(digits, decide):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    images = digits.test.images[:90]
    together = decide(network, images, 0.3, 0.2)
    backwards = decide(network, images[::-1].copy(), 0.3, 0.2, workers=1)
    some = decide(network, images[10:13], 0.3, 0.2, workers=2)
    for name in ("is_decided", "is_below", "draws", "counts"):
        whole = getattr(together, name)
        assert np.array_equal(getattr(backwards, name)[::-1], whole), name
        assert np.array_equal(getattr(some, name), whole[10:13]), name


def test_few_draws_and_odd_numbers_of_them(half_space, images):
    for max_draws in (1, 2, 7, 33):
        decisions = wobbliness.decide_as_measured(
            half_space, images, 0.3, 0.3, max_draws=max_draws, num_classes=2
        )
        w = wobbliness.measure(half_space, images, 0.3, draws=max_draws, num_classes=2).wobbliness
        assert (decisions.is_below != (w < 0.3)).sum() <= 4
        assert decisions.draws.max() <= max_draws


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"error_rate": 0.0},
        {"error_rate": 1.0},
        {"max_draws": 0},
    ],
)
def test_bad_arguments_are_refused(half_space, images, wrong):
    with pytest.raises(ValueError, match="^expected .*, got "):
        wobbliness.decide(
            half_space, images, **{"sigma": 0.1, "threshold": 0.1, "num_classes": 2, **wrong}
        )


def test_the_number_of_classes_must_be_known(half_space, images):
    with pytest.raises(ValueError, match="^expected the number of classes"):
        wobbliness.decide(half_space, images, 0.1, 0.1)


@pytest.mark.parametrize("decide", [wobbliness.decide, wobbliness.decide_as_measured])
def test_each_image_may_have_its_own_threshold(half_space, images, decide):
    thresholds = np.where(np.arange(len(images)) % 2, 0.1, 0.4)
    mixed = decide(half_space, images, 0.3, thresholds, num_classes=2)
    low, high = (
        decide(half_space, images, 0.3, threshold, num_classes=2) for threshold in (0.1, 0.4)
    )
    for name in ("is_decided", "is_below", "draws"):
        expected = np.where(thresholds == 0.1, getattr(low, name), getattr(high, name))
        assert np.array_equal(getattr(mixed, name), expected), name
    assert not np.array_equal(low.draws, high.draws), "control: the threshold matters"
    with pytest.raises(
        ValueError,
        match="^expected a threshold above 0 nats, one for all or one for each of 40, got ",
    ):
        decide(half_space, images, 0.3, thresholds[:3], num_classes=2)
