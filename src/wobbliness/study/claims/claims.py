"""Findings of a study on every claim, each with the paper's words and a verdict by a rule."""

import importlib
import pkgutil

import pandas as pd

from wobbliness.study.claims import paper, questions
from wobbliness.study.claims.base import Claim, Finding
from wobbliness.study.claims.verdicts import NOT_IN_STUDY, NOT_MEASURED
from wobbliness.study.tables.tables import Tables


def all_claims() -> tuple[Claim, ...]:
    """Returns the claims and questions in the order of their ids, C10 after C9.

    Each is the object `CLAIM` of a module in one of the two folders.
    """
    found: list[Claim] = [
        importlib.import_module(f"{folder.__name__}.{module.name}").CLAIM
        for folder in (paper, questions)
        for module in pkgutil.iter_modules(folder.__path__)
    ]
    return tuple(sorted(found, key=lambda claim: (claim.id[0], int(claim.id[1:]))))


def claims_table(tables: Tables) -> pd.DataFrame:
    """Returns one row per claim: id, claim, paper, ours, verdict, settings, readings."""
    rows = [
        {
            "id": finding.claim.id,
            "claim": finding.claim.claim,
            "paper": finding.claim.paper,
            "ours": finding.ours,
            "verdict": finding.verdict,
            "settings": finding.settings,
            "readings": finding.readings_text,
        }
        for finding in findings(tables)
    ]
    return pd.DataFrame(rows)


def findings(tables: Tables) -> list[Finding]:
    """Returns the study's finding on each claim.

    It is `not measured` where cells are missing, and `not in this study` where the recipe plans
    none. A recipe of questions of its own alone has no findings on the others.
    """
    done, planned = claims_done(tables), {row.claim for row in tables.status.itertuples()}
    claims = all_claims()
    asked = {claim.id: claim for claim in claims if claim.cells_of in planned}
    # a recipe that plans none of the usual claims says nothing of them
    is_special = bool(asked) and all(claim.only_if_planned for claim in asked.values())
    return [
        _measured(claim, tables) if claim.id in done else _not_measured(claim, tables)
        for claim in claims
        if claim.id in asked or not (is_special or claim.only_if_planned)
    ]


def claims_done(tables: Tables) -> set[str]:
    """Returns the claims whose cells are all recorded and whose recipe lacks nothing for them."""
    claims = all_claims()
    lacking = {claim.id for claim in claims if claim.lacks(tables)}
    recorded = {row.claim for row in tables.status.itertuples() if row.cells_done == row.cells}
    return {
        claim.id
        for claim in claims
        if claim.cells_of in recorded and lacking.isdisjoint({claim.id, claim.cells_of})
    }


def _measured(claim: Claim, tables: Tables) -> Finding:
    answer = claim.find(tables)
    return Finding(
        claim=claim,
        statements=answer.statements,
        verdict=answer.verdict,
        settings=f"{_recipe(tables)}: {answer.settings}",
        readings=answer.readings,
        summary=answer.summary,
        number=answer.number,
        plot=answer.plot,
    )


def _not_measured(claim: Claim, tables: Tables) -> Finding:
    settings, verdict = _recipe(tables), NOT_IN_STUDY
    # no rows where the recipe has no cells for the claim
    for row in tables.status.itertuples():
        if row.claim == claim.cells_of:
            settings += f": {row.cells_done} of {row.cells} cells recorded"
            verdict = NOT_MEASURED
            if claim.lacks(tables):
                settings += f"; {claim.lacks(tables)}"
    return Finding(claim=claim, statements=(), verdict=verdict, settings=settings)


def _recipe(tables: Tables) -> str:
    return f"recipe {tables.recipe.name}, seed {tables.recipe.seed}"
