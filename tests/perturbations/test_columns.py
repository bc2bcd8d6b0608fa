"""Tables with declared columns: closed forms, and what is refused."""

import numpy as np
import pytest
from scipy import stats
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_closed_forms import DRAWS, assert_frequency
from test_families import copies

import wobbliness
from wobbliness.perturbations import Columns, Gaussian

# A number, an integer from 0 to 120, a category out of 4 and one out of two values.
ROW = np.array([40.5, 30, 2, -1], np.float32)
SETTINGS = {"integers": {1: (0, 120)}, "categories": {2: 4, 3: (-1, 1)}}
NOISE = Columns(0.5, scale=(10.0, 4.0, 1.0, 1.0), share=0.3, **SETTINGS)


@pytest.mark.parametrize("margin", [-6.0, 0.0, 2.0, 9.0])
def test_a_half_space_in_scaled_units_has_phi_of_its_margin(margin):
    """Under w x > b with noise s_i sigma in each column, p = Phi((w x - b) / (sigma ||w s||))."""
    weights, scale = np.array([1.0, -2.0, 0.5]), np.array([10.0, 3.0, 0.1])
    row = np.array([25.0, 7.0, -300.0])
    border = float(row @ weights) - margin
    votes = wobbliness.measure(
        lambda rows: (rows @ weights > border).astype(int),
        row[None],
        Columns(0.4, scale=scale),
        DRAWS,
        num_classes=2,
    )
    expected = stats.norm.cdf(margin / (0.4 * np.linalg.norm(weights * scale)))
    assert_frequency(votes.probabilities[0, 1], expected)


def test_one_scale_of_one_is_gaussian_noise_with_the_same_draws():
    rows = np.random.default_rng(0).random((4, 6), dtype=np.float32)
    for row in rows:
        ours, gaussian = (copies(made, row, 50) for made in (Columns(0.2), Gaussian(0.2)))
        np.testing.assert_allclose(ours, gaussian, rtol=0, atol=1e-6)
        twice = copies(Columns(0.1, scale=2), row, 50)
        np.testing.assert_allclose(twice, gaussian, rtol=0, atol=1e-6)


def test_an_integer_column_has_the_rounded_normal_distribution():
    made = copies(NOISE, ROW, DRAWS)[:, 1]
    assert np.array_equal(made, np.rint(made))
    for value in range(26, 35):
        expected = np.diff(stats.norm.cdf([value - 0.5, value + 0.5], loc=30, scale=2))[0]
        assert_frequency(np.mean(made == value), expected)
    low = np.array([0.0, 1, 2, -1], np.float32)
    clipped = copies(NOISE, low, DRAWS)[:, 1]
    assert clipped.min() == 0
    assert_frequency(np.mean(clipped == 0), stats.norm.cdf(-0.5 / 2))
    free = copies(Columns(0.5, scale=4, integers=[1]), low, DRAWS)[:, 1]
    assert free.min() < 0, "control: without a range"


def test_a_category_is_kept_or_one_of_the_others():
    made = copies(NOISE, ROW, DRAWS)
    for column, values in ((2, range(4)), (3, (-1, 1))):
        for value in values:
            expected = 0.7 if value == ROW[column] else 0.3 / (len(values) - 1)
            assert_frequency(np.mean(made[:, column] == value), expected)
    joint = np.mean((made[:, 2] == 2) & (made[:, 3] == -1))
    assert_frequency(joint, 0.7**2), "independent"
    always = copies(Columns(0, share=1, **SETTINGS), ROW, 50)
    assert (always[:, 3] == 1).all()
    assert (always[:, 2] != 2).all()
    assert np.array_equal(copies(Columns(0, share=0, **SETTINGS), ROW, 3), np.stack([ROW] * 3))


def test_names_and_equality_tell_declarations_apart():
    assert (
        Columns(0.5, np.float32([10, 4, 1, 1]), {1: (0, 120)}, SETTINGS["categories"], 0.3) == NOISE
    )
    others = [
        Columns(0.5),
        Columns(0.5, scale=2.0),
        Columns(0.5, scale=(1.0, 1.0)),
        Columns(0.5, integers=[0]),
        Columns(0.5, integers=[1]),
        Columns(0.5, categories={1: 2}),
        Columns(0.5, categories={1: 3}),
        Columns(0.5, share=0.2),
        NOISE,
    ]
    assert len({made.name for made in others}) == len(set(others)) == len(others)


def make_table(number, seed):
    """Numbers, integers, categories, and classes that need all of them."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        [rng.normal(40, 15, number), rng.integers(18, 91, number), rng.integers(0, 4, number)]
    )
    return rows, ((rows[:, 0] > 40) & (rows[:, 2] != 2) | (rows[:, 1] > 70)).astype(int)


def test_a_pipeline_of_columns_gets_none_that_it_does_not_know():
    """OneHotEncoder raises an error for a category that it was not fitted on."""
    rows, labels = make_table(300, seed=0)
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), [0, 1]), ("categories", OneHotEncoder(), [2])]
    )
    forest = RandomForestClassifier(20, random_state=0)
    pipeline = make_pipeline(encode, forest).fit(rows, labels)
    suspect, _ = make_table(12, seed=1)
    made = Columns(0.3, rows.std(axis=0), {1: (18, 90)}, {2: 4})
    votes = wobbliness.measure(pipeline, suspect, made, 60)
    assert votes.wobbliness.max() > 0
    assert votes.execution.company is None
    by_scores = wobbliness.measure(
        pipeline.predict_proba, suspect, made, 60, scores="probabilities"
    )
    assert np.array_equal(by_scores.counts, votes.counts)
    none = wobbliness.measure(pipeline, suspect, Columns(0, categories={2: 4}, share=0), 20)
    assert none.wobbliness.max() == 0, "control"
    assert np.array_equal(none.label, pipeline.predict(suspect))


def test_what_a_classifier_gets_are_rows_of_the_declared_columns():
    rows, _ = make_table(40, seed=2)
    made = Columns(0.3, rows.std(axis=0), {1: (18, 90)}, {2: 4})

    def watch(some):
        assert np.isin(some[:, 2], range(4)).all()
        assert (some[:, 1] == np.rint(some[:, 1])).all()
        assert ((some[:, 1] >= 18) & (some[:, 1] <= 90)).all()
        return (some[:, 0] > 40).astype(int)

    assert wobbliness.measure(watch, rows, made, 300, num_classes=2).wobbliness.max() > 0
    with pytest.raises(AssertionError):
        wobbliness.measure(watch, rows, Columns(0.3, rows.std(axis=0)), 300, num_classes=2)


def test_a_table_of_integers_is_taken():
    rows, _ = make_table(10, seed=3)
    whole = rows.astype(np.int64)

    def old(some):
        return (some[:, 1] > 50).astype(int)

    made = Columns(1, scale=5, integers=[1])
    by_integers = wobbliness.measure(old, whole, made, 50, num_classes=2)
    by_floats = wobbliness.measure(old, whole.astype(float), made, 50, num_classes=2)
    assert np.array_equal(by_integers.counts, by_floats.counts)


def test_scores_of_a_table_that_happen_to_be_sorted_are_taken_and_sorted_ones_refused():
    rows = make_table(40, seed=4)[0][:, :2]

    def scores(some):
        z = (some - rows.mean(axis=0)) / rows.std(axis=0)
        return np.stack([9 + z[:, 0], 4 + z[:, 1], z[:, 0] / 9], axis=1)

    made = Columns(0.1, rows.std(axis=0))
    assert wobbliness.measure(scores, rows, made, 30).counts[:, 0].sum() == 1200
    with pytest.raises(ValueError, match="values sorted in ascending order"):
        wobbliness.measure(lambda some: np.sort(scores(some)), rows, made, 30)


REFUSED = {
    "NaN": (np.array([[np.nan, 30, 2, 1]]), "expected numbers from .*, got values from nan to nan"),
    "beyond float32": (np.array([[1e39, 30, 2, 1]]), "expected numbers from -3.4028235e"),
    "integers that float32 rounds": (np.array([[2**24, 30, 2, 1]]), "from -16777215 to 16777215"),
    "text": (np.array([["a", "b", "c", "d"]]), "expected inputs as numbers, got <U1"),
    "an integer outside of its range": (
        np.array([[40.5, 121, 2, 1]]),
        "expected integers from 0 to 120 in column 1, got 121",
    ),
    "a fraction": (np.array([[40.5, 1.5, 2, 1]]), "from 0 to 120 in column 1, got 1.5"),
    "another category": (
        np.array([[40.5, 30, 4, 1]]),
        "expected one of 4 declared categories in column 2, got 4",
    ),
    "too few columns": (np.array([[40.5, 30, 2]]), "a scale for each of 3 columns, got 4"),
    "pictures": (np.ones((1, 1, 4, 4)), r"expected rows \(d,\) of a table .* got inputs of shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_are_not_as_declared_get_one_line(case):
    rows, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as raised:
        wobbliness.measure(lambda some: (some[:, 0] > 0).astype(int), rows, NOISE, num_classes=2)
    assert "\n" not in str(raised.value)


def test_columns_that_are_not_there_are_refused():
    made = Columns(0.1, categories={4: 2})
    with pytest.raises(ValueError, match="expected columns from 0 to 3, got 4"):
        copies(made, ROW, 2)
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\], got values from"):
        wobbliness.sweep(lambda some: some[:, 0] > 0, ROW[None], [Columns(0.1), 0.1])
