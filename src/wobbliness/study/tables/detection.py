"""Rows of how well perturbations and detectors tell triggered inputs from clean ones."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.statistics.two_sample import RocCurve, roc_curve
from wobbliness.study.specs import DetectSpec, PerturbSpec
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label

FALSE_POSITIVE_RATES = (0.05, 0.01)


def perturbation_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network, trigger and perturbation, by W: low is suspicious."""
    return pd.DataFrame([row for cell in of_kind(cells, PerturbSpec) for row in _perturbed(cell)])


def detector_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network, trigger and detector, by its scores.

    A detector of batches or of networks has one score of each, and no curve.
    """
    return pd.DataFrame([_detected(cell) for cell in of_kind(cells, DetectSpec)])


def _perturbed(cell: FinishedCell[PerturbSpec]) -> Iterator[dict[str, object]]:
    for place, rows in cell.record.table.groupby("perturbation", sort=False):
        w = plug_in_entropy(rows.filter(regex=r"^votes_\d+$").to_numpy())
        is_triggered = rows.is_triggered.to_numpy()
        yield {
            **_keys(cell),
            "perturbation": cell.spec.perturbations[place].name,
            "draws": cell.spec.draws,
            "clean_mean": float(w[~is_triggered].mean()),
            "triggered_mean": float(w[is_triggered].mean()),
            **_rates(is_triggered, -w),
        }


def _detected(cell: FinishedCell[DetectSpec]) -> dict[str, object]:
    scores, is_triggered = (
        cell.record.table[name].to_numpy() for name in ("score", "is_triggered")
    )
    return {
        **_keys(cell),
        "detector": cell.spec.detector.name,
        "clean_mean": float(scores[~is_triggered].mean()),
        "triggered_mean": float(scores[is_triggered].mean()),
        **_rates(is_triggered, scores),
    }


def _keys(cell: FinishedCell[PerturbSpec] | FinishedCell[DetectSpec]) -> dict[str, object]:
    spec = cell.spec
    is_active = spec.network.threat is not None and spec.attack == spec.network.attack
    return {
        "network": network_label(spec.network),
        "trigger": "" if spec.attack is None else spec.attack.name,
        "is_active": is_active,
    }


def _rates(is_positive: np.ndarray, scores: np.ndarray) -> dict[str, object]:
    curve = roc_curve(is_positive, scores) if len(scores) > 2 else None
    rates = {
        f"true_positives_at_{rate:g}": None if curve is None else _at(curve, rate)
        for rate in FALSE_POSITIVE_RATES
    }
    return {
        "auc": None if curve is None else curve.auc,
        "auc_lower": None if curve is None else curve.auc_lower,
        "auc_upper": None if curve is None else curve.auc_upper,
        **rates,
        "num_triggered": int(is_positive.sum()),
        "num_clean": int((~is_positive).sum()),
    }


def _at(curve: RocCurve, rate: float) -> float:
    """Returns the largest true-positive rate at a false-positive rate of at most `rate`."""
    return float(curve.true_positive_rate[curve.false_positive_rate <= rate].max())
