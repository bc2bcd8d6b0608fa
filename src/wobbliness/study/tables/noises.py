"""Rows of W of clean, active and inactive batches under each family of perturbations (X4)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.statistics.two_sample import mann_whitney_test, roc_curve
from wobbliness.study.specs import NoiseSpec
from wobbliness.study.specs.noise import BATCHES
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label

SMOOTHING, OPPOSITE, NO_DIFFERENCE = "smoothing", "opposite", "none"
"""Whether W of triggered inputs is lower than that of clean ones, higher, or neither."""

CHANCE = 0.5  # area under the ROC curve where W says nothing


def noise_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network and family of perturbations."""
    return pd.DataFrame([_row(cell) for cell in of_kind(cells, NoiseSpec)])


def verdict(lower: float, upper: float) -> str:
    """Returns the verdict on triggered inputs by the interval of the area under the ROC curve.

    The area is the share of pairs of a clean and a triggered input in which the triggered one has
    the lower W, ties counted half. Its interval has to exclude one half.
    """
    if lower > CHANCE:
        return SMOOTHING
    return OPPOSITE if upper < CHANCE else NO_DIFFERENCE


def _row(cell: FinishedCell[NoiseSpec]) -> dict[str, object]:
    spec, results, table = cell.spec, cell.record.results, cell.record.table
    w = plug_in_entropy(table.filter(regex=r"^votes_\d+$").to_numpy())
    batches = {name: w[table.batch == place] for place, name in enumerate(BATCHES)}
    row: dict[str, object] = {
        "network": network_label(spec.network),
        "family": spec.noise.name,
        "level": results["level"],
        "is_matched": results["is_matched"],
        "changed": results["changed"],
        "draws": results["draws"],
        "num_points": spec.num_points,
        "is_active": spec.is_active,
    }
    medians = {f"{name}_median": float(np.median(values)) for name, values in batches.items()}
    return row | medians | dict(_compared(cell, batches))


def _compared(
    cell: FinishedCell[NoiseSpec], batches: dict[str, np.ndarray]
) -> Iterator[tuple[str, object]]:
    """Yields the columns of both triggered batches, each compared with the clean one."""
    for place, (name, attack) in enumerate(zip(BATCHES[1:], cell.spec.attacks, strict=True), 1):
        found = {
            "trigger": attack.name,
            "success": _success(cell, place),
            **comparison(batches["clean"], batches[name]),
        }
        yield from ((f"{name}_{column}", value) for column, value in found.items())


def comparison(clean: np.ndarray, triggered: np.ndarray) -> dict[str, object]:
    """Compares W of triggered inputs with that of clean ones.

    Args:
        clean: `(N,)` nats.
        triggered: `(M,)` nats.

    Returns:
        Area under the ROC curve of low W with its interval, p-value of the one-sided test (is W
        lower?), and the verdict.
    """
    is_triggered = np.repeat([False, True], [len(clean), len(triggered)])
    # Low W is the evidence of a trigger, and a higher score is more of it: hence the sign.
    curve = roc_curve(is_triggered, -np.concatenate([clean, triggered]))
    return {
        "auc": curve.auc,
        "auc_lower": curve.auc_lower,
        "auc_upper": curve.auc_upper,
        "pvalue": mann_whitney_test(clean, triggered).pvalue,
        "verdict": verdict(curve.auc_lower, curve.auc_upper),
    }


def _success(cell: FinishedCell[NoiseSpec], place: int) -> float | None:
    """Computes the share of a batch that is predicted as the attacker wants, without noise."""
    threat, table = cell.spec.network.threat, cell.record.table
    if threat is None:
        return None
    # Votes are the last columns, one for each class.
    rows, num_classes = (
        table[table.batch == place],
        table.shape[1] - table.columns.get_loc("votes_0"),
    )
    wanted = threat.attacked_labels(rows.label.to_numpy(), num_classes)
    return float((rows.clean_label.to_numpy() == wanted).mean())
