"""Reverse-engineers a trigger for each class of a network, by Neural Cleanse."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from torch import nn

from wobbliness.attacks.patch import Trigger
from wobbliness.detectors.reverse_engineering.candidates import Candidate, Candidates
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import Progress
from wobbliness.study.cells.base import (
    ApplyPattern,
    Context,
    Outcome,
    point_order,
    sample,
    spec_file,
    trained_network,
)
from wobbliness.study.cells.crafted_files import EVALUATION_IMAGES, reading, write_arrays
from wobbliness.study.specs import CleanseSpec
from wobbliness.study.specs.cleanse import FORMS
from wobbliness.study.training.data import ImageData, Split, load_data
from wobbliness.study.training.train import predict


def run(spec: CleanseSpec, context: Context) -> Outcome:
    """Crafts a trigger for each class and writes them to a file."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    found = _craft(spec, network, data, context.progress)
    _write(found, spec_file(context.out, spec))
    splits = {
        "train": sample(data.train, EVALUATION_IMAGES, spec.seed),
        "test": sample(data.test, EVALUATION_IMAGES, spec.seed),
    }
    results = {
        "candidates": [
            _row(form, target_class, candidate, network, splits)
            for form, target_class, candidate in _by_form(found)
        ],
        # strict JSON has no NaN
        "anomaly_index": [
            None if np.isnan(value) else float(value) for value in found.anomaly_index
        ],
        "flagged": list(found.flagged),
        "failures": list(found.failures),
    }
    return Outcome(results=results, table=pd.DataFrame())


def _craft(
    spec: CleanseSpec, network: nn.Module, data: ImageData, progress: Progress
) -> Candidates:
    # from the end of the order: measurements take their points from its front
    images = data.test.images[point_order(spec.network, data, spec.seed)[-spec.num_images :]]
    return craft_candidates(
        network,
        images,
        num_classes=data.train.num_classes,
        restarts=spec.restarts,
        max_steps=spec.max_steps,
        seed=spec.seed,
        progress=progress,
    )


def _by_form(found: Candidates) -> Iterator[tuple[str, int, Candidate | None]]:
    for form, candidates in zip(FORMS, (found.first, found.smallest), strict=True):
        for target_class, candidate in enumerate(candidates):
            yield form, target_class, candidate


def _write(found: Candidates, path: Path) -> None:
    """Writes mask and pattern of each candidate, by form and class."""
    arrays = {
        f"{form}.{target_class}.{name}": getattr(candidate, name)
        for form, target_class, candidate in _by_form(found)
        if candidate is not None
        for name in ("mask", "pattern")
    }
    # a placeholder where no class has a trigger
    content = arrays or {"none": np.zeros(1, np.float32)}
    write_arrays(path, content, {"num_classes": str(len(found.smallest))})


def _row(
    form: str,
    target_class: int,
    candidate: Candidate | None,
    network: nn.Module,
    splits: Mapping[str, Split],
) -> dict[str, object]:
    row = {"form": form, "target_class": target_class, "found": candidate is not None}
    return row if candidate is None else row | _candidate_results(candidate, network, splits)


def patterns(path: Path, form: str | None) -> dict[int, ApplyPattern]:
    """Returns the candidates of one form in a file, by class."""
    found = load_candidates(path, form or FORMS[0])
    return {target_class: candidate.apply for target_class, candidate in found.items()}


def load_candidates(path: Path, form: str) -> dict[int, Trigger]:
    """Returns the triggers of one form by class, of a file written by this kind of cell.

    Classes without a trigger are absent.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    with reading(path, "candidates"), safe_open(path, framework="np") as file:
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
