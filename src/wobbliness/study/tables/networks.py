"""Rows of trained networks: their accuracies and losses."""

import pandas as pd

from wobbliness.study.specs import NetworkSpec, cell_name
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label


def network_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network."""
    return pd.DataFrame([_row(cell) for cell in of_kind(cells, NetworkSpec)])


def loss_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each network and epoch: the mean training loss, nats."""
    rows = [
        {"network": network_label(cell.spec), "epoch": epoch, "loss": loss}
        for cell in of_kind(cells, NetworkSpec)
        for epoch, loss in enumerate(cell.record.results["losses"], start=1)
    ]
    return pd.DataFrame(rows)


def _row(cell: FinishedCell[NetworkSpec]) -> dict[str, object]:
    spec, results = cell.spec, cell.record.results
    return {
        "claims": " ".join(cell.claims),
        "network": network_label(spec),
        "cell": cell_name(spec),
        "threat": spec.threat.name if spec.threat else "clean",
        "trigger": spec.attack.name if spec.attack else "",
        "seed": spec.seed,
        "num_poisoned": results["num_poisoned"],
        "clean_accuracy": results["clean_accuracy"],
        "backdoor_accuracy": results["backdoor_accuracy"],
    }
