"""Reverse-engineers a trigger for each class of a network, by Neural Cleanse."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from torch import nn

from wobbliness.attacks.patch import Trigger
from wobbliness.detectors.candidates import Candidate
from wobbliness.detectors.trigger_search import craft_candidates
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
from wobbliness.study.training.data import Split, load_data
from wobbliness.study.training.train import predict


def run(spec: CleanseSpec, context: Context) -> Outcome:
    """Crafts a trigger for each class and writes them to a file."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    # from the end of the order: measurements take their points from its front
    images = data.test.images[point_order(spec.network, data, spec.seed)[-spec.num_images :]]
    num_classes = data.train.num_classes
    found = craft_candidates(
        network,
        images,
        num_classes=num_classes,
        restarts=spec.restarts,
        max_steps=spec.max_steps,
        seed=spec.seed,
        progress=context.progress,
    )
    arrays: dict[str, np.ndarray] = {}
    rows: list[dict[str, object]] = []
    splits = {
        name: sample(split, EVALUATION_IMAGES, spec.seed)
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
    path = spec_file(context.out, spec)
    write_arrays(
        path, arrays or {"none": np.zeros(1, np.float32)}, {"num_classes": str(num_classes)}
    )
    results = {
        "candidates": rows,
        "anomaly_index": index,
        "flagged": list(found.flagged),
        "failures": list(found.failures),
    }
    return Outcome(results=results, table=pd.DataFrame())


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
