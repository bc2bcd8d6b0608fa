"""Crafts a universal adversarial perturbation of a network."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from torch import nn

from wobbliness.attacks.universal_perturbation import (
    UniversalPerturbation,
    craft_universal_perturbation,
)
from wobbliness.runtime.progress import Progress
from wobbliness.study.cells.base import (
    ApplyPattern,
    Context,
    Outcome,
    sample,
    spec_file,
    trained_network,
)
from wobbliness.study.cells.crafted_files import EVALUATION_IMAGES, reading, write_arrays
from wobbliness.study.specs import UniversalSpec
from wobbliness.study.training.data import ImageData, load_data
from wobbliness.study.training.train import predict

NORMS = {"l2": 2.0, "linf": float("inf")}


def run(spec: UniversalSpec, context: Context) -> Outcome:
    """Crafts the perturbation on training images and writes it to a file."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    found = _craft(spec, network, data, context.progress)
    # the array is a tensor of the file, all other fields are JSON in its header
    facts = {name: value for name, value in vars(found).items() if name != "values"}
    header = {"facts": json.dumps(facts)}
    write_arrays(spec_file(context.out, spec), {"values": found.values}, header)
    test = sample(data.test, EVALUATION_IMAGES, spec.seed).images
    results = {
        "norm_reached": float(np.linalg.norm(found.values.ravel(), NORMS[spec.norm])),
        "fooling_rate": found.fooling_rate,
        "reached": found.reached,
        "num_passes": found.num_passes,
        "fooling_rate_on_test": _fooling_rate(network, test, found, spec.target_class),
    }
    return Outcome(results=results, table=pd.DataFrame())


def _craft(
    spec: UniversalSpec, network: nn.Module, data: ImageData, progress: Progress
) -> UniversalPerturbation:
    return craft_universal_perturbation(
        network,
        sample(data.train, spec.num_images, spec.seed).images,
        norm=NORMS[spec.norm],
        bound=spec.bound,
        fooling_rate=spec.fooling_rate,
        target_class=spec.target_class,
        seed=spec.seed,
        progress=progress,
    )


def patterns(path: Path, form: str | None) -> dict[int, ApplyPattern]:  # noqa: ARG001
    """Returns the pattern of a file; -1 stands for the class that it has none of."""
    return {-1: load_universal(path).apply}


def load_universal(path: Path) -> UniversalPerturbation:
    """Returns the perturbation of a file written by this kind of cell.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    with reading(path, "a universal perturbation"), safe_open(path, framework="np") as file:
        values, facts = file.get_tensor("values"), json.loads(file.metadata()["facts"])
        if values.ndim != 3 or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ValueError(f"{values.dtype} of shape {values.shape}")
        return UniversalPerturbation(values=values, **facts)


def _fooling_rate(
    network: nn.Module, images: np.ndarray, found: UniversalPerturbation, target_class: int | None
) -> float:
    """Computes the label-flip rate; for a targeted perturbation the targeted ASR.

    The attack success rate (ASR) is the share of images of other predictions that are then
    predicted as the target class.
    """
    before, after = predict(network, images), predict(network, found.apply(images))
    if target_class is None:
        return float((after != before).mean())
    # images already predicted as the target do not count as a success
    return float((after == target_class)[before != target_class].mean())
