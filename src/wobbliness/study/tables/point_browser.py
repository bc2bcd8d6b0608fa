"""Votes around single points, for the page's point browser (paper: Fig. 1).

The reader chooses the point, the pattern and the noise.
"""

import base64
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import entropy_lower_bound, entropy_upper_bound, plug_in_entropy
from wobbliness.study.plan import NUM_SHOWN, ONE_POINT, browser_networks
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.picture_strips import pictures_of
from wobbliness.study.specs import MeasureSpec, cell_name
from wobbliness.study.tables.finished_cells import FinishedCell, FinishedCells, of_kind
from wobbliness.study.tables.labels import network_label

ONE_SIDED_CONFIDENCE = 0.975  # two bounds at this confidence are a 95 % interval
# of each network's Neural Cleanse candidates, in their order; all are in the table of batches
CANDIDATE_CLASSES = 3
PICTURE_COLUMNS = ["network", "kind", "trigger", "point", "channels", "height", "width", "pixels"]


def browser_points(recipe: Recipe, cells: FinishedCells) -> pd.DataFrame:
    """Returns votes, W and its 95 % interval of a few points of each batch.

    The first points of each batch of a few networks, at the recipe's number of draws. Patterns of
    one network are on the same points, and these are there without any, too. Where a study was
    measured before these were, other clean points stand for them, for no point is in two batches of
    a comparison.
    """
    found = (
        _points(recipe, cell.spec, cell.record.table)
        for cell in _browser_cells(recipe, cells)
        if len(cell.record.table)
    )
    frames = list(_with_entropies(found))
    return (
        pd.concat(frames, ignore_index=True).drop_duplicates(ignore_index=True)
        if frames
        else pd.DataFrame()
    )


def recorded_pictures(recipe: Recipe, cells: FinishedCells) -> pd.DataFrame:
    """Returns pictures of these points as 8-bit pixels in base64, channels first.

    None where a study was measured without them.
    """
    rows = [row for cell in _browser_cells(recipe, cells) for row in _pictures(cell)]
    return pd.DataFrame(rows, columns=PICTURE_COLUMNS).drop_duplicates(ignore_index=True)


def _browser_cells(recipe: Recipe, cells: FinishedCells) -> Iterator[FinishedCell[MeasureSpec]]:
    """Yields the measurements of the networks shown.

    Of clean batches only those whose points carry patterns, where there are some.
    """
    networks = browser_networks(recipe)
    found = [
        cell
        for cell in of_kind(cells, MeasureSpec)
        if cell.spec.network in networks and set(cell.claims) - {"C1", "C2"}
    ]
    without_pattern = {cell.spec.network for cell in found if ONE_POINT in cell.claims}
    for cell in found:
        has_pattern = cell.spec.batch_kind != "clean"
        if has_pattern or cell.spec.network not in without_pattern or ONE_POINT in cell.claims:
            yield cell


def _pictures(cell: FinishedCell[MeasureSpec]) -> Iterator[dict[str, object]]:
    spec, record = cell.spec, cell.record
    found = record.results.get("pictures") or {"strips": {}}
    points = list(dict.fromkeys(record.table.point)) if len(record.table) else []
    for candidate, text in sorted(found["strips"].items(), key=lambda item: int(item[0]))[
        :CANDIDATE_CLASSES
    ]:
        for point, picture in zip(
            points, _strip(spec, text, found["height"]) if text else (), strict=False
        ):
            channels, height, width = picture.shape
            yield {
                "network": network_label(spec.network),
                "kind": spec.batch_kind,
                "trigger": spec.pattern_label(int(candidate)),
                "point": point,
                "channels": channels,
                "height": height,
                "width": width,
                "pixels": base64.b64encode(picture.tobytes()).decode("ascii"),
            }


def _strip(spec: MeasureSpec, text: str, height: int) -> Iterable[np.ndarray]:
    try:
        return pictures_of(text, height)
    except ValueError as error:
        raise ValueError(
            f"expected readable pictures in {cell_name(spec)}.json, got {error}"
        ) from error


def _with_entropies(found: Iterable[tuple[pd.DataFrame, pd.DataFrame]]) -> Iterator[pd.DataFrame]:
    """Yields W and its bounds beside the keys and votes of all tables of as many classes.

    The bounds are found by bisection, whose steps take as long for a few rows as for many.
    """
    for _, tables in itertools.groupby(found, key=lambda table: table[1].shape[1]):
        keys, votes = (pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True))
        counts = votes.to_numpy()
        yield keys.assign(
            wobbliness=plug_in_entropy(counts),
            lower=entropy_lower_bound(counts, confidence=ONE_SIDED_CONFIDENCE),
            upper=entropy_upper_bound(counts, confidence=ONE_SIDED_CONFIDENCE),
        ).join(votes)


def _points(
    recipe: Recipe, spec: MeasureSpec, table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the points that the page shows, and their votes."""
    # distinct points in the order in which they were taken
    shown = list(dict.fromkeys(table.point))[:NUM_SHOWN]
    rows = table[
        table.point.isin(shown) & (table.draws == recipe.draws) & table.sigma.isin(recipe.sigmas)
    ]
    if spec.has_candidates:
        rows = rows[rows.candidate.isin(sorted(set(rows.candidate))[:CANDIDATE_CLASSES])]
    votes = rows.filter(regex=r"^votes_\d+$")
    keys = pd.DataFrame(
        {
            "network": network_label(spec.network),
            "kind": spec.batch_kind,
            "trigger": [spec.pattern_label(target) for target in rows.candidate],
            "point": rows.point,
            "label": rows.label,
            "sigma": rows.sigma,
            "draws": rows.draws,
        }
    )
    return keys, votes
