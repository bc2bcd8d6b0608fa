"""Tables of a study, formed from its records. Every number that is quoted anywhere is formed here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wobbliness.detection import BatchTest, choose_sigma, directional_pvalue, levene_pvalue, levene_pvalue_all_points
from wobbliness.entropy import miller_madow_entropy, plug_in_entropy
from wobbliness.statistics import RocCurve, levene_test, mann_whitney_test, rate, roc_curve
from wobbliness.study.recipes import CLEAN_BATCHES, MeasureSpec, NetworkSpec, Recipe, cell_name, plan
from wobbliness.study.records import Record, is_done, read_recipe, read_record

PAPER_BATCH = 25  # points of each batch in the paper's Fig. 4
LEVEL = 0.05  # of the negative controls
TESTS: dict[str, BatchTest] = {
    "levene": levene_pvalue,
    "levene, all points": levene_pvalue_all_points,
    "directional": directional_pvalue,
}
"""The three tests by the name they bear in tables and figures. Each is judged at the sigma chosen for it on clean points."""

PVALUE_COLUMNS = {
    "levene": "levene_pvalue",
    "levene, all points": "levene_pvalue_all_points",
    "directional": "directional_pvalue",
}
CHOSEN_COLUMNS = {test: f"{column}_chosen" for test, column in PVALUE_COLUMNS.items()}
"""Columns of the table of tests: p-value, and whether its row's sigma is the one chosen for that test on that network."""

WORKS = 0.5  # share of attacker's labels from which a trigger counts as working, trained on or not

CONTROL_KINDS = (
    "clean against clean",
    "clean network, trigger",
    "poisoned network, other trigger",
    "poisoned network, other trigger that works",
)

SIGMA_KEYS = ["claims", "network", "batch_size"]
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
    sigma = _sigma(points)
    tests = _tests(points, sigma)
    return Tables(
        recipe=recipe,
        networks=networks,
        points=points,
        batches=_batches(points),
        sigma=sigma,
        tests=tests,
        roc=_roc(tests),
        controls=_controls(points, sigma, recipe),
        status=_status(out, recipe),
    )


def detection_curve(tests: pd.DataFrame, test: str, sigma: float | None) -> RocCurve:
    """ROC curve of one test over the batches of C7: active triggers against clean and other triggers' batches.

    Args:
        tests: the table of that name.
        test: a key of PVALUE_COLUMNS.
        sigma: one of the grid, or None for the one chosen for this test on each network.
    """
    rows = full_batches(tests[tests.claims.str.contains("C7")])
    rows = rows[rows[CHOSEN_COLUMNS[test]]] if sigma is None else rows[rows.sigma == sigma]
    smallest = np.finfo(float).tiny  # p = 0 by underflow
    return roc_curve(rows.kind == "active", -np.log(rows[PVALUE_COLUMNS[test]].clip(lower=smallest)))


def full_batches(tests: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table of tests that compare whole batches, not the paper's smaller ones."""
    return tests[tests.num_points == tests.batch_size]


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


def _sigma(points: pd.DataFrame) -> pd.DataFrame:
    """Chosen on the calibration batch of each network, for each test."""
    rows: list[dict[str, object]] = []
    calibration = points[points.batch == "calibration"] if len(points) else points
    if calibration.empty:
        return pd.DataFrame(columns=[*SIGMA_KEYS, "test", "sigma", "power", "reached"])
    for keys, group in calibration.groupby(SIGMA_KEYS, sort=False):
        clean_w = {sigma: rows.wobbliness.to_numpy() for sigma, rows in group.groupby("sigma")}
        for name, test in TESTS.items():
            choice = choose_sigma(clean_w, batch_size=keys[-1], test=test)
            rows.append(dict(zip(SIGMA_KEYS, keys, strict=True)) | {"test": name, **vars(choice)})
    return pd.DataFrame(rows)


def _tests(points: pd.DataFrame, sigma: pd.DataFrame) -> pd.DataFrame:
    """Each suspect batch, and the second clean one, against the clean batch of its network, where both are recorded."""
    rows: list[dict[str, object]] = []
    if points.empty:
        return points
    for (network, batch_size, at), group in points.groupby(["network", "batch_size", "sigma"], sort=False):
        clean = group[group.batch == "clean"].wobbliness.to_numpy()
        if clean.size == 0:
            continue
        chosen = sigma[(sigma.network == network) & (sigma.batch_size == batch_size)].set_index("test").sigma
        keys = {"network": network, "batch_size": batch_size, "sigma": at}
        keys |= {column: bool(chosen[test] == at) for test, column in CHOSEN_COLUMNS.items()}
        rows += [keys | row for row in _suspect_rows(clean, group)]
    return pd.DataFrame(rows)


def _suspect_rows(clean: np.ndarray, group: pd.DataFrame) -> Iterator[dict[str, object]]:
    suspects = group[group.batch.isin(["suspect", "second clean"])]
    names = ["claims", "batch", "trigger", "kind"]
    for keys, suspect in suspects.groupby(names, sort=False):
        for size in sorted({min(PAPER_BATCH, clean.size), clean.size}):
            test = _test(clean[:size], suspect.wobbliness.to_numpy()[:size])
            yield dict(zip(names, keys, strict=True)) | test


def _test(clean: np.ndarray, suspect: np.ndarray) -> dict[str, object]:
    levene, directional = levene_test(clean, suspect), mann_whitney_test(clean, suspect)
    return {
        "num_points": len(clean),
        "clean_mean": float(clean.mean()),
        "suspect_mean": float(suspect.mean()),
        "levene_pvalue": levene.pvalue,
        "num_removed_clean": levene.num_removed_clean,
        "num_removed_suspect": levene.num_removed_suspect,
        "levene_pvalue_all_points": levene.pvalue_all_points,
        "directional_pvalue": directional.pvalue,
        "effect_size": directional.effect_size,
    }


def _roc(tests: pd.DataFrame) -> pd.DataFrame:
    detection = tests[tests.claims.str.contains("C7")] if len(tests) else tests
    if detection.empty or detection.kind.nunique() < 3:
        return pd.DataFrame()
    rows = []
    for sigma in [*sorted(detection.sigma.unique()), None]:
        for test in PVALUE_COLUMNS:
            curve = detection_curve(tests, test, sigma)
            keys = {"sigma": "chosen" if sigma is None else str(sigma), "test": test}
            bounds = {name: getattr(curve, name) for name in ("auc", "auc_lower", "auc_upper", "num_positives", "num_negatives")}
            rows.append({**keys, **bounds})
    return pd.DataFrame(rows)


def _controls(points: pd.DataFrame, sigma: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Random pairs of batches without an active trigger, at the sigma chosen for each test: how often is p below the level?"""
    rows = []
    for test, pvalue in TESTS.items():
        pools = _control_pools(points, sigma[sigma.test == test]) if len(points) else []
        for kind in dict.fromkeys(kind for kind, _, _ in pools):
            pairs = _random_pairs([(clean, suspect) for name, clean, suspect in pools if name == kind], recipe)
            num_below = sum(pvalue(clean, suspect) <= LEVEL for clean, suspect in pairs)
            below = rate(num_below, recipe.control_pairs)
            rows.append({"pairs": kind, "test": test, "level": LEVEL, "batch_size": recipe.control_points, **vars(below)})
    return pd.DataFrame(rows)


def _control_pools(points: pd.DataFrame, sigma: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """(kind of pair, W of clean points, W of triggered points or None for clean against clean) of each network and trigger."""
    pools: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    for row in sigma.itertuples():
        here = points[(points.network == row.network) & (points.batch_size == row.batch_size) & (points.sigma == row.sigma)]
        clean = here[here.kind == "clean"].wobbliness.to_numpy()
        pools.append(("clean against clean", clean, None))
        for _, group in here[here.kind == "inactive"].groupby("trigger", sort=False):
            pools.append((_inactive_kind(group), clean, group.wobbliness.to_numpy()))
    return sorted(pools, key=lambda pool: CONTROL_KINDS.index(pool[0]))


def _inactive_kind(batch: pd.DataFrame) -> str:
    """Some patterns set off a backdoor that was planted with another one: they are untrained, but hardly inactive."""
    success = batch.accuracy_on_attacker_labels.iloc[0]
    if success is None or np.isnan(success):
        return CONTROL_KINDS[1]
    return CONTROL_KINDS[3] if success >= WORKS else CONTROL_KINDS[2]


def _random_pairs(pools: list[tuple[np.ndarray, np.ndarray | None]], recipe: Recipe) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed))
    for index in range(recipe.control_pairs):
        clean, suspect = pools[index % len(pools)]
        size = min(recipe.control_points, len(clean) // 2 if suspect is None else min(len(clean), len(suspect)))
        drawn = rng.permutation(clean)
        yield drawn[:size], drawn[size : 2 * size] if suspect is None else rng.permutation(suspect)[:size]


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
