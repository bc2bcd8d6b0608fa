"""Claims over several studies side by side: a column a study, and no word but the findings'."""

import dataclasses

import made_studies
import pytest

from wobbliness.study.claims.claims import findings
from wobbliness.study.claims.verdicts import (
    NOT_IN_STUDY,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPORTED,
    VERDICTS,
    verdict_of,
)
from wobbliness.study.report.overview import overview
from wobbliness.study.report.report import form_report, write_markdown
from wobbliness.study.tables.labels import CLASS_NAMES, class_names
from wobbliness.study.tables.tables import form_tables


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return form_report(made_studies.make_study(tmp_path_factory.mktemp("made") / "study"))


@pytest.fixture(scope="module")
def found(report):
    """Findings of a study of C1 and C2, and of the same without one record."""
    status = report.tables.status.assign(cells_done=1)
    partial = findings(dataclasses.replace(report.tables, status=status))
    return {"whole": report.findings, "partial": partial}


def test_each_study_has_a_finding_of_each_claim(found):
    shown = overview(list(found.items()))
    assert shown.studies == ("whole", "partial")
    assert [row.claim.id for row in shown.claims] == [f"C{number}" for number in range(1, 10)]
    for row in shown.claims:
        assert [one.study for one in row.found] == ["whole", "partial"]
        for one in row.found:
            assert one.finding in found[one.study]
            assert one.verdict == verdict_of(one.finding.verdict)
    first, third = shown.claims[0], shown.claims[2]
    assert [one.finding.verdict for one in first.found][1] == NOT_MEASURED
    assert [one.study for one in first.measured] == ["whole"]
    assert first.others == [(NOT_MEASURED, ["partial"])]
    assert (third.measured, third.others) == ([], [(NOT_IN_STUDY, ["whole", "partial"])])


def test_the_legend_has_the_verdicts_that_occur_in_their_order(found):
    words = [verdict.word for verdict in overview([("whole", found["whole"])]).legend]
    assert NOT_MEASURED not in words
    assert words[-1] == NOT_IN_STUDY
    with_partial = [verdict.word for verdict in overview(list(found.items())).legend]
    assert NOT_MEASURED in with_partial
    assert with_partial == [one.word for one in VERDICTS if one.word in with_partial]
    assert REPORTED not in with_partial


def test_a_study_of_questions_alone_has_no_column(found):
    questions = [one for one in found["whole"] if not one.claim.is_of_the_paper]
    alone, both = overview([("q", questions)]), overview([*found.items(), ("q", questions)])
    assert (alone.studies, alone.claims) == ((), ())
    assert both.studies == ("whole", "partial")
    assert [one.study for one in both.questions[0].found] == ["whole", "partial", "q"]


def test_the_page_begins_with_symbols_and_numbers(report, found, tmp_path):
    partial = dataclasses.replace(report, findings=found["partial"])
    write_markdown([report, partial], tmp_path / "results.md")
    lines = (tmp_path / "results.md").read_text().splitlines()
    rows = [line for line in lines[:20] if line.startswith("| [**C")]
    assert len(rows) == 9
    first = report.findings[0]
    symbol = verdict_of(first.verdict).symbol
    assert f"| {symbol} {first.number} | {verdict_of(NOT_MEASURED).symbol} |" in rows[0]
    dash = verdict_of(NOT_IN_STUDY).symbol
    assert all(f"| {dash} | {dash} |" in row for row in rows[2:])
    text = "\n".join(lines)
    assert f"- **{symbol} made, {first.verdict}**: {first.in_short}." in text
    for anchor in ("c1", "c9"):
        assert text.count(f'<a id="{anchor}"></a>') == 1
        assert f"](#{anchor})" in text


def test_a_page_of_questions_alone_has_no_first_screen(report, tmp_path):
    questions = [one for one in report.findings if not one.claim.is_of_the_paper]
    write_markdown([dataclasses.replace(report, findings=questions)], tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert "| wanted |" not in text
    assert NOT_REPRODUCED not in text
    assert '<a id="x1"></a>' in text


def test_the_classes_of_each_data_set_have_names():
    assert class_names("fashion_mnist", 10)[9] == "Ankle boot"
    assert class_names("cifar10", 10)[0] == "airplane"
    assert class_names("digits", 10) == tuple("0123456789")
    assert class_names("fashion_mnist", 3) == ("0", "1", "2"), "names of another number of classes"
    assert all(len(set(names)) == 10 for names in CLASS_NAMES.values())


def test_tables_of_the_made_study_hold_the_box(report):
    again = form_tables(report.folder).batches
    assert {"iqr", "whisker_low", "whisker_high", "num_outliers"} <= set(again.columns)
    assert (again.whisker_low <= again.whisker_high).all()
