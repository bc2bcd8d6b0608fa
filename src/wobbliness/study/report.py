"""What a study leaves for people: tables as files, figures, a self-contained page, and Markdown for the documentation."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from wobbliness.pages import number, page_environment
from wobbliness.study.claims import claims_table, findings
from wobbliness.study.comparisons import CHOSEN_COLUMNS, full_batches
from wobbliness.study.figures import FigureFile, draw_figures
from wobbliness.study.files import remove_unfinished, write_beside
from wobbliness.study.locks import lock
from wobbliness.study.page import render_page
from wobbliness.study.tables import Tables, form_tables
from wobbliness.study.verdicts import Finding

PAGE = "report.html"
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
        *("question", "sigma", "test", "auc", "auc_lower", "auc_upper", "bootstrap_lower", "bootstrap_upper"),
        *("num_positives", "num_negatives"),
    ],
    "inputs": ["network", "sigma", "score", "auc", "auc_lower", "auc_upper", "num_positives", "num_negatives"],
    "universals": ["network", "pattern", "bound", "norm_reached", "fooling_rate", "reached", "fooling_rate_on_test"],
    "candidates": [
        *("network", "form", "target_class", "found", "mask_l1", "success_on_train", "success_on_test"),
        *("anomaly_index", "is_flagged", "is_attackers_class"),
    ],
    "response": ["network", "level", "confident_share", "mean_top_score", "entropy_of_classes"],
    "controls": ["pairs", "test", "level", "num_trials", "estimate", "lower", "upper"],
}
"""Columns of the tables on the page; the files hold all of them."""

LONGEST = 60  # rows of a table in Markdown


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A study read back from its records."""

    tables: Tables
    findings: list[Finding]
    figures: list[FigureFile]
    folder: Path

    @property
    def has_records(self) -> bool:
        """Whether any cell was recorded, even if it is too few for a verdict."""
        return bool(self.tables.status.cells_done.any())


def write_report(out: Path) -> Report:
    """Forms tables, figures and `report.html` in the study folder from its records. Needs no torch.

    The same records give the same bytes.

    Raises:
        ValueError: the folder holds no study, or a record is damaged.
        CannotWrite: the folder cannot be written to.
    """
    tables = form_tables(out)
    with lock(out, "report", wait=True):
        for folder in (out, out / "tables", out / "figures"):
            remove_unfinished(folder, "*.*")
        _write_tables(tables, out / "tables")
        figures = draw_figures(tables, out / "figures")
        report = Report(tables=tables, findings=findings(tables), figures=figures, folder=out)
        page = render_page(tables, report.findings, figures, out / "figures", _shown(tables) | _parameter_batches(tables))
        write_beside(out / PAGE, lambda beside: beside.write_text(page, encoding="utf-8"))
    return report


def write_markdown(reports: Sequence[Report], path: Path) -> None:
    """Writes the findings of several studies as one Markdown page, with their figures as PNG in a folder beside it."""
    for report in reports:
        folder = path.parent / "figures" / report.tables.recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        for figure in report.figures:
            shutil.copyfile(report.folder / "figures" / f"{figure.name}.png", folder / f"{figure.name}.png")
    text = page_environment().get_template("results.md").render(reports=reports, shown=_shown, number=number, longest=LONGEST)
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _write_tables(tables: Tables, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    claims = claims_table(tables)
    write_beside(folder / "claims.csv", lambda beside: claims.to_csv(beside, index=False))
    for name, frame in tables.frames().items():
        if name == "points":
            write_beside(folder / "points.parquet", partial(frame.to_parquet, index=False))
        else:
            write_beside(folder / f"{name}.csv", partial(frame.to_csv, index=False))


def _shown(tables: Tables) -> dict[str, pd.DataFrame]:
    """The tables of the page; of the tests, those of whole batches at a sigma chosen for one of the two tests."""
    shown = {name: getattr(tables, name) for name in SHOWN_TABLES}
    tests = shown["tests"]
    if len(tests):
        is_chosen = tests[CHOSEN_COLUMNS["levene"]] | tests[CHOSEN_COLUMNS["directional"]]
        shown["tests"] = full_batches(tests[is_chosen])
    if len(shown["inputs"]):
        shown["inputs"] = shown["inputs"][shown["inputs"].is_chosen]
    return {name: frame[SHOWN_TABLES[name]] for name, frame in shown.items() if len(frame)}


def _parameter_batches(tables: Tables) -> dict[str, pd.DataFrame]:
    """The batches of C1 and C2, for the page."""
    batches = tables.batches[tables.batches.claims.str.contains("C1|C2")] if len(tables.batches) else tables.batches
    columns = ["network", "sigma", "draws", "num_points", "mean", "std", "miller_madow_mean"]
    return {"batches": batches[columns]} if len(batches) else {}
