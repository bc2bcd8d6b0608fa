"""Tables of a study, formed from its records. Every number that is quoted anywhere is formed here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wobbliness.entropy import miller_madow_entropy, plug_in_entropy
from wobbliness.study.comparisons import batch_tests, choose_sigmas, negative_controls, roc_areas
from wobbliness.study.recipes import CLEAN_BATCHES, MeasureSpec, NetworkSpec, Recipe, cell_name, plan
from wobbliness.study.records import Record, is_done, read_recipe, read_record

BATCH_KEYS = ["claims", "network", "batch_size", "batch", "trigger", "kind", "sigma", "draws"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """All tables of a study; each is empty where its cells are not recorded.

    Attributes:
        recipe: the study's recipe.
        networks: one row per trained network: accuracies.
        points: one row per measured point, sigma and number of draws: W.
        batches: one row per batch, sigma and number of draws: mean, spread and quartiles of W.
        sigma: one row per network and test: the sigma chosen on the network's first clean batch.
        tests: one row per network, suspect batch, sigma and batch size: the batch tests.
        roc: one row per sigma (and one for the chosen ones) and test: area under the ROC curve.
        controls: one row per kind of pair and test: share of random pairs below the level.
        status: one row per claim: cells recorded and planned.
    """

    recipe: Recipe
    networks: pd.DataFrame
    points: pd.DataFrame
    batches: pd.DataFrame
    sigma: pd.DataFrame
    tests: pd.DataFrame
    roc: pd.DataFrame
    controls: pd.DataFrame
    status: pd.DataFrame

    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)}


def form_tables(out: Path) -> Tables:
    """Reads the records of a study folder.

    Raises:
        ValueError: the folder holds no study, or a record is damaged.
    """
    recipe = read_recipe(out)
    records = [
        (cell.claims, read_record(out / "records", cell.name)) for cell in plan(recipe) if is_done(out / "records", cell.name)
    ]
    networks = _networks(records)
    points = _points(records)
    sigma = choose_sigmas(points)
    tests = batch_tests(points, sigma)
    return Tables(
        recipe=recipe,
        networks=networks,
        points=points,
        batches=_batches(points),
        sigma=sigma,
        tests=tests,
        roc=roc_areas(tests),
        controls=negative_controls(points, sigma, recipe),
        status=_status(out, recipe),
    )


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


def _points(records: list[tuple[tuple[str, ...], Record]]) -> pd.DataFrame:
    frames = [_measured_points(claims, record.spec, record) for claims, record in records if isinstance(record.spec, MeasureSpec)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _measured_points(claims: tuple[str, ...], spec: MeasureSpec, record: Record) -> pd.DataFrame:
    counts = record.table.filter(regex=r"^votes_\d+$").to_numpy()
    frame = record.table[["point", "label", "sigma", "draws"]].assign(
        wobbliness=plug_in_entropy(counts), miller_madow=miller_madow_entropy(counts)
    )
    batch = _batch_names(claims, spec, frame)
    return frame.assign(
        claims=" ".join(claims),
        network=network_label(spec.network),
        batch=batch,
        trigger=spec.trigger or "",
        batch_size=spec.num_points // CLEAN_BATCHES if "calibration" in set(batch) else spec.num_points,
        kind="clean" if spec.trigger is None else "active" if spec.trigger == spec.network.trigger else "inactive",
        accuracy_on_attacker_labels=record.results["accuracy_on_attacker_labels"],
        accuracy_on_clean_labels=record.results["accuracy_on_clean_labels"],
    )


def _batch_names(claims: tuple[str, ...], spec: MeasureSpec, frame: pd.DataFrame) -> Sequence[str] | pd.Series:
    """Clean points of C3, C4 and C7 are three batches: to choose sigma on, to compare with, to compare clean with clean."""
    if {"C1", "C2"} & set(claims):
        return ["parameters"] * len(frame)
    if spec.trigger is not None:
        return ["suspect"] * len(frame)
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
    for claim in recipe.claims:
        cells = plan(recipe, [claim])
        done = sum(is_done(out / "records", cell.name) for cell in cells)
        rows.append({"claim": claim, "cells_done": done, "cells": len(cells)})
    return pd.DataFrame(rows)


def network_label(spec: NetworkSpec) -> str:
    """A network's name in tables and figures, unique within a study."""
    poisoning = f"{spec.threat.name} {spec.trigger}" if spec.threat else "clean"
    return f"{poisoning}, {spec.architecture}, seed {spec.seed}"


def parameter_sigma(tables: Tables) -> float:
    """The sigma at which C1 is judged and drawn: where clean W spreads most at the recipe's number of draws."""
    rows = tables.batches[tables.batches.claims.str.contains("C1") & (tables.batches.draws == tables.recipe.draws)]
    return float(rows.sigma[rows["std"].idxmax()])


def claims_done(tables: Tables) -> Iterator[str]:
    """Claims whose cells are all recorded."""
    for row in tables.status.itertuples():
        if row.cells_done == row.cells:
            yield str(row.claim)
