"""X4: backdoor smoothing under every family of perturbations, at the same share of changed labels.

The paper adds Gaussian noise alone and calls other kinds straightforward (related work).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import GREEN, ORANGE
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.specs.noise import BATCHES
from wobbliness.study.tables.noises import CHANCE, NO_DIFFERENCE, OPPOSITE, SMOOTHING
from wobbliness.study.tables.tables import Tables

VERDICTS = (SMOOTHING, OPPOSITE, NO_DIFFERENCE)
TRIGGERED = BATCHES[1:]
STYLES = {"active": (ORANGE, ORANGE, -0.17), "inactive": (GREEN, "white", 0.17)}
"""Colours of edge and face, and offset from the family's line, of each batch."""


def find(tables: Tables) -> Answer:
    """Counts the families by verdict, on all backdoored networks together and on each network."""
    rows = tables.noises
    networks = rows.groupby("network", sort=False)
    size = rows.iloc[0]
    return Answer(
        statements=(
            *_on_all(rows[rows.is_active]),
            *(_on_network(str(name), group) for name, group in networks),
        ),
        holds=None,
        settings=f"{networks.ngroups} networks, {rows.family.nunique()} families, "
        f"{size.num_points} points a batch, n = {rows.draws.max()}, levels that change "
        f"{tables.recipe.noise_shift:.0%} of the labels of clean points",
    )


def _on_all(active: pd.DataFrame) -> Iterator[str]:
    """Yields the families of one verdict on all backdoored networks, and the others."""
    if active.empty:
        yield "no backdoored network"
        return
    of_family = active.groupby("family", sort=False).active_verdict
    # A verdict counts for a family only where all networks agree on it.
    verdicts = of_family.agg(lambda found: found.iloc[0] if found.nunique() == 1 else "mixed")
    for verdict in VERDICTS:
        yield f"{verdict} on all backdoored networks under {_names(verdicts, verdict)}"
    if active.network.nunique() > 1:
        yield f"not the same on all of them under {_names(verdicts, 'mixed')}"


def _names(verdicts: pd.Series, verdict: str) -> str:
    names = [str(name) for name in verdicts.index[verdicts == verdict]]
    return f"{len(names)} of {len(verdicts)} families" + (f" ({', '.join(names)})" if names else "")


def _on_network(network: str, rows: pd.DataFrame) -> str:
    active = "active" if rows.is_active.iloc[0] else "untrained"
    kinds = {"active": active, "inactive": "inactive"}
    return f"{network}: " + ", ".join(
        f"{shown} trigger {rows[f'{kind}_trigger'].iloc[0]} {_counts(rows[f'{kind}_verdict'])}"
        for kind, shown in kinds.items()
    )


def _counts(verdicts: pd.Series) -> str:
    return " and ".join(f"{int((verdicts == one).sum())} {one}" for one in VERDICTS)


def draw(tables: Tables) -> Figure:
    """Draws the areas under the ROC curves of low W: a panel a network, a line a family."""
    rows = tables.noises
    families = list(dict.fromkeys(rows.family))
    networks = list(dict.fromkeys(rows.network))
    size = (2.0 + 2.0 * len(networks), 1.0 + 0.2 * len(families))
    figure = Figure(figsize=size, layout="constrained")
    # Matplotlib returns a single panel without an array around it.
    axes = np.ravel(figure.subplots(1, len(networks), sharey=True))
    for axis, network in zip(axes, networks, strict=True):
        # The same order in all panels, which share their axis of families.
        _draw_network(axis, rows[rows.network == network].set_index("family").loc[families])
        axis.set_title(network.replace(", ", "\n"))
    # An asterisk only where the level was reached on none of the networks.
    matched = rows.groupby("family").is_matched.any()
    labels = [name if matched[name] else f"{name} *" for name in families]
    axes[0].set_yticks(range(len(families)), labels)
    axes[0].invert_yaxis()
    axes[0].legend(frameon=False, fontsize=7, loc="lower left")
    return figure


def _draw_network(axis: Axes, rows: pd.DataFrame) -> None:
    for kind, (edge, face, offset) in STYLES.items():
        area = rows[f"{kind}_auc"]
        errors = np.stack([area - rows[f"{kind}_auc_lower"], rows[f"{kind}_auc_upper"] - area])
        axis.errorbar(
            area,
            np.arange(len(rows)) + offset,
            # an area of 1 has its interval below it; rounding may leave less than nothing
            xerr=np.maximum(errors, 0),
            fmt="o",
            markersize=3,
            color=edge,
            markerfacecolor=face,
            linewidth=0.8,
            label=kind,
        )
    axis.axvline(CHANCE, color="grey", linestyle=":")
    axis.set(xlim=(-0.03, 1.03), xlabel="AUROC of low W")


def figure_rows(tables: Tables) -> pd.DataFrame:
    """Returns the areas and their intervals, a row for each network, family and trigger."""
    keys = ["network", "family", "level", "is_matched", "changed"]
    columns = ["trigger", "auc", "auc_lower", "auc_upper", "verdict"]
    # From one row with both triggers to a row for each.
    frames = [
        tables.noises[[*keys, *(f"{kind}_{name}" for name in columns)]]
        .rename(columns={f"{kind}_{name}": name for name in columns})
        .assign(kind=kind)
        for kind in TRIGGERED
    ]
    return pd.concat(frames, ignore_index=True)


CLAIM = Claim(
    id="X4",
    topic="Other noise: smoothing, or its opposite",
    claim="Under which perturbations is W of triggered inputs lower than that of clean ones, at "
    "the same share of changed labels?",
    paper="not in the paper, which names other noise as an extension",
    rule="reported",
    find=find,
    tables=("noises",),
    only_if_planned=True,
    figures=(
        FigureFile(
            name="noises",
            title="Smoothing and its opposite by family of perturbations",
            caption="Area under the ROC curve of low W, triggered against clean inputs, with 95 % "
            "intervals: to the right of one half triggered inputs are smoother, to the left they "
            "wobble more. Filled: the trigger that the network was trained on (on a clean network "
            "one that it never met). Hollow: an inactive trigger, the control. Levels change a "
            "fifth of the labels of clean inputs; families with an asterisk have no such level.",
            draw=draw,
            rows=figure_rows,
            claims=("X4",),
            table="noises",
        ),
    ),
)
