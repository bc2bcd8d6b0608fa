"""Findings on C5 to C9 and X1 to X3: backdoor strength, detection, and other smooth patterns."""

import pandas as pd

from wobbliness.study.claims.verdicts import (
    MAX_CORRELATION,
    MAX_CORRELATION_PVALUE,
    MAX_SMOOTHER_PVALUE,
    MAX_UNIVERSAL_AUC,
    MIN_CANDIDATE_SHARE,
    MIN_DETECTION_AUC,
    REPORTED,
    Claim,
    Finding,
    settings_of,
    verdict,
)
from wobbliness.study.specs.cleanse import CANDIDATES
from wobbliness.study.tables.comparisons import full_batches
from wobbliness.study.tables.curves import (
    ACTIVE,
    CRAFTED,
    IMPLANTED_FIRST,
    IMPLANTED_SMALLEST,
    TRAINED,
    UNIVERSAL,
    UNIVERSAL_TARGETED,
    Question,
)
from wobbliness.study.tables.tables import Tables


def find_correlation(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C5 and C6: the correlation of W and backdoor accuracy."""
    rows = tables.correlations[tables.correlations.claim == claim.id]
    # the verdict is at the sigma that clean points choose; the others are listed only
    row = rows[rows.is_chosen].iloc[0]
    others = [
        f"{other.tau:.2f}, {other.r:.2f} at {other.sigma:g}"
        for other in rows.itertuples()
        if not other.is_chosen
    ]
    ours = (
        f"tau {row.tau:.2f} [{row.tau_lower:.2f}, {row.tau_upper:.2f}] (p {row.tau_pvalue:.1g}), "
        f"Pearson {row.r:.2f} [{row.r_lower:.2f}, {row.r_upper:.2f}] (p {row.r_pvalue:.1g}) over "
        f"{row.num_backdoors} backdoors, {row.num_left_out} left out; at the other sigmas "
        f"{'; '.join(others)}"
    )
    holds = (
        max(row.tau, row.r) <= MAX_CORRELATION
        and max(row.tau_pvalue, row.r_pvalue) < MAX_CORRELATION_PVALUE
    )
    here = tables.strength[tables.strength.claim == claim.id]
    unit = "pairs of network and class" if claim.id == "C6" else "networks"
    settings = (
        f"{len(here) // here.sigma.nunique()} {unit}, {here.num_points.iloc[0]} points each, sigma "
        f"{row.sigma:g}"
    )
    return Finding(
        claim=claim, ours=ours, verdict=verdict(bool(holds)), settings=settings_of(tables, settings)
    )


def find_c7(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C7: Levene's test as in the paper, and the directional one.

    An active trigger counts if it functions.
    """
    rows, trained = _chosen_areas(tables, ACTIVE), _chosen_areas(tables, TRAINED)
    if rows.empty:
        return Finding(
            claim=claim,
            ours="no backdoor was learnt",
            verdict=verdict(False),
            settings=settings_of(tables, ""),
        )
    # TRAINED has all active triggers, ACTIVE those that function
    num_failed = trained.num_positives.iloc[0] - rows.num_positives.iloc[0]
    return Finding(
        claim=claim,
        ours=f"{_areas(rows)}; with the {num_failed} triggers that do not function among the "
        f"positives: {_areas(trained)}",
        verdict=verdict(bool(rows.auc["levene"] >= MIN_DETECTION_AUC)),
        settings=settings_of(
            tables,
            _sizes(rows, "functioning", "other") + f" of {tables.recipe.detection_points} points",
        ),
    )


def find_c8(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C8: universal perturbations, untargeted and targeted."""
    rows, targeted = _chosen_areas(tables, UNIVERSAL), _chosen_areas(tables, UNIVERSAL_TARGETED)
    fooled = tables.universals.groupby("pattern", sort=False)[
        ["bound", "fooling_rate_on_test"]
    ].mean()
    listed = ", ".join(
        f"{name} (bound {row.bound:g}): {row.fooling_rate_on_test:.0%}"
        for name, row in fooled.iterrows()
    )
    ours = (
        f"{_areas(rows)}; targeted: {_areas(targeted)}; mean fooling rate on test points: {listed}"
    )
    return Finding(
        claim=claim,
        ours=ours,
        verdict=verdict(bool(rows.auc["directional"] < MAX_UNIVERSAL_AUC)),
        settings=settings_of(
            tables,
            _sizes(rows, "perturbed", "clean") + f" of {tables.recipe.detection_points} points",
        ),
    )


def find_c9(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C9: both forms of candidates, on clean and backdoored networks."""
    smooth = _candidate_tests(tables)
    found = tables.candidates[tables.candidates.found.astype(bool)]
    parts = []
    for form, kind in CANDIDATES.items():
        rows, made = smooth[smooth.kind == kind], found[found.form == form]
        groups = {"clean": rows[~rows.is_poisoned], "backdoored": rows[rows.is_poisoned]}
        shares = ", ".join(
            f"{name} networks {group.is_smooth.mean():.0%} of {len(group)}"
            for name, group in groups.items()
        )
        parts.append(
            f"{form} masks: directional p below {MAX_SMOOTHER_PVALUE:g} on {shares}; Levene's, "
            f"which is blind to the sign, on {_levene_share(tables, kind):.0%}; mean W "
            f"{rows.suspect_mean.mean():.3f}, clean {rows.clean_mean.mean():.3f}; "
            f"{made.success_on_train.mean():.1%} of training points sent to the class (least "
            f"{made.success_on_train.min():.1%}), mean mask {made.mask_l1.mean():.1f} pixels"
        )
    # a class without a candidate has one row for each form
    num_failed = int((~tables.candidates.found.astype(bool)).sum() / len(CANDIDATES))
    flagged = tables.candidates[
        (tables.candidates.form == "smallest") & tables.candidates.is_flagged
    ]
    true = int((flagged.is_attackers_class).sum())
    ours = "; ".join(parts) + (
        f"; {num_failed} classes without a candidate; anomaly index above 2: {true} of the "
        f"attacker's classes and {len(flagged) - true} others; "
        f"{_areas(_chosen_areas(tables, CRAFTED))} against clean batches"
    )
    # C9 is decided by the first successes, on both kinds of networks
    first = smooth[smooth.kind == CANDIDATES["first"]].groupby("is_poisoned").is_smooth.mean()
    success = found[found.form == "first"].success_on_train.mean()
    settings = (
        f"{tables.candidates.network.nunique()} networks, {smooth.num_points.iloc[0]} points a "
        "candidate"
    )
    return Finding(
        claim=claim,
        ours=ours,
        verdict=verdict(
            bool((first >= MIN_CANDIDATE_SHARE).all() and success >= MIN_CANDIDATE_SHARE)
        ),
        settings=settings_of(tables, settings),
    )


def find_noise_response(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on X1: sensitivity to images of noise alone.

    Erichson et al. (2021).
    """
    means = tables.response.groupby(["level", "is_poisoned"])[
        ["confident_share", "entropy_of_classes"]
    ].mean()
    listed = "; ".join(
        f"level {level:g}: confident answers {rows.confident_share.get(False, float('nan')):.0%} "
        f"clean, {rows.confident_share.get(True, float('nan')):.0%} backdoored, entropy of the "
        f"classes {rows.entropy_of_classes.get(False, float('nan')):.2f} and "
        f"{rows.entropy_of_classes.get(True, float('nan')):.2f} nats"
        for level, rows in ((level, rows.droplevel(0)) for level, rows in means.groupby(level=0))
    )
    counts = tables.response.drop_duplicates("network").is_poisoned.value_counts()
    settings = (
        f"{counts.get(False, 0)} clean and {counts.get(True, 0)} backdoored networks, "
        "confident: top softmax score at least 0.95"
    )
    return Finding(
        claim=claim, ours=listed, verdict=REPORTED, settings=settings_of(tables, settings)
    )


def find_implanted(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on X2: implanted triggers against Neural Cleanse candidates.

    The candidates are of other classes on the same networks.
    """
    parts, sizes = [], ""
    for question in (IMPLANTED_FIRST, IMPLANTED_SMALLEST):
        rows = _chosen_areas(tables, question)
        if len(rows):
            parts.append(f"against {question.negatives[0]}: {_areas(rows)}")
            sizes = _sizes(rows, "implanted", "candidate")
    return Finding(
        claim=claim,
        ours="; ".join(parts) or "no candidates",
        verdict=REPORTED,
        settings=settings_of(tables, sizes),
    )


def find_single_inputs(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on X3: every input by itself, network by network."""
    listed = "; ".join(
        f"{score} {_spread(rows[rows.is_chosen].auc)} at the chosen sigma"
        + (
            f", {_spread(rows.groupby('network').auc.max())} at each network's best"
            if score == "W"
            else ""
        )
        for score, rows in tables.inputs.groupby("score", sort=False)
    )
    size = tables.inputs.iloc[0]
    settings = (
        f"{tables.inputs.network.nunique()} networks, {size.num_positives} triggered "
        f"and {size.num_negatives} clean points each"
    )
    return Finding(
        claim=claim,
        ours=f"mean AUC {listed}",
        verdict=REPORTED,
        settings=settings_of(tables, settings),
    )


def _candidate_tests(tables: Tables) -> pd.DataFrame:
    """Returns the tests of all candidates at the sigma chosen for the directional test."""
    rows = full_batches(tables.tests)
    rows = rows[rows.kind.isin(CANDIDATES.values()) & rows.directional_pvalue_chosen]
    # the table of tests does not say which networks are poisoned
    poisoned = tables.networks.network[tables.networks.threat != "clean"]
    return rows.assign(
        is_smooth=rows.directional_pvalue < MAX_SMOOTHER_PVALUE,
        is_poisoned=rows.network.isin(poisoned),
    )


def _levene_share(tables: Tables, kind: str) -> float:
    """Computes the share of candidates that Levene's test finds, at its chosen sigma."""
    rows = full_batches(tables.tests)
    return float(
        (
            rows[(rows.kind == kind) & rows.levene_pvalue_chosen].levene_pvalue
            < MAX_SMOOTHER_PVALUE
        ).mean()
    )


def _chosen_areas(tables: Tables, question: Question) -> pd.DataFrame:
    rows = tables.roc[(tables.roc.question == question.name) & (tables.roc.sigma == "chosen")]
    return rows.set_index("test")


def _areas(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "no batches"
    return "AUC " + ", ".join(
        f"{test} {row.auc:.2f} [{row.auc_lower:.2f}, {row.auc_upper:.2f}]"
        for test, row in rows.iterrows()
    )


def _sizes(rows: pd.DataFrame, positives: str, negatives: str) -> str:
    row = rows.iloc[0]
    return f"{row.num_positives} {positives} and {row.num_negatives} {negatives} batches"


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
