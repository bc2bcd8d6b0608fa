"""Data of the page's point browser (paper: Fig. 1).

A reader chooses a point, a pattern and the noise.
"""

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from wobbliness.attacks.patch import trigger
from wobbliness.statistics.two_sample import is_outlier
from wobbliness.study.plan import browser_networks
from wobbliness.study.recipes import PAPER_TRIGGERS
from wobbliness.study.tables.labels import class_names, network_label
from wobbliness.study.tables.tables import Tables

GREY = 0.4
# the class in the name of a candidate, or of a targeted universal perturbation (study/specs)
_TARGET = re.compile(
    r"(?<=^candidate )\d+(?=, )|(?<=^universal l2 to )\d+$|(?<=^universal linf to )\d+$"
)
# pixels of a stand-in where the records hold no picture; 28 for any other data set
IMAGE_SIDES = {"digits": 8}


def browser_data(tables: Tables) -> dict[str, Any] | None:
    """Returns votes, W with its interval, and box plots, by network, pattern, point and sigma.

    None where nothing is recorded.
    """
    rows = tables.explored
    if rows.empty:
        return None
    datasets = {network_label(spec): spec.dataset for spec in browser_networks(tables.recipe)}
    sigmas = sorted(rows.sigma.unique())
    network = tables.recipe.detection_networks or tables.recipe.effect_networks
    side = IMAGE_SIDES.get(network[0].dataset, 28)
    return {
        "sigmas": sigmas,
        "first_sigma": len(sigmas) // 2,
        "standins": {name: _pixels(name, side) for name in ("", *PAPER_TRIGGERS)},
        "standin_shape": {"height": side, "width": side, "channels": 1},
        "shape": tables.pictures[["height", "width", "channels"]].iloc[0].to_dict()
        if len(tables.pictures)
        else None,
        "networks": [
            _network(tables, str(name), of_network, datasets.get(str(name), ""))
            for name, of_network in rows.groupby("network", sort=False)
        ],
    }


def _network(tables: Tables, name: str, rows: pd.DataFrame, dataset: str) -> dict[str, Any]:
    points = tables.points[
        (tables.points.network == name) & tables.points.batch.isin(("clean", "suspect"))
    ]
    clean = _boxes(points[points.kind == "clean"])
    # networks of other numbers of classes have empty columns in a table of all
    num_classes = rows.filter(regex=r"^votes_").dropna(axis="columns", how="all").shape[1]
    classes = class_names(dataset, num_classes)
    groups = rows.groupby(["kind", "trigger"], sort=False)
    patterns = [
        _pattern(str(kind), str(trigger_name), of, points, clean)
        | {"name": _name(str(kind).partition(",")[0], with_class_names(str(trigger_name), classes))}
        for (kind, trigger_name), of in groups
    ]
    with_pattern = {
        point for pattern in patterns if pattern["kind"] != "clean" for point in pattern["points"]
    }
    # a study measured before the browser existed has its clean points elsewhere: say so
    for pattern in patterns:
        if (
            pattern["kind"] == "clean"
            and with_pattern
            and not with_pattern & set(pattern["points"])
        ):
            pattern["name"] += " (other test points)"
    pictures = tables.pictures[tables.pictures.network == name]
    return {
        "name": name,
        "classes": classes,
        "patterns": [pattern | {"pictures": _pictures(pattern, pictures)} for pattern in patterns],
    }


def _pictures(pattern: dict[str, Any], pictures: pd.DataFrame) -> list[str]:
    """Returns the pictures in the order of the pattern's points; the last ones may lack theirs."""
    here = (
        pictures[(pictures.kind == pattern["kind"]) & (pictures.trigger == pattern["trigger"])]
        .set_index("point")
        .pixels
    )
    return [here[point] for point in pattern["points"] if point in here.index]


def _pattern(
    kind: str,
    trigger_name: str,
    rows: pd.DataFrame,
    points: pd.DataFrame,
    clean: dict[float, list[float]],
) -> dict[str, Any]:
    family = kind.partition(",")[0]
    batch = (
        {}
        if kind == "clean"
        else _boxes(points[(points.kind == kind) & (points.trigger == trigger_name)])
    )
    points_shown, place = np.unique(rows.point, return_index=True)
    rank = dict(zip(points_shown, place, strict=True))  # of a point: where it first stands
    ordered = rows.iloc[np.lexsort([rows.sigma, rows.point.map(rank)])]
    num_sigmas = rows.sigma.nunique()
    first, shape = ordered.iloc[::num_sigmas], (-1, num_sigmas)
    votes, w = (
        ordered.filter(regex=r"^votes_").to_numpy(int),
        ordered[["wobbliness", "lower", "upper"]].to_numpy().round(6),
    )
    return {
        "short": family,
        "kind": kind,
        "trigger": trigger_name,
        "points": first.point.tolist(),
        "labels": first.label.tolist(),
        "votes": votes.reshape(*shape, votes.shape[1]).tolist(),
        "w": w.reshape(*shape, w.shape[1]).tolist(),
        "boxes": [
            {"clean": clean.get(sigma), "batch": batch.get(sigma)}
            for sigma in ordered.sigma.iloc[:num_sigmas]
        ],
    }


def _name(family: str, trigger_name: str) -> str:
    if family == "clean":
        return "none"
    return trigger_name if trigger_name.startswith(family) else f"{family}: {trigger_name}"


def with_class_names(pattern: str, classes: Sequence[str]) -> str:
    """Returns the name of a pattern with the name of the class that it leads to, if it has one.

    >>> with_class_names("candidate 1, first", ("cat", "dog"))
    'candidate dog, first'
    """
    return _TARGET.sub(
        lambda found: classes[int(found[0])] if int(found[0]) < len(classes) else found[0], pattern
    )


def _boxes(points: pd.DataFrame) -> dict[float, list[float]]:
    """Computes whisker, quartile, quartile, whisker and mean of W at each sigma.

    Of the largest batch.
    """
    largest = points[points.batch_size == points.batch_size.max()]
    return {
        float(str(sigma)): _box(group.wobbliness.to_numpy())
        for sigma, group in largest.groupby("sigma")
    }


def _box(w: np.ndarray) -> list[float]:
    q25, q75 = np.quantile(w, [0.25, 0.75])
    # whiskers as in the figures: the extremes that are no outliers
    inside = w[~is_outlier(w)]
    return [round(float(value), 6) for value in (inside.min(), q25, q75, inside.max(), w.mean())]


def _pixels(name: str, side: int) -> str:
    grey = np.full((1, 1, side, side), GREY, np.float32)
    picture = trigger(name).apply(grey) if name else grey
    return base64.b64encode(np.round(255 * picture).astype(np.uint8).tobytes()).decode("ascii")
