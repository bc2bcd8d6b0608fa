"""Rows of Neural Cleanse's candidate triggers."""

from collections.abc import Iterator

import pandas as pd

from wobbliness.study.specs import CleanseSpec, cell_name
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label


def candidate_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network, form and class."""
    return pd.DataFrame([row for cell in of_kind(cells, CleanseSpec) for row in _rows(cell)])


def _rows(cell: FinishedCell[CleanseSpec]) -> Iterator[dict[str, object]]:
    spec, threat, results = cell.spec, cell.spec.network.threat, cell.record.results
    for row in results["candidates"]:
        target_class = row["target_class"]
        yield {
            "network": network_label(spec.network),
            "cell": cell_name(spec),
            **row,
            "anomaly_index": results["anomaly_index"][target_class],
            "is_flagged": target_class in results["flagged"],
            "is_attackers_class": threat is not None and threat.target_class == target_class,
            "is_poisoned": threat is not None,
        }
