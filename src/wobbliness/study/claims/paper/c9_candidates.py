"""C9: W around Neural Cleanse's candidate triggers (section 3.2.4)."""

from collections.abc import Iterator

import pandas as pd

from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import MAX_SMOOTHER_PVALUE, areas_text, chosen_areas
from wobbliness.study.specs.cleanse import CANDIDATES
from wobbliness.study.tables.comparisons import full_batches
from wobbliness.study.tables.curves import CRAFTED
from wobbliness.study.tables.tables import Tables

# share of candidates, and of their success on training data
MIN_CANDIDATE_SHARE = 0.95


def find(tables: Tables) -> Answer:
    """Tests both forms of candidates, on clean and backdoored networks."""
    smooth, found = _tests(tables), tables.candidates[tables.candidates.found.astype(bool)]
    # it is decided by the first successes, on both kinds of networks
    first = smooth[smooth.kind == CANDIDATES["first"]].groupby("is_poisoned").is_smooth.mean()
    success = found[found.form == "first"].success_on_train.mean()
    forms = (
        text
        for form, kind in CANDIDATES.items()
        for text in _of_form(tables, form, smooth[smooth.kind == kind], found[found.form == form])
    )
    return Answer(
        statements=(*forms, *_over_forms(tables)),
        holds=bool((first >= MIN_CANDIDATE_SHARE).all() and success >= MIN_CANDIDATE_SHARE),
        settings=f"{tables.candidates.network.nunique()} networks, {smooth.num_points.iloc[0]} "
        "points a candidate",
        summary=_summary(smooth[smooth.kind == CANDIDATES["first"]], success),
        number=f"{100 * first.min():.0f} %",
        plot=_plot(smooth),
    )


def _shares(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Returns whether each candidate is smooth, on clean and on backdoored networks."""
    return {
        "clean": rows.is_smooth[~rows.is_poisoned],
        "backdoored": rows.is_smooth[rows.is_poisoned],
    }


def _summary(rows: pd.DataFrame, success: float) -> str:
    shares = " and ".join(
        f"{found.mean():.0%} of {len(found)} candidates on {name} networks"
        for name, found in _shares(rows).items()
        if len(found)
    )
    return (
        f"{shares} are smooth (directional p below {MAX_SMOOTHER_PVALUE:g}), and {success:.1%} of "
        "training points are sent to the class"
    )


def _plot(smooth: pd.DataFrame) -> SmallPlot:
    """Returns the share of smooth candidates, by form and kind of network."""
    by_form = {form: _shares(smooth[smooth.kind == kind]) for form, kind in CANDIDATES.items()}
    return SmallPlot(
        quantity="share of smooth candidates",
        over="masks",
        ticks=tuple(f"{form} masks" for form in by_form),
        series=tuple(
            Series(name=name, values=tuple(shares[name].mean() for shares in by_form.values()))
            for name in ("clean", "backdoored")
        ),
        bounds=(0, 1),
        limit=MIN_CANDIDATE_SHARE,
        joined=False,
    )


def _of_form(tables: Tables, form: str, rows: pd.DataFrame, found: pd.DataFrame) -> tuple[str, ...]:
    """Returns the statements on one form of candidates."""
    groups = {"clean": rows[~rows.is_poisoned], "backdoored": rows[rows.is_poisoned]}
    shares = ", ".join(
        f"{name} networks {group.is_smooth.mean():.0%} of {len(group)}"
        for name, group in groups.items()
    )
    return (
        f"{form} masks: directional p below {MAX_SMOOTHER_PVALUE:g} on {shares}",
        f"Levene's, which is blind to the sign, on {_levene_share(tables, CANDIDATES[form]):.0%}",
        f"mean W {rows.suspect_mean.mean():.3f}, clean {rows.clean_mean.mean():.3f}",
        f"{found.success_on_train.mean():.1%} of training points sent to the class (least "
        f"{found.success_on_train.min():.1%}), mean mask {found.mask_l1.mean():.1f} pixels",
    )


def _over_forms(tables: Tables) -> Iterator[str]:
    """Yields the statements on all candidates together."""
    candidates = tables.candidates
    # a class without a candidate has one row for each form
    num_failed = int((~candidates.found.astype(bool)).sum() / len(CANDIDATES))
    yield f"{num_failed} classes without a candidate"
    flagged = candidates[(candidates.form == "smallest") & candidates.is_flagged]
    true = int(flagged.is_attackers_class.sum())
    others = len(flagged) - true
    yield f"anomaly index above 2: {true} of the attacker's classes and {others} others"
    yield f"{areas_text(chosen_areas(tables, CRAFTED))} against clean batches"


def _tests(tables: Tables) -> pd.DataFrame:
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
    rows = rows[(rows.kind == kind) & rows.levene_pvalue_chosen]
    return float((rows.levene_pvalue < MAX_SMOOTHER_PVALUE).mean())


CLAIM = Claim(
    id="C9",
    topic="Crafted candidates are smooth too",
    claim="Neural Cleanse candidates, one per class, are smooth on clean and backdoored networks "
    "alike: a backdoor is not necessary for backdoor smoothing",
    paper="all found smooth with the same very low p; on training data each sends 100 % to its "
    "class (section 3.2.4)",
    rule=f"at least {MIN_CANDIDATE_SHARE:.0%} of the candidates at their success threshold have "
    f"directional p below {MAX_SMOOTHER_PVALUE:g}, on clean networks as on backdoored ones, and "
    f"send at least {MIN_CANDIDATE_SHARE:.0%} of training points to their class",
    find=find,
    quantity="share of candidates that are smooth, the smaller one of clean and of backdoored "
    "networks",
    wanted=f"share ≥ {100 * MIN_CANDIDATE_SHARE:.0f} %",
    tables=("candidates", "roc"),
)
