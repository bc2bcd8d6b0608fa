"""Rows of measured points, and of the batches that they form."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import miller_madow_entropy, plug_in_entropy
from wobbliness.statistics.row_tests import FENCE_REACH
from wobbliness.study.plan import CLEAN_BATCHES, ONE_POINT
from wobbliness.study.specs import MeasureSpec
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label
from wobbliness.study.tables.membership import of_claims

BATCH_KEYS = ["claims", "network", "batch_size", "batch", "trigger", "kind", "sigma", "draws"]


def point_rows(cells: FinishedCells) -> pd.DataFrame:
    """Returns one row for each measured point, sigma and number of draws: W."""
    frames = [
        _measured_points(cell)
        for cell in of_kind(cells, MeasureSpec)
        if cell.claims != (ONE_POINT,)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def batch_rows(points: pd.DataFrame) -> pd.DataFrame:
    """Returns one row for each batch, sigma and number of draws: mean, spread and quartiles.

    Spread is the standard deviation and, as box plots show it, the interquartile range with the
    whiskers and the number of outliers beyond them.
    """
    if points.empty:
        return points
    # a mean of booleans: a function of our own would be called for each group
    groups = points.assign(is_above=points.wobbliness > 0).groupby(BATCH_KEYS, sort=False)
    quartiles = groups.wobbliness.quantile([0.25, 0.5, 0.75]).unstack()
    summary = groups.agg(
        num_points=("wobbliness", "size"),
        mean=("wobbliness", "mean"),
        std=("wobbliness", "std"),
        share_above_zero=("is_above", "mean"),
        miller_madow_mean=("miller_madow", "mean"),
        accuracy_on_attacker_labels=("accuracy_on_attacker_labels", "first"),
        accuracy_on_clean_labels=("accuracy_on_clean_labels", "first"),
    )
    summary.insert(3, "q25", quartiles[0.25])
    summary.insert(4, "median", quartiles[0.5])
    summary.insert(5, "q75", quartiles[0.75])
    box = _box_rows(points.wobbliness, groups.ngroup().to_numpy(), summary)
    return summary.join(box).reset_index()


def _box_rows(w: pd.Series, batch: np.ndarray, summary: pd.DataFrame) -> pd.DataFrame:
    """Returns the rest of each batch's box plot (Eq. 4).

    Args:
        w: W of every point, nats.
        batch: the row of `summary` that each point belongs to.
        summary: the quartiles of each batch.
    """
    iqr = summary.q75 - summary.q25
    # Tukey's fences; the whiskers end at the outermost points within them
    low, high = (summary.q25 - FENCE_REACH * iqr, summary.q75 + FENCE_REACH * iqr)
    is_inside = (w >= low.to_numpy()[batch]) & (w <= high.to_numpy()[batch])
    inside = w.where(is_inside).groupby(batch)
    columns = {
        "iqr": iqr.to_numpy(),
        "whisker_low": inside.min().to_numpy(),
        "whisker_high": inside.max().to_numpy(),
        "num_outliers": (~is_inside).groupby(batch).sum().to_numpy(),
    }
    return pd.DataFrame(columns, index=summary.index)


def example_rows(cells: FinishedCells, points: pd.DataFrame) -> pd.DataFrame:
    """Returns the votes of one clean and one triggered point of C3's first network.

    The points whose W, averaged over sigma, is the median one.
    """
    here = of_claims(points, "C3")
    frames: list[pd.DataFrame] = []
    for kind in ("clean", "active") if len(here) else ():
        rows = here[(here.network == here.network.iloc[0]) & (here.kind == kind)]
        if rows.empty:
            return pd.DataFrame()
        by_point = rows.groupby("point", sort=False).wobbliness.mean().sort_values(kind="stable")
        # a stable sort: ties in W give the same point every time
        point = by_point.index[len(by_point) // 2]
        record = next(
            cell.record
            for cell in of_kind(cells, MeasureSpec)
            if "C3" in cell.claims
            and cell.spec.batch_kind == kind
            and network_label(cell.spec.network) == here.network.iloc[0]
        )
        votes = record.table[record.table.point == point]
        long = votes.melt(
            ["point", "label", "sigma"], votes.filter(regex=r"^votes_").columns, "class", "votes"
        )
        frames.append(long.assign(kind=kind))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return (
        table.assign(**{"class": table["class"].str.removeprefix("votes_").astype(int)})
        if len(table)
        else table
    )


def _measured_points(cell: FinishedCell[MeasureSpec]) -> pd.DataFrame:
    claims, spec, record = cell.claims, cell.spec, cell.record
    if record.table.empty:  # Neural Cleanse found no candidate at all
        return record.table
    counts = record.table.filter(regex=r"^votes_\d+$").to_numpy()
    frame = record.table[["point", "label", "sigma", "draws", "top_score", "candidate"]]
    batch = _batch_names(claims, spec, frame)
    threat, by_class = spec.network.threat, record.results.get("attacker_labels_by_class")
    labels = {target: spec.pattern_label(target) for target in set(frame.candidate)}
    columns = dict(
        wobbliness=plug_in_entropy(counts),
        miller_madow=miller_madow_entropy(counts),
        claims=" ".join(claims),
        network=network_label(spec.network),
        num_classes=counts.shape[1],
        batch=batch,
        trigger=[labels[target] for target in frame.candidate],
        # of one of the three clean batches; a suspect batch starts after all three
        batch_size=spec.num_points // CLEAN_BATCHES
        if "calibration" in set(batch)
        else spec.first_point // CLEAN_BATCHES,
        kind=spec.batch_kind,
        is_other_class=spec.has_candidates
        and threat is not None
        and frame.candidate != threat.target_class,
        accuracy_on_attacker_labels=record.results.get("accuracy_on_attacker_labels"),
        accuracy_on_clean_labels=record.results.get("accuracy_on_clean_labels"),
        attacker_labels_of_class=frame.label.map(dict(enumerate(by_class))) if by_class else None,
    )
    # in one step: each column that is added to a frame costs as much as a frame
    return pd.DataFrame(dict(frame.items()) | columns, index=frame.index)


def _batch_names(
    claims: tuple[str, ...], spec: MeasureSpec, frame: pd.DataFrame
) -> Sequence[str] | pd.Series:
    """Returns the batch of each clean point of C3, C4 and C7.

    Three batches: to choose sigma on, to compare with, to compare clean with clean.
    """
    if {"C1", "C2"} & set(claims):
        return ["parameters"] * len(frame)
    if spec.trigger is not None or spec.crafted is not None:
        return ["suspect"] * len(frame)
    # a clean record holds three batches one after another at each sigma and number of draws
    position = frame.groupby(["sigma", "draws"]).cumcount() // (spec.num_points // CLEAN_BATCHES)
    return position.map({0: "calibration", 1: "clean", 2: "second clean"})
