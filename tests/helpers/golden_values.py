"""Golden values that refactoring keeps: cell names, noise, counts, tables, names, options.

`python tests/helpers/golden_values.py` writes the files in `tests/golden`; `test_golden.py`
compares with them.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import GenericAlias

import numpy as np
import pandas as pd

import wobbliness

GOLDEN = Path(__file__).parents[1] / "golden"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
STUDIES = ("cifar10", "cifar10-slim", "digits", "fashion-mnist", "noises", "noises-cifar10")
KEYS = (0, 1, 2**64 - 1)
NUM_VALUES = 1000
SHAPE = (1, 5, 8)  # of a draw: 40 values, 25 draws
ADDED = {"batches": ("iqr", "whisker_low", "whisker_high", "num_outliers")}
"""Columns that tables got since their digests were written; these have a digest of their own."""

ROUNDED = {"explored": ("lower", "upper"), "correlations": ("r", "r_pvalue", "r_lower", "r_upper")}
"""Columns whose last digits differ between processors: logarithms and sums of products.

So do p-values of Levene's test, in any table. All of these are compared to nine digits.
"""


def cell_names():
    """Names of the cells of every recipe, for two seeds, and the digest of each recipe."""
    from wobbliness.study.plan import plan
    from wobbliness.study.recipes import RECIPES, recipe_by_name, recipe_digest
    from wobbliness.study.specs import cell_name

    found = {}
    for name in sorted(RECIPES):
        for seed in (0, 1):
            recipe = recipe_by_name(name, seed)
            cells = {cell_name(cell.spec): " ".join(cell.claims) for cell in plan(recipe)}
            found[f"{name} {seed}"] = {"digest": recipe_digest(recipe), "cells": cells}
    return found


def noise():
    """The first values of three streams, `(3, 1000)` float32."""
    from wobbliness.perturbations.noise.gaussian import NormalStream

    num_draws = NUM_VALUES // int(np.prod(SHAPE))
    return np.stack(
        [NormalStream(7, key, SHAPE).take(num_draws).reshape(-1).copy() for key in KEYS]
    )


def counts(folder):
    """Returns votes on the digits of a network with numpy's random weights, through a file."""
    import torch
    from safetensors.torch import save_file

    from wobbliness.study.training.data import load_data
    from wobbliness.study.training.networks import build_network
    from wobbliness.study.training.saved_networks import load_network

    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    rng = np.random.default_rng(0)
    weights = {
        name: torch.from_numpy(rng.normal(scale=0.3, size=tuple(tensor.shape)).astype(np.float32))
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in network.state_dict().items()
    }
    header = {"architecture": "small_cnn", "image_shape": "[1, 8, 8]", "num_classes": "10"}
    save_file(weights, folder / "network.safetensors", header)
    images = load_data("digits").test.images[:20]
    result = wobbliness.sweep(
        load_network(folder / "network.safetensors"), images, [0.1, 0.5], draws=100, seed=3
    )
    return {str(sigma): result[sigma].counts.tolist() for sigma in result}


def table_digests(tables):
    """A digest of each table of a study, as it is written."""
    found = {}
    for name, frame in tables.frames().items():
        added = [column for column in ADDED.get(name, ()) if column in frame]
        found[name] = _digest(frame.drop(columns=added), ROUNDED.get(name, ()))
        if name in ADDED:
            found[f"{name}, added columns"] = _digest(frame[added])
    return found


def surface():
    """Public names, and the parameters of every command."""
    from typer.main import get_command

    from wobbliness.cli.app import app

    return {"names": sorted(wobbliness.__all__), "commands": _commands(get_command(app), ())}


def _commands(command, names):
    if hasattr(command, "commands"):
        found = {}
        for name, inner in sorted(command.commands.items()):
            found |= _commands(inner, (*names, name))
        return found
    parameters = {
        parameter.name: {
            "options": sorted([*parameter.opts, *parameter.secondary_opts]),
            "type": _type_name(parameter.type_descriptor.annotation),
            "default": None if callable(parameter.default) else parameter.default,
            "required": parameter.required,
            "multiple": getattr(parameter, "multiple", False),
        }
        for parameter in command.params
    }
    return {" ".join(names): json.loads(json.dumps(parameters, default=str))}


def _type_name(annotation):
    return (
        annotation.__name__
        if type(annotation) is not GenericAlias and hasattr(annotation, "__name__")
        else str(annotation)
    )


def _digest(frame: pd.DataFrame, rounded: tuple[str, ...] = ()) -> str:
    chosen = {
        name: frame[name].map("{:.9g}".format)
        for name in frame.columns
        if (name in rounded or ("levene" in name and "pvalue" in name))
        and frame[name].dtype == np.float64
    }
    return hashlib.sha256(frame.assign(**chosen).to_csv(index=False).encode()).hexdigest()


def write():
    """Writes all golden files again."""
    import tempfile

    from wobbliness.study.records.archive import unpack_study
    from wobbliness.study.tables.tables import form_tables

    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write("counts", counts(folder))
        digests = {}
        for study in STUDIES:
            unpack_study(RESULTS / study, folder / study)
            digests[study] = table_digests(form_tables(folder / study))
        _write("tables", digests)
    _write("cells", cell_names())
    _write("surface", surface())
    np.save(GOLDEN / "noise.npy", noise())


def _write(name, content):
    (GOLDEN / f"{name}.json").write_text(
        json.dumps(content, indent=None if name == "counts" else 1, sort_keys=True) + "\n"
    )


if __name__ == "__main__":
    sys.exit(write())
