"""Rows of W on a ladder of Gaussian noise, and of the sigma at which triggers give way (X5)."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.study.specs import LadderSpec, NetworkSpec
from wobbliness.study.tables.curves import MIN_BACKDOOR_ACCURACY
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label

RISEN = math.log(2) / 2
"""W that counts as risen, in nats: that of two classes with 89 and 11 of 100 votes."""


def ladder_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network and sigma: medians of W, and the attack's success."""
    return pd.DataFrame([row for cell in of_kind(cells, LadderSpec) for row in _rungs(cell)])


def matched_filter_rows(cells: FinishedCells, ladders: pd.DataFrame) -> pd.DataFrame:
    """Returns one row for each network: norms of its trigger, and where it gives way to noise.

    `sigma_risen` is the sigma at which the median of W of triggered points first reaches RISEN,
    interpolated on a logarithmic scale; empty where the ladder ends before.
    """
    trained = of_kind(cells, NetworkSpec)
    # Training is a cell of its own, found by the spec that both share.
    accuracies = {cell.spec: cell.record.results["backdoor_accuracy"] for cell in trained}
    rows = [
        _row(cell, ladders, accuracies.get(cell.spec.network))
        for cell in of_kind(cells, LadderSpec)
    ]
    return pd.DataFrame(rows)


def crossing(sigmas: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Returns the sigma at which values first reach a level from below.

    Args:
        sigmas: `(S,)` ascending, above 0.
        values: `(S,)` at each sigma.
        level: to be reached.

    Returns:
        The sigma, interpolated linearly in its logarithm; the first one where the values are there
        already; None where they never get there.
    """
    reached = np.flatnonzero(values >= level)
    if not reached.size:
        return None
    # The first one: W need not be monotone in sigma.
    place = int(reached[0])
    # Nothing below to interpolate from: the true sigma may be smaller.
    if place == 0:
        return float(sigmas[0])
    low, high = values[place - 1], values[place]
    # low < level <= high by the choice of the place, so this is no division by zero.
    share = (level - low) / (high - low)
    # The logarithm, since the rungs of a ladder are about evenly spaced in it.
    between = np.log(sigmas[place - 1]) * (1 - share) + np.log(sigmas[place]) * share
    return float(np.exp(between))


def _rungs(cell: FinishedCell[LadderSpec]) -> Iterator[dict[str, object]]:
    for sigma, rows in cell.record.table.groupby("sigma"):
        counts = rows.filter(regex=r"^votes_\d+$").to_numpy()
        w, is_triggered = plug_in_entropy(counts), rows.is_triggered.to_numpy()
        yield {
            "network": network_label(cell.spec.network),
            "trigger": _trigger(cell),
            "sigma": sigma,
            "clean_median": float(np.median(w[~is_triggered])),
            "triggered_median": float(np.median(w[is_triggered])),
            "success": _success(cell, rows[is_triggered], counts[is_triggered]),
        }


def _success(
    cell: FinishedCell[LadderSpec], rows: pd.DataFrame, counts: np.ndarray
) -> float | None:
    """Computes the mean share of votes for the attacker's label: the attack's success under noise.

    None on a clean network.
    """
    threat = cell.spec.network.threat
    if threat is None:
        return None
    wanted = threat.attacked_labels(rows.label.to_numpy(), counts.shape[1])
    return float((counts[np.arange(len(counts)), wanted] / cell.spec.draws).mean())


def _row(
    cell: FinishedCell[LadderSpec], ladders: pd.DataFrame, accuracy: float | None
) -> dict[str, object]:
    spec, table = cell.spec, cell.record.table
    triggered = table[table.is_triggered]
    # Ascending, as `crossing` looks for the first rung.
    rungs = ladders[ladders.network == network_label(spec.network)].sort_values("sigma")
    risen = crossing(rungs.sigma.to_numpy(), rungs.triggered_median.to_numpy(), RISEN)
    return {
        "network": network_label(spec.network),
        "trigger": _trigger(cell),
        "backdoor_accuracy": accuracy,
        "is_functioning": accuracy is not None and accuracy >= MIN_BACKDOOR_ACCURACY,
        "l2": float(triggered.l2.mean()),
        "contrast": float(triggered.contrast.mean()),
        "sigma_risen": risen,
        "num_points": spec.num_points,
        "draws": spec.draws,
    }


def _trigger(cell: FinishedCell[LadderSpec]) -> str:
    return "" if cell.spec.attack is None else cell.spec.attack.name
