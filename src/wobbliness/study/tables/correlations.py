"""Correlation of mean W of triggered points and backdoor accuracy (C5, C6; section 3.2.3).

C5 compares networks, C6 classes.
"""

import numpy as np
import pandas as pd

from wobbliness.detectors.inputs.noise_level import choose_sigma
from wobbliness.statistics.bootstrap import kendall_bootstrap, pearson_bootstrap
from wobbliness.statistics.two_sample import kendall, pearson
from wobbliness.study.tables.membership import of_claims

CLAIMS = ("C5", "C6")
MIN_BACKDOORS = 3  # points that a correlation needs
MAX_BACKDOORS = 5_000  # Kendall's bootstrap takes memory for all their pairs


def strengths(points: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per backdoor and sigma: its accuracy, and mean W of points that bear it.

    A backdoor is a network (C5), or a network and class (C6).

    `is_learnt` tells the backdoors at or above random guess, which the paper keeps.
    """
    if points.empty:
        return points
    frames = []
    for claim, keys, accuracy in (
        ("C5", [], "accuracy_on_attacker_labels"),
        ("C6", ["label"], "attacker_labels_of_class"),
    ):
        rows = of_claims(points, claim)
        rows = rows[rows.kind == "active"]
        if len(rows):
            groups = rows.groupby(["network", "trigger", "sigma", *keys], sort=False)
            frame = groups.agg(
                mean_w=("wobbliness", "mean"),
                num_points=("wobbliness", "size"),
                backdoor_accuracy=(accuracy, "first"),
            )
            frames.append(frame.reset_index().assign(claim=claim))
    if not frames:
        return pd.DataFrame()
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "claim", table.pop("claim"))
    return table.assign(is_learnt=table.backdoor_accuracy >= 1 / points.num_classes.iloc[0])


def correlations(strength: pd.DataFrame, points: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Computes Kendall's tau and Pearson's r at every sigma, with bootstrap intervals.

    Only the backdoors that were learnt count.

    `is_chosen` marks the sigma that the clean-only rule gives for the directional test on the clean
    points of all these networks.
    """
    rows = []
    for claim in CLAIMS if len(strength) else ():
        here = strength[strength.claim == claim]
        chosen = _pooled_sigma(points, claim) if len(here) else None
        for sigma, group in here.groupby("sigma"):
            if len(group) > MAX_BACKDOORS:
                raise ValueError(
                    f"expected at most {MAX_BACKDOORS} backdoors for {claim}, got {len(group)}"
                )
            kept = group[group.is_learnt]
            keys = {"claim": claim, "sigma": sigma, "is_chosen": sigma == chosen}
            rows.append(keys | {"num_left_out": len(group) - len(kept)} | _coefficients(kept, seed))
    return pd.DataFrame(rows)


def _pooled_sigma(points: pd.DataFrame, claim: str) -> float | None:
    clean = of_claims(points, claim)
    clean = clean[clean.batch == "calibration"]
    if clean.empty:
        return None
    # pooled over all networks: the correlation is over networks at one sigma
    clean_w = {float(sigma): group.wobbliness.to_numpy() for sigma, group in clean.groupby("sigma")}
    return choose_sigma(clean_w, batch_size=int(clean.batch_size.iloc[0])).sigma


def _coefficients(kept: pd.DataFrame, seed: int) -> dict[str, object]:
    accuracy, mean_w = kept.backdoor_accuracy.to_numpy(), kept.mean_w.to_numpy()
    # no correlation of too few points, or where one side is constant
    if len(kept) < MIN_BACKDOORS or np.ptp(accuracy) == 0 or np.ptp(mean_w) == 0:
        names = [
            f"{name}{end}" for name in ("tau", "r") for end in ("", "_pvalue", "_lower", "_upper")
        ]
        return {"num_backdoors": len(kept)} | dict.fromkeys(names, float("nan"))
    results: dict[str, object] = {"num_backdoors": len(kept)}
    for name, measure, bootstrap in (
        ("tau", kendall, kendall_bootstrap),
        ("r", pearson, pearson_bootstrap),
    ):
        found, (lower, upper) = measure(accuracy, mean_w), bootstrap(accuracy, mean_w, seed=seed)
        results |= {
            name: found.coefficient,
            f"{name}_pvalue": found.pvalue,
            f"{name}_lower": lower,
            f"{name}_upper": upper,
        }
    return results
