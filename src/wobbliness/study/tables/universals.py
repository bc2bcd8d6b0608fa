"""Rows of universal adversarial perturbations."""

import pandas as pd

from wobbliness.study.specs import UniversalSpec, cell_name
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label


def universal_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each perturbation: its norm, and how many points it fools."""
    return pd.DataFrame([_row(cell) for cell in of_kind(cells, UniversalSpec)])


def _row(cell: FinishedCell[UniversalSpec]) -> dict[str, object]:
    spec = cell.spec
    return {
        "network": network_label(spec.network),
        "cell": cell_name(spec),
        "pattern": spec.pattern_label(None, None),
        "norm": spec.norm,
        "bound": spec.bound,
        **cell.record.results,
    }
