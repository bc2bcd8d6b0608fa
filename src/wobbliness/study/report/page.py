"""Page of a study, formed from its tables, findings and figures: a pure function of the records."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from wobbliness.attacks.patch import TRIGGER_NAMES, trigger
from wobbliness.reports.html import data_uri, number, page_environment
from wobbliness.reports.small_plot import svg
from wobbliness.study.claims.base import Finding
from wobbliness.study.claims.verdicts import VERDICTS, Verdict
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.picture_strips import side_by_side
from wobbliness.study.report.point_browser import GREY, browser_data
from wobbliness.study.tables.tables import Tables

TITLES = {
    "perturbations": "Triggered inputs told from clean ones by W under each perturbation",
    "detectors": "Triggered inputs told from clean ones by each detector",
    "noises": "W of clean, active and inactive inputs under each family of perturbations",
    "matched_filter": "Norms of triggers, and the sigma at which W of triggered inputs rises",
    "networks": "Accuracies of the networks",
    "batches": "W of the clean points by sigma and number of draws",
    "sigma": "Sigma chosen on clean points",
    "tests": "Batch tests at the chosen sigma",
    "correlations": "Backdoor accuracy and mean W of triggered points: Kendall's tau and Pearson's "
    "r",
    "roc": "Areas under the ROC curves",
    "inputs": "Single inputs: areas under the ROC curves at the chosen sigma",
    "universals": "Universal adversarial perturbations",
    "candidates": "Neural Cleanse candidates",
    "response": "Images of noise alone",
    "controls": "Negative controls: share of random pairs without an active trigger with p at most "
    "the level",
}
NUM_SAMPLES = 3  # test images of each network
CURVE = (100, 30)  # width and height of a training curve


@dataclass(frozen=True, kw_only=True)
class ShownClaim:
    """Finding, and where to look."""

    finding: Finding
    figures: list[FigureFile]
    tables: list[str]


@dataclass(frozen=True, kw_only=True)
class ShownFigure:
    """Figure on the page: the claims it is evidence for, its still picture, chart and rows.

    The picture and the rows are data URIs.
    """

    name: str
    title: str
    caption: str
    claims: list[ShownClaim]
    svg: str
    csv: str
    chart: str
    panels: list[str]


@dataclass(frozen=True, kw_only=True)
class ShownNetwork:
    """Accuracies and training curve of a network, and its trigger.

    The trigger is pixels `(column, row, shade)` on 8 x 8, and test images.
    """

    name: str
    trigger: str
    cells: list[tuple[int, int, int]]
    samples: str
    num_poisoned: int
    clean_accuracy: float
    backdoor_accuracy: float | None
    curve: str
    curve_says: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownTable:
    """Rows of a table, and the same as a data URI of a CSV file."""

    name: str
    title: str
    frame: pd.DataFrame
    csv: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """All that `report.html` shows."""

    recipe: Recipe
    verdicts: tuple[Verdict, ...]
    tally: list[tuple[str, list[Finding]]]
    claims: list[ShownClaim]
    figures: list[ShownFigure]
    networks: list[ShownNetwork]
    tables: list[ShownTable]
    explorer: str
    vega: str


def render_page(
    tables: Tables,
    findings: Sequence[Finding],
    figures: Sequence[FigureFile],
    folder: Path,
    shown: dict[str, pd.DataFrame],
) -> str:
    """Renders the page as self-contained HTML, which requests nothing.

    Args:
        tables: of the study.
        findings: of its claims.
        figures: those that were drawn.
        folder: holds their SVG files.
        shown: the rows and columns of the tables on the page.
    """
    found = browser_data(tables)
    claims = [_claim(finding, figures, shown) for finding in findings]
    page = Page(
        recipe=tables.recipe,
        verdicts=VERDICTS,
        tally=_tally(findings),
        claims=claims,
        figures=[_figure(figure, tables, folder, claims) for figure in figures],
        networks=_networks(tables),
        tables=[
            ShownTable(name=name, title=TITLES[name], frame=frame, csv=_csv(frame))
            for name, frame in shown.items()
        ],
        explorer=_json(found) if found else "",
        vega=base64.b64encode(
            files("wobbliness.reports").joinpath("templates/vega.js.gz").read_bytes()
        ).decode("ascii"),
    )
    return page_environment().get_template("report.html").render(page=page, number=number, svg=svg)


def _tally(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Returns the paper's claims by verdict."""
    claims = [finding for finding in findings if finding.claim.is_of_the_paper]
    found = [
        (verdict.word, [one for one in claims if one.verdict == verdict.word])
        for verdict in VERDICTS
    ]
    return [(word, those) for word, those in found if those]


def _claim(
    finding: Finding, figures: Sequence[FigureFile], shown: dict[str, pd.DataFrame]
) -> ShownClaim:
    claim = finding.claim
    if not finding.statements:
        return ShownClaim(finding=finding, figures=[], tables=[])
    return ShownClaim(
        finding=finding,
        figures=[figure for figure in figures if claim.id in (figure.about or figure.claims)],
        tables=[name for name in claim.tables if name in shown],
    )


def _figure(
    figure: FigureFile, tables: Tables, folder: Path, claims: Sequence[ShownClaim]
) -> ShownFigure:
    rows = figure.rows(tables) if figure.rows else pd.DataFrame()
    return ShownFigure(
        name=figure.name,
        title=figure.title,
        caption=figure.caption,
        claims=[claim for claim in claims if figure in claim.figures],
        svg=data_uri((folder / f"{figure.name}.svg").read_bytes(), "image/svg+xml"),
        csv=_csv(rows) if len(rows) else "",
        chart=_json(figure.chart()) if figure.chart and len(rows) else "",
        panels=[str(panel) for panel in rows.panel.unique()] if "panel" in rows else [""],
    )


def _networks(tables: Tables) -> list[ShownNetwork]:
    losses = (
        {name: group.loss.to_numpy() for name, group in tables.losses.groupby("network")}
        if len(tables.losses)
        else {}
    )
    return [
        ShownNetwork(
            name=row.network,
            trigger=row.trigger,
            cells=_cells(row.trigger) if row.trigger in TRIGGER_NAMES else [],
            samples=_samples(row.trigger, tables.pictures),
            num_poisoned=row.num_poisoned,
            clean_accuracy=row.clean_accuracy,
            backdoor_accuracy=None if pd.isna(row.backdoor_accuracy) else row.backdoor_accuracy,
            curve=_curve(losses[row.network]),
            curve_says=f"Training loss from {number(losses[row.network][0])} to "
            f"{number(losses[row.network][-1])} nats in {len(losses[row.network])} epochs",
        )
        for row in tables.networks.itertuples()
    ]


def _cells(name: str) -> list[tuple[int, int, int]]:
    picture = trigger(name).apply(np.full((1, 1, 8, 8), GREY, np.float32))[0, 0]
    # pixels that the trigger changes on grey, whatever its shape
    changed = np.argwhere(picture != np.float32(GREY))
    return [
        (int(column), int(row), round(255 * float(picture[row, column]))) for row, column in changed
    ]


def _samples(name: str, pictures: pd.DataFrame) -> str:
    """Returns the first recorded test images with a trigger on, as a data URI.

    Empty where a study was measured without pictures.
    """
    is_patch = name in TRIGGER_NAMES
    # a patch is put on the clean pictures; another attack was recorded with its own
    is_shown = pictures.kind == "clean" if is_patch or not name else pictures.trigger == name
    shown = pictures[is_shown][:NUM_SAMPLES]
    if shown.empty or shown[["channels", "height", "width"]].nunique().gt(1).any():
        return ""
    shape = shown[["channels", "height", "width"]].iloc[0]
    pixels = [
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(tuple(shape))
        for text in shown.pixels
    ]
    images = np.stack(pixels).astype(np.float32) / np.float32(255)
    return data_uri(side_by_side(trigger(name).apply(images) if is_patch else images), "image/png")


def _curve(losses: np.ndarray) -> str:
    """Returns the points of a line from the first epoch to the last, zero loss at the bottom."""
    width, height = CURVE
    across = np.linspace(0, width, len(losses)) if len(losses) > 1 else [0.0]
    return " ".join(
        f"{x:.1f},{height * (1 - loss / losses.max()):.1f}"
        for x, loss in zip(across, losses, strict=True)
    )


def _csv(frame: pd.DataFrame) -> str:
    """Returns a table as a data URI of CSV, with six significant digits."""
    return "data:text/csv;charset=utf-8," + quote(
        frame.to_csv(index=False, float_format="%.6g"), safe=",-_.~:[]()/ "
    ).replace(" ", "%20")


def _json(content: Any) -> str:
    """Returns JSON that can stand inside a script element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
