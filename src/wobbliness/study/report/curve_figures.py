"""Figures 5 to 7 of the paper and further ones: correlations, ROC curves, controls."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import BLUE, GREEN, ORANGE, PINK, RED, TEST_STYLES, side_by_side
from wobbliness.study.tables.comparisons import PVALUE_COLUMNS
from wobbliness.study.tables.curves import (
    ACTIVE,
    ACTIVE_PANELS,
    IMPLANTED_PANELS,
    UNIVERSAL_PANELS,
    Question,
    area_text,
    question_curve,
)
from wobbliness.study.tables.tables import Tables

COLOUR_CYCLE = (ORANGE, BLUE, GREEN, PINK, RED)


def draw_strength(tables: Tables) -> Figure:
    """Draws Fig. 5: mean W of triggered points over backdoor accuracy.

    One dot is a network (C5) or a network's class (C6).
    """
    claims = [claim for claim in ("C5", "C6") if (tables.correlations.claim == claim).any()]
    figure, axes = side_by_side(len(claims))
    for axis, claim in zip(axes, claims, strict=True):
        found = tables.correlations[
            (tables.correlations.claim == claim) & tables.correlations.is_chosen
        ].iloc[0]
        rows = tables.strength[
            (tables.strength.claim == claim) & (tables.strength.sigma == found.sigma)
        ]
        for (name, group), marker, colour in zip(
            rows.groupby("trigger", sort=False), "o^sDv", COLOUR_CYCLE, strict=False
        ):
            kept = group[group.is_learnt]
            axis.scatter(
                kept.backdoor_accuracy,
                kept.mean_w,
                s=14,
                marker=marker,
                color=colour,
                label=f"trigger {name}",
            )
            # hollow: below random guess, left out of the correlation
            left_out = group[~group.is_learnt]
            axis.scatter(
                left_out.backdoor_accuracy,
                left_out.mean_w,
                s=14,
                marker=marker,
                facecolors="none",
                edgecolors=colour,
            )
        axis.set(
            xlim=(-0.02, 1.02),
            xlabel="backdoor accuracy",
            ylabel="mean W (nats)",
            title=f"{claim}, sigma {found.sigma:g}: tau {found.tau:.2f}, r {found.r:.2f}",
        )
        axis.legend(frameon=False, fontsize=7)
    return figure


def draw_roc(tables: Tables) -> Figure:
    """Draws Fig. 6, for each test, at each network's chosen sigma."""
    return _rocs(tables, ACTIVE_PANELS, width=4.2)


def draw_roc_sigma(tables: Tables) -> Figure:
    """Draws the area under the ROC curve over the whole grid of sigmas.

    Nothing is tuned on the labels.
    """
    figure, axes = side_by_side(1, width=4.2)
    rows = tables.roc[(tables.roc.sigma != "chosen") & (tables.roc.question == ACTIVE.name)]
    grid = sorted(rows.sigma.unique(), key=float)
    for offset, test in enumerate(PVALUE_COLUMNS):
        here = rows[rows.test == test].set_index("sigma").loc[grid]
        errors = np.abs(np.stack([here.auc - here.auc_lower, here.auc_upper - here.auc]))
        colour, line = TEST_STYLES[test]
        # tests side by side, or their intervals would cover each other
        positions = np.arange(len(grid)) + 0.08 * (offset - 1)
        axes[0].errorbar(
            positions,
            here.auc,
            errors,
            color=colour,
            linestyle=line,
            marker="o",
            markersize=3,
            capsize=2,
            label=test,
        )
    axes[0].axhline(0.5, color="grey", linestyle=":")
    axes[0].set(ylim=(0, 1.02), ylabel="AUC", xlabel="sigma (pixel units)")
    axes[0].set_xticks(range(len(grid)), grid)
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def draw_universal(tables: Tables) -> Figure:
    """Draws Fig. 7, and the targeted form."""
    return _rocs(tables, UNIVERSAL_PANELS)


def draw_implanted(tables: Tables) -> Figure:
    """Draws implanted triggers against Neural Cleanse candidates of other classes."""
    return _rocs(tables, IMPLANTED_PANELS)


def draw_controls(tables: Tables) -> Figure:
    """Draws the negative controls.

    How often each test fires on pairs without an active trigger.
    """
    figure, axes = side_by_side(1, width=6.4)
    kinds = list(dict.fromkeys(tables.controls.pairs))
    for offset, test in enumerate(PVALUE_COLUMNS):
        rows = tables.controls[tables.controls.test == test].set_index("pairs").loc[kinds]
        errors = np.abs(np.stack([rows.estimate - rows.lower, rows.upper - rows.estimate]))
        positions = np.arange(len(kinds)) + 0.15 * (offset - 1)
        axes[0].errorbar(
            positions,
            rows.estimate,
            errors,
            fmt="o",
            color=TEST_STYLES[test][0],
            capsize=2,
            label=test,
        )
    axes[0].axhline(
        tables.controls.level.iloc[0], color="grey", linestyle=":", label="stated level"
    )
    axes[0].set(ylim=(0, 1), ylabel="share of pairs with p at most the level")
    axes[0].set_xticks(range(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds])
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _rocs(tables: Tables, panels: Mapping[str, Question], *, width: float | None = None) -> Figure:
    figure, axes = side_by_side(len(panels), width=width)
    for axis, (title, question) in zip(axes, panels.items(), strict=True):
        _roc(axis, tables, question, title)
    return figure


def _roc(axis: Axes, tables: Tables, question: Question, title: str) -> None:
    axis.plot([0, 1], [0, 1], ":", color="grey", label="random guess")
    for test, (colour, line) in TEST_STYLES.items():
        curve = question_curve(tables.tests, question, test, None)
        if curve is not None:
            label = f"{test}: {area_text(curve)}"
            axis.plot(
                curve.false_positive_rate, curve.true_positive_rate, line, color=colour, label=label
            )
    axis.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axis.legend(frameon=False, fontsize=7, loc="best")
