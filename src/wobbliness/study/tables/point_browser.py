"""Votes around single points, for the page's point browser (paper: Fig. 1).

The reader chooses the point, the pattern and the noise.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from wobbliness.statistics.entropy import entropy_lower_bound, entropy_upper_bound, plug_in_entropy
from wobbliness.study.plan import NUM_SHOWN, ONE_POINT, browser_networks
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.picture_strips import pictures_of
from wobbliness.study.records.record import Record
from wobbliness.study.specs import CleanseSpec, MeasureSpec, cell_name
from wobbliness.study.tables.labels import batch_kind, batch_pattern, network_label

ONE_SIDED_CONFIDENCE = 0.975  # two bounds at this confidence are a 95 % interval
# of each network's Neural Cleanse candidates, in their order; all are in the table of batches
CANDIDATE_CLASSES = 3
PICTURE_COLUMNS = ["network", "kind", "trigger", "point", "channels", "height", "width", "pixels"]


def browser_points(
    recipe: Recipe, records: Sequence[tuple[tuple[str, ...], Record]]
) -> pd.DataFrame:
    """Returns votes, W and its 95 % interval of a few points of each batch.

    The first points of each batch of a few networks, at the recipe's number of draws. Patterns of
    one network are on the same points, and these are there without any, too. Where a study was
    measured before these were, other clean points stand for them, for no point is in two batches of
    a comparison.
    """
    frames = [
        _points(recipe, spec, record.table)
        for spec, record in _browser_records(recipe, records)
        if len(record.table)
    ]
    return (
        pd.concat(frames, ignore_index=True).drop_duplicates(ignore_index=True)
        if frames
        else pd.DataFrame()
    )


def recorded_pictures(
    recipe: Recipe, records: Sequence[tuple[tuple[str, ...], Record]]
) -> pd.DataFrame:
    """Returns pictures of these points as 8-bit pixels in base64, channels first.

    None where a study was measured without them.
    """
    rows = [
        row for spec, record in _browser_records(recipe, records) for row in _pictures(spec, record)
    ]
    return pd.DataFrame(rows, columns=PICTURE_COLUMNS).drop_duplicates(ignore_index=True)


def _browser_records(
    recipe: Recipe, records: Sequence[tuple[tuple[str, ...], Record]]
) -> Iterator[tuple[MeasureSpec, Record]]:
    """Yields the records of the networks shown.

    Of clean batches only those whose points carry patterns, where there are some.
    """
    networks = browser_networks(recipe)
    found = [
        (claims, record.spec, record)
        for claims, record in records
        if isinstance(record.spec, MeasureSpec)
        and record.spec.network in networks
        and set(claims) - {"C1", "C2"}
    ]
    without_pattern = {spec.network for claims, spec, _ in found if ONE_POINT in claims}
    for claims, spec, record in found:
        if (
            batch_kind(spec) != "clean"
            or spec.network not in without_pattern
            or ONE_POINT in claims
        ):
            yield spec, record


def _pictures(spec: MeasureSpec, record: Record) -> Iterator[dict[str, object]]:
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
                "kind": batch_kind(spec),
                "trigger": f"candidate {candidate}, {spec.form}"
                if isinstance(spec.crafted, CleanseSpec)
                else batch_pattern(spec),
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


def _points(recipe: Recipe, spec: MeasureSpec, table: pd.DataFrame) -> pd.DataFrame:
    is_candidate = isinstance(spec.crafted, CleanseSpec)
    # distinct points in the order in which they were taken
    shown = list(dict.fromkeys(table.point))[:NUM_SHOWN]
    rows = table[
        table.point.isin(shown) & (table.draws == recipe.draws) & table.sigma.isin(recipe.sigmas)
    ]
    if is_candidate:
        rows = rows[rows.candidate.isin(sorted(set(rows.candidate))[:CANDIDATE_CLASSES])]
    votes = rows.filter(regex=r"^votes_\d+$")
    return pd.DataFrame(
        {
            "network": network_label(spec.network),
            "kind": batch_kind(spec),
            "trigger": [f"candidate {target}, {spec.form}" for target in rows.candidate]
            if is_candidate
            else batch_pattern(spec),
            "point": rows.point,
            "label": rows.label,
            "sigma": rows.sigma,
            "draws": rows.draws,
            "wobbliness": plug_in_entropy(votes.to_numpy()),
            "lower": entropy_lower_bound(votes.to_numpy(), confidence=ONE_SIDED_CONFIDENCE),
            "upper": entropy_upper_bound(votes.to_numpy(), confidence=ONE_SIDED_CONFIDENCE),
        }
    ).join(votes)
