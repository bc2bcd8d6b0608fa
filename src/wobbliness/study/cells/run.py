"""Computation of one cell: training a network, crafting a pattern, or measuring a batch."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from wobbliness.attacks.patch import trigger
from wobbliness.classifiers.compile.export import declare_structure
from wobbliness.classifiers.open import open_classifier
from wobbliness.classifiers.torch_module import CPU, torch_threads
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import CHECKPOINTS, file_checksum, in_order, write_bytes
from wobbliness.runtime.input_files import check_regular
from wobbliness.runtime.progress import Notice, Progress, print_notice
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.votes import Votes
from wobbliness.study.cells.crafting import (
    craft_cleanse,
    craft_universal,
    load_candidates,
    load_universal,
)
from wobbliness.study.cells.noise_response import noise_response
from wobbliness.study.plan import FORMS, browser_networks
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.integrity import WEIGHTS_FOLDERS, verified_weights, weights_file
from wobbliness.study.records.picture_strips import strip
from wobbliness.study.records.record import Record, provenance, write_record
from wobbliness.study.specs import (
    Cell,
    CleanseSpec,
    MeasureSpec,
    NetworkSpec,
    ResponseSpec,
    Spec,
    UniversalSpec,
    cell_name,
)
from wobbliness.study.training.checkpoints import Checkpoint
from wobbliness.study.training.data import ImageData, load_data
from wobbliness.study.training.device import ON_THE_CPU, Place
from wobbliness.study.training.networks import ARCHITECTURES, build_network, structure
from wobbliness.study.training.train import (
    THREADS,
    predict,
    top_scores,
    train_network,
    training_precision,
)

# noisy copies in a block: several processes share the memory of one accelerator
ACCELERATOR_BLOCK = 1250

ApplyPattern = Callable[[np.ndarray], np.ndarray]
"""Puts a pattern on images `(N, C, H, W)`."""


def run_cell(
    out: Path,
    cell: Cell,
    recipe: Recipe,
    progress: Progress,
    notice: Notice = print_notice,
    *,
    place: Place = ON_THE_CPU,
) -> None:
    """Computes one cell and writes its record to the study folder."""
    started, checkpoint = time.perf_counter(), _checkpoint(out, cell, notice, place)
    with torch_threads(THREADS):
        results, table = _compute(out, cell.spec, place, progress, checkpoint)
    # the point browser shows points of these networks alone: other records stay small
    if isinstance(cell.spec, MeasureSpec) and cell.spec.network in browser_networks(recipe):
        results |= _pictures(out, cell.spec)
    record = Record(
        spec=cell.spec,
        results=results,
        provenance=provenance(
            checkpoint.seconds_before + time.perf_counter() - started, THREADS, place.name
        ),
        table=table,
    )
    # weights are on disk by now; the record, written last, vouches for them
    weights = file_checksum(weights_file(out, cell.name)) if cell.kind in WEIGHTS_FOLDERS else None
    write_record(out / "records", cell, record, recipe=recipe, weights=weights)
    checkpoint.remove()


def _checkpoint(out: Path, cell: Cell, notice: Notice, place: Place) -> Checkpoint:
    precision = training_precision(place.torch_device)
    identity = {
        "spec": asdict(cell.spec),
        "torch": torch.__version__,
        "device": place.name,
        "precision": precision,
    }
    return Checkpoint(out / CHECKPOINTS / f"{cell.name}.safetensors", identity, notice)


def _compute(
    out: Path, spec: Spec, place: Place, progress: Progress, checkpoint: Checkpoint
) -> tuple[dict[str, object], pd.DataFrame]:
    if isinstance(spec, NetworkSpec):
        return _train(out, spec, place, progress, checkpoint)
    network, data = _network_of(out, spec.network, place), load_data(spec.network.dataset)
    if isinstance(spec, UniversalSpec):
        return craft_universal(
            spec, network, data, perturbation_file(out, spec), progress
        ), pd.DataFrame()
    if isinstance(spec, CleanseSpec):
        # from the end of the order: measurements take their points from its front
        images = data.test.images[_order(spec.network, data, spec.seed)[-spec.num_images :]]
        return craft_cleanse(
            spec, network, data, images, perturbation_file(out, spec), progress
        ), pd.DataFrame()
    if isinstance(spec, ResponseSpec):
        return {}, noise_response(network, data.test.images.shape[1:], spec)
    return _measure(out, spec, network, data, place, progress)


def network_file(out: Path, spec: NetworkSpec) -> Path:
    """Returns the path of a network in a study folder."""
    return weights_file(out, cell_name(spec))


def perturbation_file(out: Path, spec: UniversalSpec | CleanseSpec) -> Path:
    """Returns the path of a crafted pattern in a study folder."""
    return weights_file(out, cell_name(spec))


def load_network(path: Path) -> nn.Sequential:
    """Returns a network of a study from its safetensors file.

    The header says the architecture; no code of the file is run.

    Raises:
        ValueError: the file is missing, damaged, or not a network of this package.
    """
    if path.exists():
        check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        if "architecture" not in header:
            raise ValueError(
                "it does not say what network it is of; give a --factory that makes the module of "
                "its weights"
            )
        architecture, shape = header["architecture"], json.loads(header["image_shape"])
        num_classes = int(header["num_classes"])
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}")
        # the header may lie: no memory before the weights are found to fit
        with torch.device("meta"):
            network = build_network(architecture, tuple(shape), num_classes, seed=0)
        network.load_state_dict(load_file(path), assign=True)
        # torch's stubs lack this overload
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise ValueError(f"expected a network file {path}, which does not exist") from None
    except (
        SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        RuntimeError,
        OSError,
    ) as error:
        raise ValueError(
            f"expected a network file of a study, got {path}: {reason_of(error)}"
        ) from error
    return network.eval()


def _network_of(out: Path, spec: NetworkSpec, place: Place) -> nn.Sequential:
    path = verified_weights(out, cell_name(spec))
    return _network(path, path.stat().st_mtime_ns, place.torch_device)


@lru_cache(maxsize=4)
def _network(
    path: Path,
    changed: int,  # noqa: ARG001  # a file that was written again is another network
    device: torch.device,
) -> nn.Sequential:
    """Loads a network, kept from one cell of a process to the next with its compiled graph."""
    network = load_network(path).to(device)
    declare_structure(network, structure(network))
    return network


def _train(
    out: Path, spec: NetworkSpec, place: Place, progress: Progress, checkpoint: Checkpoint
) -> tuple[dict[str, object], pd.DataFrame]:
    data = load_data(spec.dataset)
    trained = train_network(
        spec, data, device=place.torch_device, progress=progress, checkpoint=checkpoint
    )
    header = {
        "architecture": spec.architecture,
        "image_shape": json.dumps(data.train.images.shape[1:]),
        "num_classes": str(data.train.num_classes),
        "spec": json.dumps(asdict(spec), sort_keys=True),
    }
    # weights first, the record afterwards: a record without its weights would count as done
    state = {
        name: tensor.cpu().contiguous() for name, tensor in trained.network.state_dict().items()
    }
    write_bytes(network_file(out, spec), in_order(save(state, header)))
    results = {
        "num_classes": data.train.num_classes,
        "clean_accuracy": trained.clean_accuracy,
        "backdoor_accuracy": trained.backdoor_accuracy,
        "num_poisoned": len(trained.poisoned_indices),
        "losses": trained.losses.tolist(),
        "precision": trained.precision,
    }
    return results, pd.DataFrame({"poisoned_index": trained.poisoned_indices})


def _measure(
    out: Path,
    spec: MeasureSpec,
    network: nn.Sequential,
    data: ImageData,
    place: Place,
    progress: Progress,
) -> tuple[dict[str, object], pd.DataFrame]:
    points = _points(spec, data)
    patterns = _patterns(out, spec)
    frames: list[pd.DataFrame] = []
    executions: list[dict[str, object]] = []
    for index, (candidate, apply_pattern) in enumerate(patterns.items()):
        images = apply_pattern(data.test.images[points])
        report = _part(progress, index, len(patterns))
        checkpoints = _votes_at_checkpoints(spec, network, images, place, report)
        rows = pd.concat(
            [_rows(votes, points, data.test.labels[points]) for votes in checkpoints],
            ignore_index=True,
        )
        # one pass without noise: the same score at every sigma and checkpoint
        rows.insert(4, "top_score", np.tile(top_scores(network, images), len(checkpoints)))
        rows.insert(5, "candidate", candidate)
        frames.append(rows)
        executions += [asdict(execution) for execution in checkpoints[-1].executions]
    accuracies = (
        {}
        if isinstance(spec.crafted, CleanseSpec)
        else _accuracies(spec, next(iter(patterns.values())), network, data)
    )
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return accuracies | {"executions": executions}, table


def _patterns(out: Path, spec: MeasureSpec) -> dict[int, ApplyPattern]:
    """Returns the patterns put on the points, by the class of the Neural Cleanse candidate.

    The class is -1 for any other pattern.
    """
    if isinstance(spec.crafted, CleanseSpec):
        candidates = load_candidates(
            verified_weights(out, cell_name(spec.crafted)), spec.form or FORMS[0]
        )
        return {target_class: candidate.apply for target_class, candidate in candidates.items()}
    if isinstance(spec.crafted, UniversalSpec):
        return {-1: load_universal(verified_weights(out, cell_name(spec.crafted))).apply}
    return {-1: trigger(spec.trigger).apply if spec.trigger is not None else np.asarray}


def _order(network: NetworkSpec, data: ImageData, seed: int) -> np.ndarray:
    """Draws the random order in which test points that may be attacked are taken."""
    labels, threat = data.test.labels, network.threat
    eligible = (
        np.arange(len(labels)) if threat is None else np.flatnonzero(threat.is_attacked(labels))
    )
    return np.random.default_rng(np.random.SeedSequence(seed)).permutation(eligible)


def _points(spec: MeasureSpec, data: ImageData) -> np.ndarray:
    order = _order(spec.network, data, spec.seed)[spec.first_point :]
    if spec.per_class:
        labels = data.test.labels[order]
        chosen = [
            order[labels == label][: spec.num_points] for label in np.unique(data.test.labels)
        ]
        # the scarcest class decides whether there are enough points
        found = min(len(of_class) for of_class in chosen)
        order = np.concatenate(chosen)
    else:
        found, order = len(order), order[: spec.num_points]
    if found < spec.num_points:
        raise ValueError(
            f"expected at most {found} test points after the first {spec.first_point}, got "
            f"{spec.num_points}"
        )
    return order


def _pictures(out: Path, spec: MeasureSpec) -> dict[str, object]:
    """Returns the pictures of a batch for the page: its first points with each pattern on.

    They are keyed by the class of the candidate, as in the table.
    """
    data = load_data(spec.network.dataset)
    images = data.test.images[_points(spec, data)]
    strips = {
        str(candidate): strip(apply_pattern(images))
        for candidate, apply_pattern in _patterns(out, spec).items()
    }
    return {"pictures": {"height": images.shape[2], "strips": strips}}


def _votes_at_checkpoints(
    spec: MeasureSpec, network: nn.Module, images: np.ndarray, place: Place, progress: Progress
) -> list[Votes]:
    """Counts votes at every sigma and every checkpoint of the number of draws.

    The draws of a checkpoint are the first ones of the next.
    """
    last, classifier = spec.draws[-1], open_classifier(network, autocast=place.autocast)
    votes: list[Votes] = []
    for first, stop in zip((0, *spec.draws), spec.draws, strict=False):

        def report(done: int, total: int, first: int = first, stop: int = stop) -> None:
            progress(first * total + (stop - first) * done, last * total)

        # only the draws since the last checkpoint: noise is keyed by the draw's index
        more = sweep(
            classifier,
            images,
            spec.sigmas,
            draws=stop - first,
            first_draw=first,
            seed=spec.seed,
            workers=1,
            block_size=None if place.torch_device == CPU else ACCELERATOR_BLOCK,
            progress=report,
        )
        # votes add: the last checkpoint's counts, one per sigma, plus the new ones
        earlier = votes[-len(spec.sigmas) :]
        votes += (
            [before + after for before, after in zip(earlier, more.votes, strict=True)]
            if earlier
            else more.votes
        )
    return votes


def _rows(votes: Votes, points: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    columns = {f"votes_{index}": votes.counts[:, index] for index in range(votes.counts.shape[1])}
    frame = pd.DataFrame({"point": points, "label": labels, **columns})
    frame.insert(2, "sigma", votes.sigma)
    frame.insert(3, "draws", votes.draws)
    return frame


def _accuracies(
    spec: MeasureSpec, apply_pattern: ApplyPattern, network: nn.Module, data: ImageData
) -> dict[str, object]:
    """Computes accuracies on all attacked test points with this batch's pattern on.

    Shares that are predicted as the attacker's and as the true label.
    """
    labels, threat = data.test.labels, spec.network.threat
    attacked = np.ones(len(labels), bool) if threat is None else threat.is_attacked(labels)
    predicted, labels = (
        predict(network, apply_pattern(data.test.images[attacked])),
        labels[attacked],
    )
    results: dict[str, object] = {
        "accuracy_on_attacker_labels": None,
        "accuracy_on_clean_labels": float((predicted == labels).mean()),
        "attacker_labels_by_class": None,
    }
    if threat is not None:
        # under T2 the attacker's label depends on the true one, so each class has its own accuracy
        is_wanted = predicted == threat.attacked_labels(labels, data.test.num_classes)
        results["accuracy_on_attacker_labels"] = float(is_wanted.mean())
        by_class = [is_wanted[labels == label] for label in range(data.test.num_classes)]
        results["attacker_labels_by_class"] = [
            float(of_class.mean()) if of_class.size else None for of_class in by_class
        ]
    return results


def _part(progress: Progress, index: int, num_parts: int) -> Progress:
    """Returns the progress of one of several parts of the same length."""
    return lambda done, total: progress(index * total + done, num_parts * total)
