"""Rows of networks' responses to images of noise alone."""

import pandas as pd

from wobbliness.study.specs import ResponseSpec
from wobbliness.study.tables.finished_cells import FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label


def response_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network and level of noise."""
    frames = [
        cell.record.table.assign(
            network=network_label(cell.spec.network),
            is_poisoned=cell.spec.network.threat is not None,
        )
        for cell in of_kind(cells, ResponseSpec)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
