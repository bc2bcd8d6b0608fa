"""Report of a study: tables, figures, a self-contained page, and Markdown for the documentation."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from wobbliness.reports.html import markdown_cell, number, page_environment
from wobbliness.runtime.destinations import check_file
from wobbliness.runtime.files import (
    check_study_folder,
    make_folder,
    remove_unfinished,
    write_atomically,
    write_bytes,
    write_named,
)
from wobbliness.study.claims.base import Finding
from wobbliness.study.claims.claims import claims_table, findings
from wobbliness.study.claims.verdicts import REPORTED
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.recipes import recipe_summary
from wobbliness.study.records.locks import lock
from wobbliness.study.report.figures import all_figures, draw_figures
from wobbliness.study.report.overview import overview
from wobbliness.study.report.page import TITLES, render_page
from wobbliness.study.tables.comparisons import CHOSEN_COLUMNS, full_batches
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables, form_tables

PAGE, POINTS, CLAIMS = "report.html", "points.parquet", "claims.csv"
FIGURE_ENDINGS = (".png", ".svg")
SHOWN_TABLES = {
    "networks": ["network", "num_poisoned", "clean_accuracy", "backdoor_accuracy"],
    "sigma": ["network", "test", "batch_size", "sigma", "power"],
    "tests": [
        "network",
        "trigger",
        "kind",
        "sigma",
        "num_points",
        "clean_mean",
        "suspect_mean",
        "levene_pvalue",
        "num_removed_clean",
        "num_removed_suspect",
        "levene_pvalue_all_points",
        "directional_pvalue",
    ],
    "correlations": [
        *("claim", "sigma", "is_chosen", "num_backdoors", "num_left_out"),
        *("tau", "tau_lower", "tau_upper", "tau_pvalue", "r", "r_lower", "r_upper", "r_pvalue"),
    ],
    "roc": [
        *(
            "question",
            "sigma",
            "test",
            "auc",
            "auc_lower",
            "auc_upper",
            "bootstrap_lower",
            "bootstrap_upper",
        ),
        *("num_positives", "num_negatives"),
    ],
    "inputs": [
        "network",
        "sigma",
        "score",
        "auc",
        "auc_lower",
        "auc_upper",
        "num_positives",
        "num_negatives",
    ],
    "perturbations": [
        *("network", "trigger", "is_active", "perturbation", "draws"),
        *("clean_mean", "triggered_mean", "auc", "auc_lower", "auc_upper"),
        *("true_positives_at_0.05", "true_positives_at_0.01", "num_triggered", "num_clean"),
    ],
    "detectors": [
        *("network", "trigger", "is_active", "detector"),
        *("clean_mean", "triggered_mean", "auc", "auc_lower", "auc_upper"),
        *("true_positives_at_0.05", "true_positives_at_0.01", "num_triggered", "num_clean"),
    ],
    "noises": [
        *("network", "family", "level", "changed", "draws"),
        *("clean_median", "active_median", "inactive_median"),
        *("active_success", "active_auc", "active_auc_lower", "active_auc_upper"),
        *("active_pvalue", "active_verdict"),
        *("inactive_success", "inactive_auc", "inactive_auc_lower", "inactive_auc_upper"),
        *("inactive_pvalue", "inactive_verdict"),
    ],
    "matched_filter": [
        *("network", "backdoor_accuracy", "is_functioning", "l2", "contrast", "sigma_risen"),
        *("num_points", "draws"),
    ],
    "universals": [
        "network",
        "pattern",
        "bound",
        "norm_reached",
        "fooling_rate",
        "reached",
        "fooling_rate_on_test",
    ],
    "candidates": [
        *(
            "network",
            "form",
            "target_class",
            "found",
            "mask_l1",
            "success_on_train",
            "success_on_test",
        ),
        *("anomaly_index", "is_flagged", "is_attackers_class"),
    ],
    "response": ["network", "level", "confident_share", "mean_top_score", "entropy_of_classes"],
    "controls": ["pairs", "test", "level", "num_trials", "estimate", "lower", "upper"],
}
"""Columns of the tables on the page; the files hold all of them."""

MAX_MARKDOWN_ROWS = 60  # rows of a table in Markdown


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Study read back from its records."""

    tables: Tables
    findings: list[Finding]
    figures: list[FigureFile]
    folder: Path

    @property
    def has_records(self) -> bool:
        """Checks whether any cell was recorded, even if it is too few for a verdict."""
        return bool(self.tables.status.cells_done.any())


def form_report(out: Path) -> Report:
    """Forms tables and findings from the records of a study's folder.

    It writes nothing and needs no torch.

    Raises:
        ValueError: the folder holds no study, or a record is damaged.
    """
    tables = form_tables(out)
    return Report(tables=tables, findings=findings(tables), figures=[], folder=out)


def write_pages(report: Report) -> Report:
    """Writes tables, figures and `report.html` to the study's folder.

    The same records give the same bytes.

    Returns:
        The report with its figures.

    Raises:
        ValueError: there is a link in the folder.
        CannotWrite: the folder cannot be written to.
    """
    out, tables = report.folder, report.tables
    check_study_folder(out)
    # two reports of one folder would exchange each other's files
    with lock(out, "report", wait=True):
        for folder, names in _written_names(tables).items():
            remove_unfinished(out / folder, names)
        _write_tables(tables, out / "tables")
        figures = draw_figures(tables, out / "figures")
        shown = _shown(tables) | _parameter_batches(tables)
        page = render_page(tables, report.findings, figures, out / "figures", shown)
        write_atomically(out / PAGE, lambda file: file.write_text(page, encoding="utf-8"))
    return replace(report, figures=figures)


def write_report(out: Path) -> Report:
    """Forms and writes tables, figures and `report.html` in the study folder.

    Calls `form_report` and `write_pages`.

    Raises:
        ValueError: the folder holds no study, or a record is damaged.
        CannotWrite: the folder cannot be written to.
    """
    return write_pages(form_report(out))


def check_markdown(path: Path) -> None:
    """Checks before the work that a Markdown page and its figures can be written.

    Raises:
        ValueError: they cannot.
    """
    if path.suffix != ".md" or not path.parent.is_dir():
        raise ValueError(f"expected a FILE.md in an existing folder, got {path}")
    check_file(path)
    figures = path.parent / "figures"
    if figures.exists() and not figures.is_dir():
        raise ValueError(f"expected a folder for the figures of {path}, got {figures}, a file")


def write_markdown(reports: Sequence[Report], path: Path) -> None:
    """Writes the findings of several studies as one Markdown page.

    Their figures are PNG files in a folder in the same place.

    Raises:
        CannotWrite: the page or the folder of its figures cannot be written.
    """
    for report in reports:
        folder = path.parent / "figures" / report.tables.recipe.name
        make_folder(folder)
        for figure in report.figures:
            drawn = report.folder / "figures" / f"{figure.name}.png"
            write_named(folder / drawn.name, partial(shutil.copyfile, drawn))
    environment = page_environment()
    environment.filters["cell"] = markdown_cell
    text = environment.get_template("results.md").render(
        reports=reports,
        overview=overview([(one.tables.recipe.name, one.findings) for one in reports]),
        about=recipe_summary,
        shown=_shown,
        titles=TITLES,
        reported=REPORTED,
        number=number,
        longest=MAX_MARKDOWN_ROWS,
    )
    write_named(path, lambda file: file.write_text(text, encoding="utf-8"))


def _written_names(tables: Tables) -> dict[str, set[str]]:
    """Returns the names of all files that a report consists of, by folder."""
    return {
        ".": {PAGE},
        "tables": {CLAIMS, POINTS, *(f"{name}.csv" for name in tables.frames())},
        "figures": {f"{one.name}{ending}" for one in all_figures() for ending in FIGURE_ENDINGS},
    }


def _write_tables(tables: Tables, folder: Path) -> None:
    make_folder(folder)
    claims = claims_table(tables)
    write_atomically(folder / CLAIMS, lambda file: claims.to_csv(file, index=False))
    for name, frame in tables.frames().items():
        if name == "points":
            points = frame.to_parquet(index=False)  # pyarrow takes no path that is not UTF-8
            write_bytes(folder / POINTS, points)
        else:
            write_atomically(folder / f"{name}.csv", partial(frame.to_csv, index=False))


def _shown(tables: Tables) -> dict[str, pd.DataFrame]:
    """Returns the tables of the page.

    Of the tests, those of whole batches at a sigma chosen for one of the two tests.
    """
    shown = {name: getattr(tables, name) for name in SHOWN_TABLES}
    tests = shown["tests"]
    if len(tests):
        is_chosen = tests[CHOSEN_COLUMNS["levene"]] | tests[CHOSEN_COLUMNS["directional"]]
        shown["tests"] = full_batches(tests[is_chosen])
    if len(shown["inputs"]):
        shown["inputs"] = shown["inputs"][shown["inputs"].is_chosen]
    return {name: frame[SHOWN_TABLES[name]] for name, frame in shown.items() if len(frame)}


def _parameter_batches(tables: Tables) -> dict[str, pd.DataFrame]:
    """Returns the batches of C1 and C2, for the page."""
    batches = of_claims(tables.batches, "C1", "C2")
    columns = [
        *("network", "sigma", "draws", "num_points", "mean", "std", "miller_madow_mean"),
        *("q25", "median", "q75", "iqr", "whisker_low", "whisker_high", "num_outliers"),
    ]
    return {"batches": batches[columns]} if len(batches) else {}
