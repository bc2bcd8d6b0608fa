"""Figures 1 to 4 of the paper from the tables of a study: votes around a point, box plots of W."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wobbliness.attacks.patch import trigger
from wobbliness.reports.plot_style import BLUE, GREEN, ORANGE, draw_boxes, label_boxes, side_by_side
from wobbliness.study.recipes import PAPER_TRIGGERS
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables, parameter_sigma


def draw_noise_ball(tables: Tables) -> Figure:
    """Draws Fig. 1: the votes around one clean and one triggered point, by sigma."""
    figure, axes = side_by_side(2)
    grid = sorted(tables.example.sigma.unique())
    classes = sorted(tables.example["class"].unique())
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(classes)))
    for axis, kind in zip(axes, ("clean", "active"), strict=True):
        rows = tables.example[tables.example.kind == kind]
        votes = rows.pivot(index="sigma", columns="class", values="votes").loc[grid]
        floor = np.zeros(len(grid))
        for name, shade in zip(classes, shades, strict=True):
            axis.bar(
                range(len(grid)),
                votes[name],
                bottom=floor,
                color=shade,
                edgecolor="white",
                linewidth=0.4,
                label=name,
            )
            floor += votes[name].to_numpy()
        axis.set(
            xlabel="sigma (pixel units)",
            ylabel="votes",
            title=f"a point of class {rows.label.iloc[0]}, {kind}",
        )
        axis.set_xticks(range(len(grid)), [f"{sigma:g}" for sigma in grid])
    axes[-1].legend(
        title="class named",
        frameon=False,
        fontsize=6,
        title_fontsize=7,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return figure


def draw_draws(tables: Tables) -> Figure:
    """Draws Fig. 2 left, at the sigma chosen on clean data, with the Miller-Madow means."""
    points = of_claims(tables.points, "C1")
    sigma = parameter_sigma(tables)
    points = points[points.sigma == sigma]
    figure, axes = side_by_side(1)
    grid = sorted(points.draws.unique())
    draw_boxes(
        axes[0],
        [points[points.draws == draws].wobbliness for draws in grid],
        range(len(grid)),
        BLUE,
    )
    corrected = [points[points.draws == draws].miller_madow.mean() for draws in grid]
    axes[0].plot(
        range(len(grid)), corrected, "D:", color="black", markersize=3, label="mean, Miller-Madow"
    )
    label_boxes(
        axes[0], "draws n", [str(draws) for draws in grid], f"clean points, sigma {sigma:g}"
    )
    # boxes fill the axes
    axes[0].legend(
        frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0
    )
    return figure


def draw_sigma(tables: Tables) -> Figure:
    """Draws Fig. 2 right."""
    points = of_claims(tables.points, "C2")
    figure, axes = side_by_side(1)
    grid = sorted(points.sigma.unique())
    draw_boxes(
        axes[0],
        [points[points.sigma == sigma].wobbliness for sigma in grid],
        range(len(grid)),
        BLUE,
    )
    label_boxes(axes[0], "sigma (pixel units)", [f"{sigma:g}" for sigma in grid], "clean points")
    return figure


def draw_triggers(tables: Tables) -> Figure:  # noqa: ARG001
    """Draws Fig. 3: the six triggers.

    Every figure is drawn from the tables; this one needs none of them.
    """
    figure = Figure(figsize=(6.4, 1.5), layout="constrained")
    for axis, name in zip(
        np.ravel(figure.subplots(1, len(PAPER_TRIGGERS))), PAPER_TRIGGERS, strict=True
    ):
        picture = trigger(name).apply(np.full((1, 1, 8, 8), 0.4, np.float32))[0, 0]
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[], title=name)
    return figure


def draw_effect(tables: Tables) -> Figure:
    """Draws Fig. 4: clean points against the active and the inactive trigger.

    On the first network.
    """
    points = of_claims(tables.points, "C3", "C4")
    points = points[points.network == points.network.iloc[0]]
    figure, axes = side_by_side(2)
    grid = sorted(points.sigma.unique())
    for axis, kind, colour in zip(axes, ("active", "inactive"), (ORANGE, GREEN), strict=True):
        clean, suspect = points[points.batch == "clean"], points[points.kind == kind]
        for batch, offset, shade in ((clean, -0.2, BLUE), (suspect, 0.2, colour)):
            series = [batch[batch.sigma == sigma].wobbliness for sigma in grid]
            draw_boxes(axis, series, np.arange(len(grid)) + offset, shade, width=0.34)
        label_boxes(
            axis,
            "sigma (pixel units)",
            [f"{sigma:g}" for sigma in grid],
            f"clean (blue) and {kind} trigger {suspect.trigger.iloc[0]}",
        )
    return figure
