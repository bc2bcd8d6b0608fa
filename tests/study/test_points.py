"""Batches of measured points: the box plot of each is that of its points alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats

from wobbliness.statistics.two_sample import is_outlier
from wobbliness.study.tables.points import batch_rows

KEYS = {
    "claims": "C2",
    "network": "made",
    "batch_size": 5,
    "batch": "parameters",
    "trigger": "",
    "kind": "clean",
    "draws": 250,
}
ACCURACIES = {"accuracy_on_attacker_labels": None, "accuracy_on_clean_labels": 0.9}


def points(batches):
    """A table of points: W by sigma; the points of all batches in turn, as in no table."""
    rows = [
        KEYS | ACCURACIES | {"sigma": sigma, "wobbliness": w, "miller_madow": w, "turn": turn}
        for sigma, values in batches.items()
        for turn, w in enumerate(values)
    ]
    return pd.DataFrame(rows).sort_values("turn", kind="stable", ignore_index=True)


# few values, as W of few votes has: quartiles that meet, and points on a fence
batch = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, 1.0, 2.2]), min_size=1, max_size=30)


@given(st.lists(batch, min_size=1, max_size=4))
def test_whiskers_end_where_the_papers_outliers_begin(batches):
    by_sigma = dict(enumerate(batches))
    found = batch_rows(points(by_sigma)).set_index("sigma")
    assert list(found.index) == list(by_sigma)
    for sigma, values in by_sigma.items():
        row, w = found.loc[sigma], np.array(values)
        inside = w[~is_outlier(w)]
        assert row.num_outliers == len(w) - len(inside)
        assert (row.whisker_low, row.whisker_high) == (inside.min(), inside.max())
        assert row.iqr == pytest.approx(np.subtract(*np.quantile(w, [0.75, 0.25])), abs=1e-12)


def test_a_batch_in_numbers_by_hand():
    """Quartiles 1 and 3, so fences at -2 and 6: 7 is an outlier, 6 is not."""
    made = {0.1: [0, 1, 1, 2, 2, 3, 3, 7], 0.3: [0, 1, 1, 2, 2, 3, 3, 6]}
    columns = ["q25", "q75", "iqr", "whisker_low", "whisker_high", "num_outliers"]
    found = batch_rows(points(made)).set_index("sigma")[columns]
    assert found.loc[0.1].tolist() == [1, 3, 2, 0, 3, 1]
    assert found.loc[0.3].tolist() == [1, 3, 2, 0, 6, 0]


def test_the_box_is_the_one_that_the_figures_draw():
    w = np.random.default_rng(0).gamma(0.5, 0.3, 250)
    row, drawn = batch_rows(points({0.1: w})).iloc[0], boxplot_stats(w)[0]
    assert (row.whisker_low, row.whisker_high) == (drawn["whislo"], drawn["whishi"])
    assert row.num_outliers == len(drawn["fliers"]) > 5
    assert row.iqr == pytest.approx(drawn["iqr"], abs=1e-12)


def test_no_points_are_no_batches():
    assert batch_rows(pd.DataFrame()).empty
