"""Votes: estimates, uncertainty, sums, certificates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

from wobbliness.sampling.votes import DrawSpan, Votes
from wobbliness.statistics import entropy

COUNTS = arrays(
    np.int64, st.tuples(st.integers(1, 6), st.integers(2, 12)), elements=st.integers(0, 500)
).filter(lambda counts: (counts.sum(axis=1) > 0).all())


def votes_of(counts, sigma=0.5, seed=0, first=0):
    counts = np.asarray(counts)
    stop = first + int(counts[0].sum())
    spans = (DrawSpan(seed=seed, first=first, stop=stop),)
    return Votes(
        counts=counts, sigma=sigma, keys=np.arange(len(counts), dtype=np.uint64), spans=spans
    )


@given(COUNTS)
def test_plug_in_entropy_is_scipys(counts):
    np.testing.assert_allclose(
        entropy.plug_in_entropy(counts), stats.entropy(counts, axis=1), atol=1e-12
    )


@given(COUNTS)
def test_bounds_enclose_the_estimate_and_widen_with_confidence(counts):
    w = entropy.plug_in_entropy(counts)
    narrow = (
        entropy.entropy_lower_bound(counts, confidence=0.6),
        entropy.entropy_upper_bound(counts, confidence=0.6),
    )
    wide = (
        entropy.entropy_lower_bound(counts, confidence=0.99),
        entropy.entropy_upper_bound(counts, confidence=0.99),
    )
    slack = 1e-6
    assert (wide[0] <= narrow[0] + slack).all()
    assert (narrow[0] <= w + slack).all()
    assert (w <= narrow[1] + slack).all()
    assert (narrow[1] <= wide[1] + slack).all()
    assert (wide[1] <= np.log(counts.shape[1]) + slack).all()


@given(COUNTS, st.randoms(use_true_random=False))
def test_entropy_does_not_depend_on_the_order_of_classes(counts, random):
    order = list(range(counts.shape[1]))
    random.shuffle(order)
    for quantity in (
        entropy.plug_in_entropy,
        entropy.miller_madow_entropy,
        entropy.entropy_standard_error,
    ):
        np.testing.assert_allclose(quantity(counts[:, order]), quantity(counts), atol=1e-9)


def test_miller_madow_removes_the_bias_of_ten_equal_classes():
    counts = np.random.default_rng(0).multinomial(250, np.full(10, 0.1), size=20_000)
    assert entropy.plug_in_entropy(counts).mean() - np.log(10) == pytest.approx(-9 / 500, abs=5e-4)
    assert entropy.miller_madow_entropy(counts).mean() == pytest.approx(np.log(10), abs=5e-4)
    assert entropy.miller_madow_entropy(np.array([[250, 0]])) == 0


@pytest.mark.parametrize("num_draws", [25, 250])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_intervals_cover_as_stated(num_draws, num_classes):
    rng, num_repeats = np.random.default_rng(0), 1000
    for concentration in (0.05, 0.3, 1.0, 10.0, 1000.0):
        p = rng.dirichlet(np.full(num_classes, concentration))
        counts = rng.multinomial(num_draws, p, size=num_repeats)
        lower = entropy.entropy_lower_bound(counts, confidence=0.975)
        upper = entropy.entropy_upper_bound(counts, confidence=0.975)
        covered = int(((lower <= special.entr(p).sum()) & (special.entr(p).sum() <= upper)).sum())
        at_worst = stats.binom.ppf(1e-4, num_repeats, 0.95)
        assert covered >= at_worst, f"{covered} of {num_repeats} for p = {p}"


def test_intervals_are_not_idly_wide():
    """Control: at 250 draws the interval is at most 2.5 times as wide as a valid normal one."""
    counts = np.random.default_rng(0).multinomial(250, [0.7, 0.2, 0.1], size=200)
    votes = votes_of(counts)
    lower, upper = votes.interval(0.95)
    assert ((upper - lower) < 2.5 * 2 * 1.96 * votes.standard_error).all()


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.97, 0.03], [0.8, 0.2], [0.5, 0.3, 0.2], [0.1] * 10])
def test_standard_error_is_the_spread_of_the_estimate_or_a_little_more(p):
    counts = np.random.default_rng(0).multinomial(250, p, size=4000)
    spread = entropy.plug_in_entropy(counts).std()
    stated = np.sqrt((entropy.entropy_standard_error(counts) ** 2).mean())
    assert spread * 0.95 < stated
    assert stated < spread * (4 if len(set(p)) == 1 else 1.25)


def test_bounds_close_in_as_draws_grow():
    for n in (10**3, 10**5, 10**8):
        counts = np.array([[9 * n // 10, n // 10]])
        distance = entropy.entropy_upper_bound(counts) - entropy.plug_in_entropy(counts)
        assert 0 < distance < 3 * np.log(9) * 0.3 / np.sqrt(n)


def test_unanimous_votes_get_an_upper_bound():
    votes = votes_of([[250, 0]])
    share = 1 - 0.05 ** (1 / 250)
    assert share == pytest.approx(0.0119, abs=1e-4)
    assert votes.wobbliness == 0
    assert votes.standard_error == pytest.approx(special.entr([share, 1 - share]).sum(), rel=1e-6)
    assert votes.interval()[0] == 0


@given(st.integers(1, 400), st.integers(1, 400))
def test_two_classes_have_chernoffs_interval(first, second):
    """Two classes: entropies at the ends of {p : KL(observed || p) <= log(1 / error) / n}."""
    n, observed = first + second, first / (first + second)
    grid = np.linspace(1e-6, 1 - 1e-6, 20_001)
    inside = (
        special.rel_entr(observed, grid) + special.rel_entr(1 - observed, 1 - grid)
        <= -np.log(0.05) / n
    )
    if min(first, second) == 1:  # a class seen once widens the bound by design
        return
    reachable = special.entr(grid[inside]) + special.entr(1 - grid[inside])
    counts = np.array([[first, second]])
    assert entropy.entropy_upper_bound(counts, confidence=0.95) == pytest.approx(
        reachable.max(), abs=1e-3
    )
    assert entropy.entropy_lower_bound(counts, confidence=0.95) == pytest.approx(
        reachable.min(), abs=1e-3
    )


def test_adding_votes_adds_counts():
    total = votes_of([[3, 7], [10, 0]]) + votes_of([[1, 0, 4], [0, 5, 0]], seed=1)
    assert total.counts.tolist() == [[4, 7, 4], [10, 5, 0]]
    assert (total.draws, total.seed) == (15, None)


def test_draws_never_count_twice():
    votes = votes_of([[3, 7]])
    with pytest.raises(ValueError, match="of seed 0 twice"):
        votes + votes
    with pytest.raises(ValueError, match="same images"):
        votes + votes_of([[3, 7]], sigma=0.1, seed=1)
    joined = votes + votes_of([[5, 5]], first=10)
    assert joined.spans == (DrawSpan(seed=0, first=0, stop=20),)


def test_votes_cannot_be_written_to():
    votes = votes_of([[3, 7]])
    with pytest.raises(ValueError, match="read-only"):
        votes.counts[0, 0] = 9
    with pytest.raises(AttributeError):
        votes.sigma = 1


def test_certified_radius_is_cohens():
    votes = votes_of([[240, 10], [130, 120], [0, 250]])
    chosen = np.array([0, 0, 1])
    lower = [
        stats.binomtest(k, 250, alternative="greater").proportion_ci(0.999).low
        for k in (240, 130, 250)
    ]
    expected = 0.5 * stats.norm.ppf(np.maximum(lower, 0.5))
    np.testing.assert_allclose(votes.certified_radius(0.999, label=chosen), expected)
    assert expected[1] == 0, "no majority is certain: abstains"
    assert (votes.certified_radius(0.999) <= expected).all()
    assert votes.certified_radius(0.999, label=np.array([1, 1, 0])).tolist() == [0, 0, 0]


def test_certificates_hold_as_stated():
    """Two classes at exactly one half: nothing can be certified, and seldom is."""
    counts = np.random.default_rng(0).multinomial(100, [0.5, 0.5], size=20_000)
    wrong = int((votes_of(counts).certified_radius(0.9) > 0).sum())
    assert wrong <= stats.binom.ppf(1 - 1e-6, 20_000, 0.1)
    assert wrong > 0


@pytest.mark.parametrize(
    "counts", [np.zeros((2, 3), np.int64), np.array([[-1, 2]]), np.ones((2, 3)), np.int64(3)]
)
def test_what_are_no_counts_is_refused(counts):
    with pytest.raises(ValueError, match="^expected "):
        entropy.plug_in_entropy(counts)


def test_confidence_is_checked():
    for confidence in (0.0, 1.0, -1.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match="confidence between 0 and 1"):
            votes_of([[3, 7]]).upper_bound(confidence)
