"""The committed results: every number of the page follows from the votes in the records."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from golden_values import GOLDEN, table_digests

from wobbliness.reports.html import number
from wobbliness.study.claims.claims import findings
from wobbliness.study.claims.verdicts import VERDICTS, verdict_of
from wobbliness.study.records.archive import unpack_study
from wobbliness.study.records.record import read_record
from wobbliness.study.report.report import Report
from wobbliness.study.tables.tables import form_tables

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = ("cifar10-slim", "digits", "fashion-mnist", "noises")
QUICKEST = "digits"
UNRECORDED = ("cifar10", "noises-cifar10")  # the first wants an accelerator


@pytest.fixture(
    scope="module",
    params=[
        study if study == QUICKEST else pytest.param(study, marks=pytest.mark.scale)
        for study in STUDIES
    ],
)
def unpacked(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / request.param
    unpack_study(DOCS / "results" / request.param, out)
    return out, form_tables(out)


def test_every_finding_of_the_page_follows_from_the_records(unpacked):
    _, tables = unpacked
    page = (DOCS / "results.md").read_text()
    section = page.split(f"\n## {tables.recipe.name}\n")[1]
    for finding in findings(tables):
        readings = [f"<br>{one.name}: {one.verdict}" for one in finding.readings]
        verdict = f"**{finding.verdict}**{''.join(readings)}"
        assert f"| {finding.ours} | {verdict} | {finding.settings} |" in section


def test_tables_are_those_of_the_golden_file(unpacked):
    _, tables = unpacked
    expected = json.loads((GOLDEN / "tables.json").read_text())[tables.recipe.name]
    found = table_digests(tables)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("study", UNRECORDED)
def test_a_study_without_records_says_so_of_every_claim(tmp_path, study):
    unpack_study(DOCS / "results" / study, tmp_path / study)
    (section,) = (DOCS / "results.md").read_text().split(f"\n## {study}\n")[1:]
    section = section.partition("\n## ")[0]
    assert "There are no records of this study yet." in section
    tables = form_tables(tmp_path / study)
    expected = json.loads((GOLDEN / "tables.json").read_text())[study]
    # a table that was added since then has no digest
    assert table_digests(tables).items() >= expected.items()
    found = findings(tables)
    planned = set(tables.status.claim)
    for finding in found:
        word = "not measured" if finding.claim.cells_of in planned else "not in this study"
        assert finding.verdict == word
        assert f"|  | **{word}** | {finding.settings} |" in section
    assert section.count("**not ") == len(found)
    # one cell, too few for any verdict
    status = tables.status.assign(cells_done=[1] + [0] * (len(tables.status) - 1))
    for those, is_recorded in ((tables, False), (dataclasses.replace(tables, status=status), True)):
        assert (
            Report(tables=those, findings=found, figures=[], folder=tmp_path).has_records
            is is_recorded
        )


def test_every_study_on_the_page_has_its_records():
    first, *headings = (
        line.removeprefix("## ")
        for line in (DOCS / "results.md").read_text().splitlines()
        if line.startswith("## ")
    )
    assert first == "Claim by claim"
    assert set(headings) == {*STUDIES, *UNRECORDED}
    assert set(headings) == {path.name for path in (DOCS / "results").iterdir()}


def first_screen():
    """Cells of the table that the page begins with: claim -> study -> text."""
    lines = (DOCS / "results.md").read_text().partition("\n## ")[0].splitlines()
    header, _, *rows = (line.split(" | ") for line in lines if line.startswith("|"))
    studies = [re.search(r"\[([\w-]+)\]", cell)[1] for cell in header[1:-1]]
    return {
        re.search(r"\*\*(C\d)\*\*", claim)[1]: dict(zip(studies, cells, strict=True))
        for claim, *cells, _ in rows
    }


def test_the_page_begins_with_nine_claims_by_four_studies():
    table = first_screen()
    assert list(table) == [f"C{number}" for number in range(1, 10)]
    assert {tuple(cells) for cells in table.values()} == {
        ("fashion-mnist", "cifar10", "cifar10-slim", "digits")
    }
    symbols = {verdict.symbol for verdict in VERDICTS}
    assert {cell[0] for cells in table.values() for cell in cells.values()} <= symbols


def test_the_first_screen_is_that_of_the_records(unpacked):
    _, tables = unpacked
    found = {one.claim.id: one for one in findings(tables) if one.claim.is_of_the_paper}
    if not found:
        assert all(tables.recipe.name not in cells for cells in first_screen().values())
        return
    for claim, cells in first_screen().items():
        symbol = verdict_of(found[claim].verdict).symbol
        assert cells[tables.recipe.name] == f"{symbol} {found[claim].number}".strip()
        # a number goes with a measured claim alone
        assert bool(found[claim].number) == bool(found[claim].statements)


def test_no_wall_of_numbers_stands_outside_of_folds():
    page = (DOCS / "results.md").read_text()
    open_text = re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)
    tables = [line for line in open_text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 + 9
    assert page.count("<details") == page.count("</details>") > 30
    assert max(map(len, open_text.splitlines())) < 1500
    assert max(map(len, page.splitlines())) > 2000, "control: the numbers are there, folded"


def test_ten_numbers_taken_at_random_are_formed_again_from_the_votes(unpacked):
    out, tables = unpacked
    if tables.points.empty:
        pytest.skip("the study compares families of perturbations, point by point in its records")
    rows = tables.points.sample(10, random_state=7)
    records = {
        path.stem: read_record(out / "records", path.stem)
        for path in (out / "records").glob("measure-*.json")
    }
    for row in rows.itertuples():
        keys = {
            "point": row.point,
            "sigma": row.sigma,
            "draws": row.draws,
            "candidate": row.candidate,
        }
        found = [
            votes
            for record in records.values()
            for votes in votes_of(record, keys)
            if is_of(row, record)
        ]
        assert any(entropy(votes) == pytest.approx(row.wobbliness, abs=1e-12) for votes in found)
    for row in tables.batches.sample(10, random_state=7).itertuples():
        of_batch = tables.points[
            (tables.points.network == row.network)
            & (tables.points.batch == row.batch)
            & (tables.points.trigger == row.trigger)
            & (tables.points.kind == row.kind)
            & (tables.points.claims == row.claims)
            & (tables.points.batch_size == row.batch_size)
            & (tables.points.sigma == row.sigma)
            & (tables.points.draws == row.draws)
        ]
        assert len(of_batch) == row.num_points
        assert sum(of_batch.wobbliness) / len(of_batch) == pytest.approx(row.mean)


def test_rows_of_the_page_are_rows_of_the_tables(unpacked):
    _, tables = unpacked
    section = (DOCS / "results.md").read_text().split(f"\n## {tables.recipe.name}\n")[1]
    columns = ["network", "num_poisoned", "clean_accuracy", "backdoor_accuracy"]
    for row in tables.networks[columns].sample(10, random_state=1).itertuples(index=False):
        assert "| " + " | ".join(number(value) for value in row) + " |" in section


def is_of(row, record):
    return row.kind != "active" or record.spec.pattern_label(row.candidate) == row.trigger


def votes_of(record, keys):
    table = record.table
    chosen = table[np.logical_and.reduce([table[name] == value for name, value in keys.items()])]
    return chosen.filter(like="votes_").to_numpy()


def entropy(votes):
    total = 0.0
    for count in votes:
        if count > 0:
            total -= count / votes.sum() * np.log(count / votes.sum())
    return total


def test_the_packed_files_are_small():
    sizes = pd.Series({path: path.stat().st_size for path in DOCS.rglob("*") if path.is_file()})
    assert sizes.max() < 1_000_000
