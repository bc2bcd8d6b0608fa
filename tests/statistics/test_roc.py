"""Correlations and ROC questions on tables made by hand, where the answers are known."""

import numpy as np
import pandas as pd
import pytest

from wobbliness.statistics.two_sample import kendall, pearson
from wobbliness.study.tables.comparisons import CHOSEN_COLUMNS, PVALUE_COLUMNS
from wobbliness.study.tables.correlations import correlations, strengths
from wobbliness.study.tables.curves import (
    ACTIVE,
    CANDIDATES,
    IMPLANTED_FIRST,
    TRAINED,
    UNIVERSAL,
    input_areas,
    question_curve,
    roc_areas,
)


def points_of_networks(accuracies, slope, claim="C5"):
    """For each backdoor 6 triggered points of mean W 1 + slope * accuracy, and 30 clean ones."""
    rng, rows = np.random.default_rng(0), []
    for index, accuracy in enumerate(accuracies):
        common = {
            "claims": claim,
            "network": f"network {index}",
            "sigma": 0.1,
            "batch_size": 10,
            "num_classes": 10,
            "label": index % 10,
        }
        common |= {
            "accuracy_on_attacker_labels": accuracy,
            "attacker_labels_of_class": accuracy,
            "trigger": "dot",
        }
        offsets = rng.normal(size=6)
        rows += [
            common | {"kind": "active", "batch": "suspect", "wobbliness": 1 + slope * accuracy + o}
            for o in offsets - offsets.mean()
        ]
        rows += [
            common | {"kind": "clean", "batch": "calibration", "wobbliness": w}
            for w in rng.uniform(0.5, 1, 30)
        ]
    return pd.DataFrame(rows)


def test_coefficients_are_those_of_the_means_and_weak_backdoors_are_left_out():
    accuracies = np.array([0.05, 0.2, 0.5, 0.7, 0.9, 0.99])
    points = points_of_networks(accuracies, slope=-0.8)
    strength = strengths(points)
    assert strength.is_learnt.tolist() == [False, True, True, True, True, True]
    np.testing.assert_allclose(strength.mean_w, 1 - 0.8 * accuracies)
    row = correlations(strength, points, seed=0).iloc[0]
    assert (row.num_backdoors, row.num_left_out, bool(row.is_chosen)) == (5, 1, True)
    assert row.tau == pytest.approx(-1) == pytest.approx(row.r)
    assert row.tau_pvalue == pytest.approx(kendall(accuracies[1:], -accuracies[1:]).pvalue)
    assert row.r_lower <= row.r <= row.r_upper <= -0.9


def test_no_correlation_where_there_is_none():
    accuracies = np.tile([0.3, 0.6, 0.9], 8)
    points = points_of_networks(accuracies, slope=0.0)
    points.loc[points.kind == "active", "wobbliness"] += np.repeat(
        np.random.default_rng(1).normal(size=24), 6
    )
    strength = strengths(points)
    row = correlations(strength, points, seed=0).iloc[0]
    assert row.r == pytest.approx(pearson(strength.backdoor_accuracy, strength.mean_w).coefficient)
    assert row.r_lower < 0 < row.r_upper
    assert row.tau_lower < 0 < row.tau_upper


def test_classes_are_the_points_of_c6_and_a_constant_accuracy_has_no_coefficient():
    points = points_of_networks(np.full(10, 0.9), slope=0.0, claim="C6")
    strength = strengths(points.assign(network="one"))
    assert len(strength) == 10
    assert np.isnan(correlations(strength, points, seed=0).iloc[0].tau)


def table_of_tests(rows):
    common = {
        "sigma": 0.1,
        "is_full": True,
        "claims": "C7 C8 C9",
        "is_other_class": False,
        "attack_success": np.nan,
    }
    common |= dict.fromkeys(CHOSEN_COLUMNS.values(), True)
    pvalues = [common | row | dict.fromkeys(PVALUE_COLUMNS.values(), row["p"]) for row in rows]
    return pd.DataFrame(pvalues)


def test_triggers_that_do_not_function_are_no_positives():
    working = [{"kind": "active", "p": 1e-9, "attack_success": 0.99}] * 3
    failed = [{"kind": "active", "p": 0.9, "attack_success": 0.05}]
    others = [{"kind": "inactive", "p": 0.5, "attack_success": 0.1}] * 4 + [
        {"kind": "clean", "p": 0.4}
    ] * 2
    tests = table_of_tests(working + failed + others)
    assert question_curve(tests, ACTIVE, "directional", None).auc == 1
    assert question_curve(tests, TRAINED, "directional", None).auc == pytest.approx(3 / 4)
    assert question_curve(tests, UNIVERSAL, "directional", None) is None
    areas = roc_areas(tests, seed=0)
    assert set(areas.question) == {ACTIVE.name, TRAINED.name}
    assert set(areas.sigma) == {"0.1", "chosen"}


def test_candidates_of_the_attackers_class_and_on_clean_networks_are_left_out():
    implanted = [{"kind": "active", "p": 1e-6, "attack_success": 1.0}] * 2
    others = [{"kind": CANDIDATES["first"], "p": 0.5, "is_other_class": True}] * 3
    same_class = [{"kind": CANDIDATES["first"], "p": 1e-12}] * 3
    assert (
        question_curve(
            table_of_tests(implanted + others + same_class), IMPLANTED_FIRST, "directional", None
        ).auc
        == 1
    )


def test_single_inputs_are_judged_by_low_w_and_by_high_scores():
    count = 20
    active = pd.DataFrame(
        {
            "kind": "active",
            "batch": "suspect",
            "wobbliness": 0.0,
            "top_score": np.linspace(0, 1, count),
        }
    )
    clean = pd.DataFrame(
        {
            "kind": "clean",
            "batch": "clean",
            "wobbliness": 1.0,
            "top_score": np.linspace(0, 1, count),
        }
    )
    points = pd.concat([active, clean]).assign(claims="C7", network="one", sigma=0.1, trigger="dot")
    sigma = pd.DataFrame({"network": ["one"], "test": ["directional"], "sigma": [0.1]})
    areas = input_areas(points, sigma).set_index("score").auc
    assert areas["W"] == 1
    assert areas["top softmax score"] == pytest.approx(0.5)
