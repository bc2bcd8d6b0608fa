"""Claims, found from their folders: each has a sentence, a rule, and both verdicts."""

import dataclasses
import importlib
import math
import pkgutil
import re
import sys
from pathlib import Path

import made_studies
import pandas as pd
import pytest

from wobbliness.reports.small_plot import svg
from wobbliness.study.claims import paper, questions
from wobbliness.study.claims.claims import all_claims, claims_done, claims_table, findings
from wobbliness.study.claims.verdicts import (
    IN_ONE_READING,
    NOT_IN_STUDY,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPORTED,
    REPRODUCED,
    VERDICTS,
    verdict_of,
)
from wobbliness.study.report.figures import all_figures
from wobbliness.study.report.page import TITLES
from wobbliness.study.report.report import write_markdown, write_report
from wobbliness.study.specs.cleanse import CANDIDATES
from wobbliness.study.tables.curves import (
    ACTIVE,
    CRAFTED,
    IMPLANTED_FIRST,
    TRAINED,
    UNIVERSAL,
    UNIVERSAL_TARGETED,
)
from wobbliness.study.tables.tables import Tables

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
CLAIMS = {claim.id: claim for claim in all_claims()}
NETWORK = "T1 dot, small_cnn, seed 0"


def batch(claims, **fields):
    """A row of the table of batches."""
    common = {"network": NETWORK, "kind": "clean", "num_points": 40, "draws": 250, "sigma": 0.3}
    box = {"q25": 0.1, "q75": 0.2, "iqr": 0.1, "num_outliers": 3}
    return {"claims": claims, "miller_madow_mean": 0.5} | common | box | fields


def compared(claims, kind, **fields):
    """A row of the table of tests, at the sigma chosen for both of them."""
    chosen = {"levene_pvalue_chosen": True, "directional_pvalue_chosen": True, "is_full": True}
    means = {"clean_mean": 0.5, "suspect_mean": 0.3, "levene_pvalue": 0.2, "num_points": 25}
    row = {"claims": claims, "kind": kind, "network": NETWORK, "sigma": 0.1}
    return row | chosen | means | fields


def area(question, auc):
    """Rows of the table of ROC areas, one for each test."""
    sizes = {"num_positives": 6, "num_negatives": 12, "sigma": "chosen"}
    limits = {"auc": auc, "auc_lower": auc - 0.1, "auc_upper": min(auc + 0.1, 1.0)}
    return [
        {"question": question.name, "test": test} | limits | sizes
        for test in ("levene", "directional")
    ]


def c1(*, holds):
    return c1_read(std=FALLS if holds else RISES, iqr=FALLS if holds else RISES)


FALLS, RISES, UNSTABLE = (0.3, 0.2, 0.2), (0.2, 0.3, 0.3), (0.3, 0.2, 0.15)


def c1_read(*, std, iqr, means=(0.5, 0.80, 0.81)):
    """Batches of C1 with given spreads at 10, 250 and 500 draws."""
    rows = zip((10, 250, 500), means, std, iqr, strict=True)
    return {"batches": [batch("C1", draws=n, mean=m, std=s, iqr=i) for n, m, s, i in rows]}


def c2(*, holds):
    spread = (0.0 if holds else 0.05, 0.2, 0.3)
    return c2_read(std=spread, iqr=spread)


def c2_read(*, std, iqr, sigmas=(0.01, 0.1, 0.3), **fields):
    """Batches of C2 with given spreads over sigma."""
    rows = zip(sigmas, std, iqr, strict=True)
    return {"batches": [batch("C1 C2", sigma=x, std=s, iqr=i, **fields) for x, s, i in rows]}


def c3(*, holds):
    row = compared(
        "C3 C4", "active", suspect_mean=0.1 if holds else 0.11, directional_pvalue=0.0001
    )
    network = {"network": NETWORK, "clean_accuracy": 0.98, "backdoor_accuracy": 0.99}
    return {"tests": [row], "networks": [network]}


def c4(*, holds):
    accuracies = {"accuracy_on_attacker_labels": 0.1, "accuracy_on_clean_labels": 0.9}
    return {
        "tests": [compared("C4", "inactive", directional_pvalue=0.06 if holds else 0.05)],
        "batches": [batch("C4", **accuracies) | {"kind": "inactive"}],
    }


def correlated(claim, holds):
    row = {"claim": claim, "num_backdoors": 20, "num_left_out": 1}
    for name in ("tau", "r"):
        row |= {name: -0.5, f"{name}_pvalue": 0.001 if holds else 0.01}
        row |= {f"{name}_lower": -0.6, f"{name}_upper": -0.4}
    rows = [row | {"sigma": sigma, "is_chosen": sigma == 0.1} for sigma in (0.1, 0.2)]
    return {
        "correlations": rows,
        "strength": [{"claim": claim, "sigma": 0.1, "num_points": 25}],
    }


def c5(*, holds):
    return correlated("C5", holds)


def c6(*, holds):
    return correlated("C6", holds)


def c7(*, holds):
    return {"roc": area(ACTIVE, 0.95 if holds else 0.94) + area(TRAINED, 0.9)}


def c8(*, holds):
    fooled = {"pattern": "universal l2", "bound": 1.5, "fooling_rate_on_test": 0.9}
    areas = area(UNIVERSAL, 0.79 if holds else 0.8) + area(UNIVERSAL_TARGETED, 0.9)
    return {"roc": areas, "universals": [fooled]}


def c9(*, holds):
    clean = "clean, small_cnn, seed 0"
    threats = {NETWORK: "T1", clean: "clean"}
    pvalues = {NETWORK: 0.0001, clean: 0.0001 if holds else 0.01}  # not smooth on a clean network
    made = {"found": True, "success_on_train": 0.99, "mask_l1": 4.0}
    made |= {"is_flagged": False, "is_attackers_class": False}
    return {
        "networks": [{"network": name, "threat": threat} for name, threat in threats.items()],
        "tests": [
            compared("C9", kind, network=name, directional_pvalue=pvalue)
            for name, pvalue in pvalues.items()
            for kind in CANDIDATES.values()
        ],
        "candidates": [{"network": NETWORK, "form": form} | made for form in CANDIDATES],
        "roc": area(CRAFTED, 0.9),
    }


def x1(*, holds):
    answers = {"level": 1.0, "entropy_of_classes": 0.5}
    return {
        "response": [
            answers | {"network": f"{poisoned}", "is_poisoned": poisoned, "confident_share": share}
            for poisoned, share in ((False, 0.2), (True, 0.6 if holds else 0.1))
        ]
    }


def x2(*, holds):
    return {"roc": area(IMPLANTED_FIRST, 0.7) if holds else area(ACTIVE, 0.9)}


def x3(*, holds):
    row = {"network": NETWORK, "score": "W", "is_chosen": True}
    return {"inputs": [row | {"num_positives": 9, "num_negatives": 9, "auc": 0.9 - 0.4 * holds}]}


def x4(*, holds):
    verdict = {"active_verdict": "smoothing" if holds else "opposite", "inactive_verdict": "none"}
    triggers = {"active_trigger": "dot", "inactive_trigger": "square"}
    row = {"network": NETWORK, "is_active": True, "num_points": 40, "draws": 100}
    rows = [{"family": name} | row | triggers | verdict for name in ("gaussian", "blur")]
    return {"noises": rows}


def x5(*, holds):
    norms = {"dot": 1.0, "square": 2.0, "smiley": 3.0, "stripes": 2.5}
    return {
        "matched_filter": [
            {"network": f"T1 {name}", "trigger": name, "l2": l2, "contrast": 4 - l2}
            | {"is_functioning": True, "num_points": 40, "draws": 100}
            | {"sigma_risen": 0.1 * l2 if holds else None}
            for name, l2 in norms.items()
        ]
    }


CASES = {
    made.__name__.upper(): made for made in (c1, c2, c3, c4, c5, c6, c7, c8, c9, x1, x2, x3, x4, x5)
}
"""Tables of each claim by its id; `holds` gives a positive case, or a negative one."""


def tables_of(claim, rows):
    """Tables of a study whose cells of one claim are recorded."""
    recipe = made_studies.recipe(draws_grid=(10, 250, 500))
    frames = {
        field.name: pd.DataFrame() for field in dataclasses.fields(Tables) if field.name != "recipe"
    }
    # those that are measured with the same cells are found at the same time
    for other in (one for one in CLAIMS.values() if one.cells_of == claim.cells_of):
        rows = CASES[other.id](holds=True) | rows
    frames |= {name: pd.DataFrame(content) for name, content in rows.items()}
    frames["status"] = pd.DataFrame([{"claim": claim.cells_of, "cells_done": 3, "cells": 3}])
    return Tables(recipe=recipe, **frames)


def finding_of(tables, claim_id):
    (found,) = (finding for finding in findings(tables) if finding.claim.id == claim_id)
    return found


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_says_what_it_is_and_where_to_look(claim):
    for text in (claim.topic, claim.claim, claim.paper, claim.rule):
        assert len(text) > 4
        assert not text.endswith(".")
    assert claim.measured_with == "" or CLAIMS[claim.measured_with].measured_with == ""
    assert claim.tables
    assert set(claim.tables) <= TITLES.keys()
    for figure in claim.figures:
        assert {*figure.claims, *figure.about} <= CLAIMS.keys()
        assert claim.id in (figure.about or figure.claims)


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_has_both_verdicts(claim, holds):
    found = finding_of(tables_of(claim, CASES[claim.id](holds=holds)), claim.id)
    expected = REPRODUCED if holds else NOT_REPRODUCED
    assert found.verdict == (REPORTED if claim.rule == REPORTED else expected)
    assert found.settings.startswith("recipe made, seed 0: ")
    # the page lists statements one by one: joined they are the column `ours`, and split nowhere
    assert all(text and ";" not in text for text in found.statements)
    assert found.ours.split("; ") == list(found.statements)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_claim_with_a_missing_cell_is_not_measured(claim):
    tables = tables_of(claim, CASES[claim.id](holds=True))
    tables = dataclasses.replace(tables, status=tables.status.assign(cells_done=2))
    found = finding_of(tables, claim.id)
    assert (found.verdict, found.statements, found.ours) == (NOT_MEASURED, (), "")
    assert found.settings == "recipe made, seed 0: 2 of 3 cells recorded"
    assert (found.summary, found.number, found.plot, found.in_short) == ("", "", None, "")


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_claim_without_cells_is_not_in_the_study(claim):
    other = CLAIMS["C2" if claim.cells_of == "C1" else "C1"]
    found = findings(tables_of(other, CASES[other.id](holds=True)))
    words = {finding.claim.id: finding.verdict for finding in found}
    assert words.get(claim.id) == (None if claim.only_if_planned else NOT_IN_STUDY)
    assert words[other.id] == REPRODUCED, "control: that claim is in it"


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_of_the_paper_has_a_number_and_a_plot_of_its_statements(claim):
    found = finding_of(tables_of(claim, CASES[claim.id](holds=True)), claim.id)
    assert bool(claim.quantity) == bool(claim.wanted) == claim.is_of_the_paper
    assert bool(found.number) == claim.is_of_the_paper
    assert (found.plot is None) == (claim.id in {"X4", "X5"})
    assert ";" not in found.summary
    if found.plot is not None:
        assert 1 <= len(found.plot.names) <= 3
        drawn = [value for one in found.plot.series for value in one.values]
        assert all(len(one.values) == len(found.plot.ticks) for one in found.plot.series)
        assert any(math.isfinite(value) for value in drawn)
        assert svg(found.plot).startswith('<svg class="small"')


NUMBERS = {
    "C1": ("0.67", "1.50"),
    "C2": ("0.000", "0.050"),
    "C3": ("0.2", "0.22"),
    "C4": ("0.06", "0.05"),
    "C5": ("-0.50", "-0.50"),
    "C7": ("0.95", "0.94"),
    "C8": ("0.79", "0.80"),
    "C9": ("100 %", "0 %"),
}


@pytest.mark.parametrize("claim", NUMBERS)
def test_the_number_is_the_one_that_the_rule_is_about(claim):
    found = [
        finding_of(tables_of(CLAIMS[claim], CASES[claim](holds=holds)), claim).number
        for holds in (True, False)
    ]
    assert tuple(found) == NUMBERS[claim]


def test_the_number_is_that_of_the_network_farthest_from_the_claim():
    better, worse = (0.0, 0.2, 0.3), (0.15, 0.2, 0.3)
    rows = c2_read(std=better, iqr=better)["batches"]
    rows += c2_read(std=worse, iqr=better, network="T1 dot, seed 1")["batches"]
    found = finding_of(tables_of(CLAIMS["C2"], {"batches": rows}), "C2")
    assert found.number == "0.150"
    assert "the standard deviation of W is 0.000 to 0.150" in found.summary
    assert "the interquartile range of W is 0.000 nats" in found.summary


READ = {"C1": c1_read, "C2": c2_read}
SPREADS_THAT_HOLD = {"C1": FALLS, "C2": (0.0, 0.2, 0.3)}
SPREADS_THAT_DO_NOT = {
    "C1 rises": RISES,
    "C1 stays": (0.2, 0.2, 0.2),
    "C1 is not stable": UNSTABLE,
    "C2 leaves some": (0.02, 0.2, 0.3),
    "C2 peaks inside": (0.0, 0.3, 0.2),
    "C2 comes back": (0.01, 0.0, 0.3),
}
WORDS = {
    (True, True): (REPRODUCED, "holds in both readings"),
    (True, False): (IN_ONE_READING, "holds by the standard deviation alone"),
    (False, True): (IN_ONE_READING, "holds by the interquartile range alone"),
    (False, False): (NOT_REPRODUCED, "holds in neither reading"),
}


@pytest.mark.parametrize(("std", "iqr"), WORDS)
@pytest.mark.parametrize("case", SPREADS_THAT_DO_NOT)
def test_each_measure_of_spread_has_its_own_verdict(case, std, iqr):
    claim = case[:2]
    spreads = {True: SPREADS_THAT_HOLD[claim], False: SPREADS_THAT_DO_NOT[case]}
    rows = READ[claim](std=spreads[std], iqr=spreads[iqr])
    found = finding_of(tables_of(CLAIMS[claim], rows), claim)
    word, sentence = WORDS[std, iqr]
    assert found.verdict == word
    assert found.statements[0].startswith(f"{sentence}: ")
    assert {reading.name: reading.holds for reading in found.readings} == {
        "standard deviation": std,
        "interquartile range": iqr,
    }
    words = {True: REPRODUCED, False: NOT_REPRODUCED}
    shown = f"standard deviation: {words[std]}; interquartile range: {words[iqr]}"
    table = claims_table(tables_of(CLAIMS[claim], rows)).set_index("id")
    assert (table.verdict[claim], table.readings[claim]) == (word, shown)


def test_a_mean_that_is_not_stable_fails_in_both_readings():
    rows = c1_read(std=FALLS, iqr=FALLS, means=(0.5, 0.8, 0.95))
    found = finding_of(tables_of(CLAIMS["C1"], rows), "C1")
    assert (found.verdict, [one.holds for one in found.readings]) == (
        NOT_REPRODUCED,
        [False, False],
    )


def test_a_reading_holds_on_every_network_or_not_at_all():
    rows = c2_read(std=(0.0, 0.2, 0.3), iqr=(0.0, 0.2, 0.3))["batches"]
    other = c2_read(std=(0.0, 0.2, 0.3), iqr=(0.0, 0.4, 0.3), network="T1 dot, seed 1")["batches"]
    alone = finding_of(tables_of(CLAIMS["C2"], {"batches": rows}), "C2")
    both = finding_of(tables_of(CLAIMS["C2"], {"batches": rows + other}), "C2")
    assert (alone.verdict, both.verdict) == (REPRODUCED, IN_ONE_READING)


def test_no_spread_at_all_is_stable_and_has_fallen_once_it_is_none():
    c1_spread, c2_spread = (0.1, 0.0, 0.0), (0.0, 0.0, 0.3)
    first = finding_of(tables_of(CLAIMS["C1"], c1_read(std=FALLS, iqr=c1_spread)), "C1")
    second = finding_of(tables_of(CLAIMS["C2"], c2_read(std=c2_spread, iqr=c2_spread)), "C2")
    assert (first.verdict, second.verdict) == (REPRODUCED, REPRODUCED)
    grows = finding_of(tables_of(CLAIMS["C1"], c1_read(std=FALLS, iqr=(0.1, 0.0, 0.1))), "C1")
    assert grows.verdict == IN_ONE_READING, "control: from none to some is no stable spread"


@pytest.mark.parametrize(
    ("sigmas", "holds"), [((0.005, 0.01, 0.3), False), ((0.01, 0.02, 0.3), True)]
)
def test_none_is_left_at_the_papers_sigma_not_at_a_lower_one(sigmas, holds):
    spread = (0.01, 0.05, 0.3)
    rows = c2_read(std=spread, iqr=spread, sigmas=sigmas)
    found = finding_of(tables_of(CLAIMS["C2"], rows), "C2")
    assert found.verdict == (REPRODUCED if holds else NOT_REPRODUCED)


@pytest.mark.parametrize(("num_outliers", "says"), [(12, True), (0, False)])
def test_c2_says_that_outliers_make_the_standard_deviation(num_outliers, says):
    rows = c2_read(
        std=(0.1, 0.2, 0.3), iqr=(0.0, 0.2, 0.3), q75=0.0, q25=0.0, num_outliers=num_outliers
    )
    sentence = finding_of(tables_of(CLAIMS["C2"], rows), "C2").statements[0]
    assert "the interquartile range is 0.000 at sigma 0.01 and the standard deviation 0.100" in (
        sentence
    )
    assert (f"sets the {num_outliers} of 40 points that wobble at all apart" in sentence) == says


def test_every_verdict_has_a_word_and_a_symbol_of_its_own():
    for field in ("word", "symbol", "meaning"):
        assert len({getattr(verdict, field) for verdict in VERDICTS}) == len(VERDICTS)
    assert all(len(verdict.symbol) == 1 for verdict in VERDICTS)
    assert verdict_of("in one reading").word == IN_ONE_READING
    with pytest.raises(ValueError, match="^expected a verdict out of reproduced, .*, got 'true'$"):
        verdict_of("true")


def test_cases_and_files_are_those_of_the_claims():
    files = [
        module.name.partition("_")[0].upper()
        for folder in (paper, questions)
        for module in pkgutil.iter_modules(folder.__path__)
    ]
    assert sorted(files) == sorted(CLAIMS) == sorted(CASES)


def test_figures_are_in_the_papers_order_and_have_names_of_their_own():
    names = [figure.name for figure in all_figures()]
    assert names[:5] == ["fig1", "fig2-draws", "fig2-sigma", "fig3-triggers", "fig4"]
    assert names[-4:] == ["implanted", "noises", "matched-filter", "controls"]
    assert len(set(names)) == len(names)


def test_rows_of_c10_say_nothing_of_c1():
    rows = c1(holds=True)
    alone = finding_of(tables_of(CLAIMS["C1"], rows), "C1")
    wide = {"mean": 9.0, "std": 9.0, "iqr": 9.0}
    others = [row | {"claims": "C10"} | wide for row in rows["batches"]]
    both = finding_of(tables_of(CLAIMS["C1"], {"batches": rows["batches"] + others}), "C1")
    assert both == alone


def test_a_recipe_that_lacks_the_draws_of_c1_does_not_measure_what_c1_answers():
    tables = tables_of(CLAIMS["C1"], c1(holds=True))
    assert claims_done(tables) == {"C1"}
    recipe = dataclasses.replace(tables.recipe, draws_grid=(10, 500))
    tables = dataclasses.replace(tables, recipe=recipe)
    assert claims_done(tables) == set()
    assert finding_of(tables, "C1").settings.endswith("; draws_grid lacks 250")


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Puts a file into the folder of the questions, as far as Python sees."""

    def put(name, text):
        folder = tmp_path / "questions"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(questions, "__path__", [*questions.__path__, str(folder)])
        importlib.invalidate_caches()

    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        if name.startswith(questions.__name__):
            del sys.modules[name]


def example():
    """The example of the contributors' page."""
    section = CONTRIBUTING.read_text().partition("## Add a claim\n")[2].partition("\n## ")[0]
    return re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]


def test_the_example_of_the_contributors_page_is_in_tables_and_pages(put, tmp_path):
    put("x99_low_noise", example())
    report = write_report(made_studies.make_study(tmp_path / "study"))
    rows = report.tables.batches
    mean = rows["mean"][(rows.claims == "C2") & (rows.sigma == 0.1)].item()
    statement = f"mean W {mean:.3f} at sigma 0.1"
    claims = pd.read_csv(report.folder / "tables" / "claims.csv").set_index("id")
    usual = [claim.id for claim in CLAIMS.values() if not claim.only_if_planned]
    assert list(claims.index) == [*usual, "X99"]
    assert (claims.ours["X99"], claims.verdict["X99"]) == (statement, NOT_REPRODUCED)
    assert claims.settings["X99"] == "recipe made, seed 0: 1 networks"
    page = (report.folder / "report.html").read_text()
    assert '<tr id="X99"' in page
    assert f"<li>{statement}</li>" in page
    write_markdown([report], tmp_path / "results.md")
    assert f"| {statement} | **{NOT_REPRODUCED}** |" in (tmp_path / "results.md").read_text()


def test_a_question_only_for_recipes_that_plan_it_is_not_in_other_tables(put):
    tables = tables_of(CLAIMS["C1"], c1(holds=True))
    before = claims_table(tables)
    put("x99_low_noise", example())
    assert "X99" in {claim.id for claim in all_claims()}
    pd.testing.assert_frame_equal(claims_table(tables), before)
    planned = claims_table(tables_of(CLAIMS["C2"], c2(holds=True) | {"batches": low_noise(0.09)}))
    assert planned.verdict[planned.id == "X99"].item() == REPRODUCED


def low_noise(mean):
    return [row | {"mean": mean} for row in c2(holds=True)["batches"]]


def test_c10_follows_c9(put):
    put("c10_more", example().replace('"X99"', '"C10"'))
    ids = [claim.id for claim in all_claims()]
    assert ids[8:11] == ["C9", "C10", "X1"]
