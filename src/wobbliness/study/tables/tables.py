"""Tables of a study, formed from its records.

Every number that is quoted anywhere is formed here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wobbliness.statistics.entropy import miller_madow_entropy, plug_in_entropy
from wobbliness.study.plan import CLEAN_BATCHES, ONE_POINT, measured_claims, plan
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.bounded_tables import Budget
from wobbliness.study.records.record import Record, is_done, read_recipe, read_record
from wobbliness.study.specs import (
    CleanseSpec,
    MeasureSpec,
    NetworkSpec,
    ResponseSpec,
    UniversalSpec,
    cell_name,
)
from wobbliness.study.tables.comparisons import batch_tests, choose_sigmas, negative_controls
from wobbliness.study.tables.correlations import correlations, strengths
from wobbliness.study.tables.curves import input_areas, roc_areas
from wobbliness.study.tables.labels import batch_kind, batch_pattern, network_label, universal_label
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.point_browser import browser_points, recorded_pictures

STABLE_DRAWS = 250  # from which W is stable by C1
BATCH_KEYS = ["claims", "network", "batch_size", "batch", "trigger", "kind", "sigma", "draws"]


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
    records = list(_records(out, recipe))
    networks = _networks(records)
    points = _points(records)
    sigma = choose_sigmas(points)
    tests = batch_tests(points, sigma)
    strength = strengths(points)
    return Tables(
        recipe=recipe,
        networks=networks,
        points=points,
        example=_example(records, points),
        batches=_batches(points),
        sigma=sigma,
        tests=tests,
        roc=roc_areas(tests, recipe.seed),
        inputs=input_areas(points, sigma),
        strength=strength,
        correlations=correlations(strength, points, recipe.seed),
        universals=_universals(records),
        candidates=_candidates(records),
        response=_responses(records),
        controls=negative_controls(points, sigma, recipe),
        losses=_losses(records),
        explored=browser_points(recipe, records),
        pictures=recorded_pictures(recipe, records),
        status=_status(out, recipe),
    )


def _records(out: Path, recipe: Recipe) -> Iterator[tuple[tuple[str, ...], Record]]:
    """Yields the claims and the record of each cell that is done."""
    budget = Budget()
    for cell in plan(recipe):
        if is_done(out / "records", cell.name):
            record = read_record(out / "records", cell.name)
            # a study may be untrusted: all of its records together are bounded
            budget.take(record.table)
            yield cell.claims, record


def _networks(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    rows = []
    for claims, record in records:
        if isinstance(spec := record.spec, NetworkSpec):
            rows.append(
                {
                    "claims": " ".join(claims),
                    "network": network_label(spec),
                    "cell": cell_name(spec),
                    "threat": spec.threat.name if spec.threat else "clean",
                    "trigger": spec.trigger or "",
                    "seed": spec.seed,
                    "num_poisoned": record.results["num_poisoned"],
                    "clean_accuracy": record.results["clean_accuracy"],
                    "backdoor_accuracy": record.results["backdoor_accuracy"],
                }
            )
    return pd.DataFrame(rows)


def _losses(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    rows = [
        {"network": network_label(record.spec), "epoch": epoch, "loss": loss}
        for _, record in records
        if isinstance(record.spec, NetworkSpec)
        for epoch, loss in enumerate(record.results["losses"], start=1)
    ]
    return pd.DataFrame(rows)


def _universals(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    rows = []
    for _, record in records:
        if isinstance(spec := record.spec, UniversalSpec):
            keys = {
                "network": network_label(spec.network),
                "cell": cell_name(spec),
                "pattern": universal_label(spec),
            }
            rows.append(keys | {"norm": spec.norm, "bound": spec.bound} | dict(record.results))
    return pd.DataFrame(rows)


def _candidates(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    rows = []
    for _, record in records:
        if isinstance(spec := record.spec, CleanseSpec):
            threat, results = spec.network.threat, record.results
            keys = {"network": network_label(spec.network), "cell": cell_name(spec)}
            for row in results["candidates"]:
                target_class = row["target_class"]
                rows.append(
                    keys
                    | row
                    | {
                        "anomaly_index": results["anomaly_index"][target_class],
                        "is_flagged": target_class in results["flagged"],
                        "is_attackers_class": threat is not None
                        and threat.target_class == target_class,
                        "is_poisoned": threat is not None,
                    }
                )
    return pd.DataFrame(rows)


def _responses(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    frames = [
        record.table.assign(
            network=network_label(record.spec.network),
            is_poisoned=record.spec.network.threat is not None,
        )
        for _, record in records
        if isinstance(record.spec, ResponseSpec)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _points(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    frames = [
        _measured_points(claims, record.spec, record)
        for claims, record in records
        if isinstance(record.spec, MeasureSpec) and claims != (ONE_POINT,)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _measured_points(claims: tuple[str, ...], spec: MeasureSpec, record: Record) -> pd.DataFrame:
    if record.table.empty:  # Neural Cleanse found no candidate at all
        return record.table
    counts = record.table.filter(regex=r"^votes_\d+$").to_numpy()
    frame = record.table[["point", "label", "sigma", "draws", "top_score", "candidate"]].assign(
        wobbliness=plug_in_entropy(counts), miller_madow=miller_madow_entropy(counts)
    )
    batch = _batch_names(claims, spec, frame)
    threat, by_class = spec.network.threat, record.results.get("attacker_labels_by_class")
    is_candidate = isinstance(spec.crafted, CleanseSpec)
    return frame.assign(
        claims=" ".join(claims),
        network=network_label(spec.network),
        num_classes=counts.shape[1],
        batch=batch,
        trigger=[f"candidate {target}, {spec.form}" for target in frame.candidate]
        if is_candidate
        else batch_pattern(spec),
        # of one of the three clean batches; a suspect batch starts after all three
        batch_size=spec.num_points // CLEAN_BATCHES
        if "calibration" in set(batch)
        else spec.first_point // CLEAN_BATCHES,
        kind=batch_kind(spec),
        is_other_class=is_candidate
        and threat is not None
        and frame.candidate != threat.target_class,
        accuracy_on_attacker_labels=record.results.get("accuracy_on_attacker_labels"),
        accuracy_on_clean_labels=record.results.get("accuracy_on_clean_labels"),
        attacker_labels_of_class=frame.label.map(dict(enumerate(by_class))) if by_class else None,
    )


def _example(records: list[tuple[tuple[str, ...], Record]], points: pd.DataFrame) -> pd.DataFrame:
    """Returns the votes of one clean and one triggered point of C3's first network.

    The points whose W, averaged over sigma, is the median one.
    """
    here = of_claims(points, "C3")
    frames: list[pd.DataFrame] = []
    for kind in ("clean", "active") if len(here) else ():
        rows = here[(here.network == here.network.iloc[0]) & (here.kind == kind)]
        if rows.empty:
            return pd.DataFrame()
        by_point = rows.groupby("point", sort=False).wobbliness.mean().sort_values(kind="stable")
        # a stable sort: ties in W give the same point every time
        point = by_point.index[len(by_point) // 2]
        record = next(
            record
            for of_cell, record in records
            if isinstance(record.spec, MeasureSpec)
            and "C3" in of_cell
            and batch_kind(record.spec) == kind
            and network_label(record.spec.network) == here.network.iloc[0]
        )
        votes = record.table[record.table.point == point]
        long = votes.melt(
            ["point", "label", "sigma"], votes.filter(regex=r"^votes_").columns, "class", "votes"
        )
        frames.append(long.assign(kind=kind))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return (
        table.assign(**{"class": table["class"].str.removeprefix("votes_").astype(int)})
        if len(table)
        else table
    )


def _batch_names(
    claims: tuple[str, ...], spec: MeasureSpec, frame: pd.DataFrame
) -> Sequence[str] | pd.Series:
    """Returns the batch of each clean point of C3, C4 and C7.

    Three batches: to choose sigma on, to compare with, to compare clean with clean.
    """
    if {"C1", "C2"} & set(claims):
        return ["parameters"] * len(frame)
    if spec.trigger is not None or spec.crafted is not None:
        return ["suspect"] * len(frame)
    # a clean record holds three batches one after another at each sigma and number of draws
    position = frame.groupby(["sigma", "draws"]).cumcount() // (spec.num_points // CLEAN_BATCHES)
    return position.map({0: "calibration", 1: "clean", 2: "second clean"})


def _batches(points: pd.DataFrame) -> pd.DataFrame:
    if points.empty:
        return points
    groups = points.groupby(BATCH_KEYS, sort=False)
    quartiles = groups.wobbliness.quantile([0.25, 0.5, 0.75]).unstack()
    summary = groups.agg(
        num_points=("wobbliness", "size"),
        mean=("wobbliness", "mean"),
        std=("wobbliness", "std"),
        share_above_zero=("wobbliness", lambda w: float((w > 0).mean())),
        miller_madow_mean=("miller_madow", "mean"),
        accuracy_on_attacker_labels=("accuracy_on_attacker_labels", "first"),
        accuracy_on_clean_labels=("accuracy_on_clean_labels", "first"),
    )
    summary.insert(3, "q25", quartiles[0.25])
    summary.insert(4, "median", quartiles[0.5])
    summary.insert(5, "q75", quartiles[0.75])
    return summary.reset_index()


def _status(out: Path, recipe: Recipe) -> pd.DataFrame:
    rows = []
    for claim in measured_claims(recipe):
        cells = plan(recipe, [claim])
        done = sum(is_done(out / "records", cell.name) for cell in cells)
        rows.append({"claim": claim, "cells_done": done, "cells": len(cells)})
    return pd.DataFrame(rows)


def lacks_draws(tables: Tables) -> str:
    """Says which numbers of draws C1 needs and the recipe's grid lacks; empty if none."""
    lacking = sorted({STABLE_DRAWS, tables.recipe.draws} - set(tables.recipe.draws_grid))
    return f"draws_grid lacks {' and '.join(map(str, lacking))}" if lacking else ""


def parameter_sigma(tables: Tables) -> float:
    """Returns the sigma of C1: where clean W spreads most at the recipe's draws."""
    rows = of_claims(tables.batches, "C1")
    rows = rows[rows.draws == tables.recipe.draws]
    return float(rows.sigma[rows["std"].idxmax()])


def claims_done(tables: Tables) -> Iterator[str]:
    """Yields the claims whose cells are all recorded and hold what the claim needs."""
    for row in tables.status.itertuples():
        if row.cells_done == row.cells and not (row.claim == "C1" and lacks_draws(tables)):
            yield str(row.claim)
