"""Report of a guard's verdicts: one self-contained page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from wobbliness.detectors.guards.detection_results import Judgement
from wobbliness.detectors.guards.explanations import Explanation, explain
from wobbliness.detectors.guards.files.guard_files import Guard
from wobbliness.detectors.guards.profile_guard import ProfileGuard
from wobbliness.detectors.inputs.distinct_inputs import host_array
from wobbliness.reports.batch_test import checked_page
from wobbliness.reports.html import data_uri, number, page_environment
from wobbliness.reports.scan_pictures import picture_png
from wobbliness.runtime.files import write_named

# Inputs that are explained, and those in the table: the most suspicious ones, where there are more.
MAX_CARDS, MAX_ROWS = 40, 500
PICTURE_AXES = 3
FITTED = "of the clean inputs that the guard was fitted on: "


@dataclass(frozen=True, kw_only=True)
class Card:
    """A suspicious input on the page.

    Attributes:
        why: its explanation.
        picture: a data URI of the input; None where it is no picture.
        copies: likewise of the copies that are shown.
    """

    why: Explanation
    picture: str | None
    copies: tuple[str | None, ...]


def write_judgement(
    judgement: Judgement,
    images: Any,
    path: str | Path,
    *,
    guard: Guard,
    names: Sequence[str],
    model: str,
    source: str,
    warnings: Sequence[str] = (),
) -> None:
    """Writes the page of a guard's verdicts; the same verdicts give the same bytes.

    The page is self-contained: it requests nothing. Of the suspicious inputs the 40 most suspicious
    are explained, with pictures of the input and of three of its perturbed copies; the table has
    500 inputs at most.

    Args:
        judgement: of the inputs, by this guard.
        images: `(N, ...)` the inputs.
        path: of the page, ending in `.html`.
        guard: fitted.
        names: of the inputs.
        model: what judged, for people.
        source: where the inputs are from.
        warnings: what is said first.

    Raises:
        ValueError: the path does not end in `.html`.
    """
    file = checked_page(path)
    order = np.argsort(judgement.pvalue, kind="stable").tolist()
    flagged = [row for row in order if judgement.is_suspicious[row]]
    page = (
        page_environment()
        .get_template("guard.html")
        .render(
            found=judgement,
            cards=_cards(guard, judgement, images, flagged[:MAX_CARDS]),
            num_flagged=len(flagged),
            rows=order[:MAX_ROWS],
            guard=guard,
            is_profile=isinstance(guard, ProfileGuard),
            num_calibration=_num_calibration(guard),
            names=names,
            model=model,
            source=source,
            warnings=[*warnings, *(f"{FITTED}{line}" for line in guard.warnings_)],
            number=number,
        )
    )
    write_named(file, lambda out: out.write_text(page, encoding="utf-8"))


def _cards(guard: Guard, judgement: Judgement, images: Any, rows: Sequence[int]) -> list[Card]:
    if not rows:
        return []
    array = host_array(images)
    return [
        Card(
            why=why,
            picture=_picture(array[why.row]),
            copies=tuple(map(_picture, why.copies)),
        )
        for why in explain(guard, judgement, images, rows)
    ]


def _picture(image: Float[np.ndarray, "..."]) -> str | None:
    if image.ndim != PICTURE_AXES:
        return None
    # Noise is not clipped where it is voted on; a picture can show no more than black and white.
    return data_uri(picture_png(image.astype(np.float32).clip(0, 1)), "image/png")


def _num_calibration(guard: Guard) -> int:
    known = guard.stages_[-1].calibration if isinstance(guard, ProfileGuard) else guard.calibration_
    return len(known)
