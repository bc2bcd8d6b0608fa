"""Patterns crafted after training, and the files they are kept in.

Universal perturbations and reverse-engineered triggers of Neural Cleanse.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from wobbliness.attacks.patch import Trigger
from wobbliness.attacks.universal_perturbation import (
    UniversalPerturbation,
    craft_universal_perturbation,
)
from wobbliness.detectors.candidates import Candidate
from wobbliness.detectors.trigger_search import craft_candidates
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import in_order, write_bytes
from wobbliness.runtime.progress import Progress
from wobbliness.study.plan import FORMS
from wobbliness.study.specs import CleanseSpec, UniversalSpec
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.train import predict

NORMS = {"l2": 2.0, "linf": float("inf")}
EVALUATION_IMAGES = 2000  # of each split, on which a crafted pattern's success is counted


def craft_universal(
    spec: UniversalSpec, network: nn.Module, data: ImageData, path: Path, progress: Progress
) -> dict[str, object]:
    """Crafts a universal perturbation on training images and writes it to a file.

    Returns the results for the record.
    """
    images = _sample(data.train, spec.num_images, spec.seed).images
    found = craft_universal_perturbation(
        network,
        images,
        norm=NORMS[spec.norm],
        bound=spec.bound,
        fooling_rate=spec.fooling_rate,
        target_class=spec.target_class,
        seed=spec.seed,
        progress=progress,
    )
    norm = float(np.linalg.norm(found.values.ravel(), NORMS[spec.norm]))
    # the array is a tensor of the file, all other fields are JSON in its header
    facts = {name: value for name, value in vars(found).items() if name != "values"}
    _write(path, {"values": found.values}, {"facts": json.dumps(facts)})
    test = _sample(data.test, EVALUATION_IMAGES, spec.seed).images
    return {
        "norm_reached": norm,
        "fooling_rate": found.fooling_rate,
        "reached": found.reached,
        "num_passes": found.num_passes,
        "fooling_rate_on_test": _fooling_rate(network, test, found, spec.target_class),
    }


def craft_cleanse(
    spec: CleanseSpec,
    network: nn.Module,
    data: ImageData,
    images: Float32[np.ndarray, "N C H W"],
    path: Path,
    progress: Progress,
) -> dict[str, object]:
    """Crafts a Neural Cleanse trigger for each class and writes them to a file.

    Returns the results for the record.
    """
    num_classes = data.train.num_classes
    found = craft_candidates(
        network,
        images,
        num_classes=num_classes,
        restarts=spec.restarts,
        max_steps=spec.max_steps,
        seed=spec.seed,
        progress=progress,
    )
    arrays: dict[str, np.ndarray] = {}
    rows: list[dict[str, object]] = []
    splits = {
        name: _sample(split, EVALUATION_IMAGES, spec.seed)
        for name, split in (("train", data.train), ("test", data.test))
    }
    for form, candidates in zip(FORMS, (found.first, found.smallest), strict=True):
        for target_class, candidate in enumerate(candidates):
            row: dict[str, object] = {
                "form": form,
                "target_class": target_class,
                "found": candidate is not None,
            }
            if candidate is not None:
                arrays |= {
                    f"{form}.{target_class}.mask": candidate.mask,
                    f"{form}.{target_class}.pattern": candidate.pattern,
                }
                row |= _candidate_results(candidate, network, splits)
            rows.append(row)
    # strict JSON has no NaN
    index = [None if np.isnan(value) else float(value) for value in found.anomaly_index]
    # a placeholder where no class has a trigger
    _write(path, arrays or {"none": np.zeros(1, np.float32)}, {"num_classes": str(num_classes)})
    return {
        "candidates": rows,
        "anomaly_index": index,
        "flagged": list(found.flagged),
        "failures": list(found.failures),
    }


def load_universal(path: Path) -> UniversalPerturbation:
    """Returns the perturbation of a file written by `craft_universal`.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    with _reading(path, "a universal perturbation"), safe_open(path, framework="np") as file:
        values, facts = file.get_tensor("values"), json.loads(file.metadata()["facts"])
        if values.ndim != 3 or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ValueError(f"{values.dtype} of shape {values.shape}")
        return UniversalPerturbation(values=values, **facts)


def load_candidates(path: Path, form: str) -> dict[int, Trigger]:
    """Returns the triggers of one form by class, of a file written by `craft_cleanse`.

    Classes without a trigger are absent.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    with _reading(path, "candidates"), safe_open(path, framework="np") as file:
        classes = sorted(
            {
                int(key.split(".")[1])
                for key in file.keys()  # noqa: SIM118  # a file, no mapping
                if key.startswith(f"{form}.")
            }
        )
        return {
            target_class: Trigger(
                name=f"candidate {target_class}",
                pattern=file.get_tensor(f"{form}.{target_class}.pattern"),
                mask=file.get_tensor(f"{form}.{target_class}.mask"),
            )
            for target_class in classes
        }


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a damaged file raises into one line."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"expected the file of {what}, got {path}: {reason_of(error)}") from error


def _candidate_results(
    candidate: Candidate, network: nn.Module, splits: Mapping[str, Split]
) -> dict[str, object]:
    stamp = candidate.trigger()
    success = {
        f"success_on_{name}": float(
            (predict(network, stamp.apply(split.images)) == candidate.target_class).mean()
        )
        for name, split in splits.items()
    }
    return {
        "mask_l1": candidate.mask_l1,
        "num_steps": candidate.num_steps,
        "success_when_crafted": candidate.success_rate,
        **success,
    }


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


def _sample(split: Split, num_images: int, seed: int) -> Split:
    chosen = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(split.labels))[
        :num_images
    ]
    return Split(
        images=split.images[chosen], labels=split.labels[chosen], num_classes=split.num_classes
    )


def _write(path: Path, arrays: Mapping[str, np.ndarray], header: dict[str, str]) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, in_order(save(contiguous, header)))
