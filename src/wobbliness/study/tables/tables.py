"""Tables of a study, formed from its records.

Every number that is quoted anywhere is formed here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wobbliness.study.plan import measured_claims, plan
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.bounded_tables import Budget
from wobbliness.study.records.record import is_done, read_recipe, read_record
from wobbliness.study.specs import Cell, Spec
from wobbliness.study.tables.candidates import candidate_rows
from wobbliness.study.tables.comparisons import batch_tests, choose_sigmas, negative_controls
from wobbliness.study.tables.correlations import correlations, strengths
from wobbliness.study.tables.curves import input_areas, roc_areas
from wobbliness.study.tables.detection import detector_rows, perturbation_rows
from wobbliness.study.tables.finished_cells import FinishedCell
from wobbliness.study.tables.ladders import ladder_rows, matched_filter_rows
from wobbliness.study.tables.networks import loss_rows, network_rows
from wobbliness.study.tables.noises import noise_rows
from wobbliness.study.tables.point_browser import browser_points, recorded_pictures
from wobbliness.study.tables.points import batch_rows, example_rows, point_rows
from wobbliness.study.tables.responses import response_rows
from wobbliness.study.tables.universals import universal_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """All tables of a study; each is empty where its cells are not recorded.

    Attributes:
        recipe: the study's recipe.
        networks: one row per trained network: accuracies.
        points: one row per measured point, sigma and number of draws: W.
        example: votes of one clean and one triggered point for each class and sigma.
        batches: one row per batch, sigma and number of draws: mean, spread and quartiles of W.
        sigma: one row per network and test: the sigma chosen on the network's first clean batch.
        tests: one row per network, suspect batch, sigma and batch size: the batch tests.
        roc: one row per question, sigma (and one for the chosen ones) and test: area under the ROC
            curve.
        inputs: one row per poisoned network, sigma and score: area under the ROC curve over single
            inputs.
        strength: one row per backdoor and sigma: its accuracy and the mean W of points that bear
            it.
        correlations: one row per claim and sigma: Kendall's tau and Pearson's r over the backdoors.
        universals: one row per universal perturbation: its norm, and how many points it fools.
        candidates: one row per network, form and class: Neural Cleanse's candidate trigger.
        response: one row per network and level of noise: its answers to images of noise alone.
        controls: one row per kind of pair and test: share of random pairs below the level.
        losses: one row per trained network and epoch: mean training loss, nats.
        explored: votes around a few points of each batch of a few networks, with W and its
            interval.
        pictures: one row per explored point and pattern: its pixels; empty where a study was
            measured without them.
        status: one row per claim: cells recorded and planned.
        perturbations: one row per network, trigger and perturbation: how W under it tells triggered
            inputs from clean ones.
        detectors: one row per network, trigger and detector: how its scores do.
        noises: one row per network and family of perturbations: W of clean, active and inactive
            batches at the matched level.
        ladders: one row per network and sigma of the ladder: medians of W, clean and triggered.
        matched_filter: one row per network: norms of its trigger, and the sigma at which it gives
            way to noise.
    """

    recipe: Recipe
    networks: pd.DataFrame
    points: pd.DataFrame
    example: pd.DataFrame
    batches: pd.DataFrame
    sigma: pd.DataFrame
    tests: pd.DataFrame
    roc: pd.DataFrame
    inputs: pd.DataFrame
    strength: pd.DataFrame
    correlations: pd.DataFrame
    universals: pd.DataFrame
    candidates: pd.DataFrame
    response: pd.DataFrame
    controls: pd.DataFrame
    losses: pd.DataFrame
    explored: pd.DataFrame
    pictures: pd.DataFrame
    status: pd.DataFrame
    perturbations: pd.DataFrame
    detectors: pd.DataFrame
    noises: pd.DataFrame
    ladders: pd.DataFrame
    matched_filter: pd.DataFrame

    def frames(self) -> dict[str, pd.DataFrame]:
        """Returns the tables by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)
        }


def form_tables(out: Path) -> Tables:
    """Forms all tables from the records of a study folder.

    Raises:
        ValueError: the folder holds no study, a record is damaged, or the records are too many rows
            in all.
    """
    recipe = read_recipe(out)
    planned = plan(recipe)
    cells = list(_finished_cells(out, planned))
    points = point_rows(cells)
    sigma = choose_sigmas(points)
    tests = batch_tests(points, sigma)
    strength = strengths(points)
    ladders = ladder_rows(cells)
    return Tables(
        recipe=recipe,
        networks=network_rows(cells),
        points=points,
        example=example_rows(cells, points),
        batches=batch_rows(points),
        sigma=sigma,
        tests=tests,
        roc=roc_areas(tests, recipe.seed),
        inputs=input_areas(points, sigma),
        strength=strength,
        correlations=correlations(strength, points, recipe.seed),
        universals=universal_rows(cells),
        candidates=candidate_rows(cells),
        response=response_rows(cells),
        controls=negative_controls(points, sigma, recipe),
        losses=loss_rows(cells),
        explored=browser_points(recipe, cells),
        pictures=recorded_pictures(recipe, cells),
        status=_status(out, recipe, planned),
        perturbations=perturbation_rows(cells),
        detectors=detector_rows(cells),
        noises=noise_rows(cells),
        ladders=ladders,
        matched_filter=matched_filter_rows(cells, ladders),
    )


def _finished_cells(out: Path, planned: Sequence[Cell]) -> Iterator[FinishedCell[Spec]]:
    """Yields each cell that is done, with its record."""
    budget = Budget()
    for cell in planned:
        if is_done(out / "records", cell.name):
            record = read_record(out / "records", cell.name)
            # a study may be untrusted: all of its records together are bounded
            budget.take(record.table)
            yield FinishedCell(claims=cell.claims, spec=record.spec, record=record)


def _status(out: Path, recipe: Recipe, planned: Sequence[Cell]) -> pd.DataFrame:
    rows = []
    for claim in measured_claims(recipe):
        cells = [cell for cell in planned if claim in cell.claims]
        done = sum(is_done(out / "records", cell.name) for cell in cells)
        rows.append({"claim": claim, "cells_done": done, "cells": len(cells)})
    return pd.DataFrame(rows)
