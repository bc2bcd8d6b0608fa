"""What is done in one cell: train a network, or measure a batch."""

import json
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.progress import Progress
from wobbliness.sampling import sweep
from wobbliness.study.data import ImageData, load_data
from wobbliness.study.networks import ARCHITECTURES, build_network
from wobbliness.study.recipes import Cell, MeasureSpec, NetworkSpec, Recipe, cell_name
from wobbliness.study.records import Record, provenance, write_beside, write_record
from wobbliness.study.training import THREADS, predict, train_network
from wobbliness.triggers import trigger
from wobbliness.votes import Votes


def run_cell(out: Path, cell: Cell, recipe: Recipe, progress: Progress) -> None:
    """Does one cell and leaves its record in the study folder."""
    started = time.perf_counter()
    with torch_threads(THREADS):
        if isinstance(cell.spec, NetworkSpec):
            results, table = _train(out, cell.spec, progress)
        else:
            results, table = _measure(out, cell.spec, progress)
    record = Record(
        spec=cell.spec,
        results=results,
        provenance=provenance(time.perf_counter() - started, THREADS),
        table=table,
    )
    write_record(out / "records", cell, record, recipe=recipe)


def load_network(path: Path) -> nn.Sequential:
    """A network of a study from its safetensors file; the header says the architecture, no code of the file's is run.

    Raises:
        ValueError: the file is missing, damaged, or not a network of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        architecture, shape = header["architecture"], json.loads(header["image_shape"])
        num_classes = int(header["num_classes"])
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}")
        network = build_network(architecture, tuple(shape), num_classes, seed=0)
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ValueError(f"expected a network file {path}, which does not exist") from None
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a network file of a study, got {path}: {reason}") from error
    return network.eval()


@lru_cache(maxsize=4)
def _network(path: Path) -> nn.Sequential:
    """Kept from one cell of a process to the next, with its compiled graph."""
    return load_network(path)


def _train(out: Path, spec: NetworkSpec, progress: Progress) -> tuple[dict[str, object], pd.DataFrame]:
    data = load_data(spec.dataset)
    trained = train_network(spec, data, progress=progress)
    header = {
        "architecture": spec.architecture,
        "image_shape": json.dumps(data.train.images.shape[1:]),
        "num_classes": str(data.train.num_classes),
        "spec": json.dumps(asdict(spec), sort_keys=True),
    }
    state = {name: tensor.contiguous() for name, tensor in trained.network.state_dict().items()}
    write_beside(out / "networks" / f"{cell_name(spec)}.safetensors", lambda path: save_file(state, path, metadata=header))
    results = {
        "num_classes": data.train.num_classes,
        "clean_accuracy": trained.clean_accuracy,
        "backdoor_accuracy": trained.backdoor_accuracy,
        "num_poisoned": len(trained.poisoned_indices),
        "losses": trained.losses.tolist(),
        "precision": trained.precision,
    }
    return results, pd.DataFrame({"poisoned_index": trained.poisoned_indices})


def _measure(out: Path, spec: MeasureSpec, progress: Progress) -> tuple[dict[str, object], pd.DataFrame]:
    data = load_data(spec.network.dataset)
    network = _network(out / "networks" / f"{cell_name(spec.network)}.safetensors")
    points = _points(spec, data)
    images = data.test.images[points]
    if spec.trigger is not None:
        images = trigger(spec.trigger).apply(images)
    checkpoints = _votes_at_checkpoints(spec, network, images, progress)
    frames = [_rows(votes, points, data.test.labels[points]) for votes in checkpoints]
    executions = [asdict(execution) for execution in checkpoints[-1].executions]
    return _trigger_accuracies(spec, network, data) | {"executions": executions}, pd.concat(frames, ignore_index=True)


def _points(spec: MeasureSpec, data: ImageData) -> np.ndarray:
    labels, threat = data.test.labels, spec.network.threat
    eligible = np.arange(len(labels)) if threat is None else np.flatnonzero(threat.is_attacked(labels))
    stop = spec.first_point + spec.num_points
    if stop > len(eligible):
        raise ValueError(f"expected at most {len(eligible)} test points, got a batch up to point {stop}")
    return np.random.default_rng(np.random.SeedSequence(spec.seed)).permutation(eligible)[spec.first_point : stop]


def _votes_at_checkpoints(spec: MeasureSpec, network: nn.Module, images: np.ndarray, progress: Progress) -> list[Votes]:
    """Votes at every sigma and every checkpoint, the draws of a checkpoint being the first ones of the next."""
    last = spec.draws[-1]
    votes: list[Votes] = []
    for first, stop in zip((0, *spec.draws), spec.draws, strict=False):

        def report(done: int, total: int, first: int = first, stop: int = stop) -> None:
            progress(first * total + (stop - first) * done, last * total)

        more = sweep(
            network,
            images,
            spec.sigmas,
            draws=stop - first,
            first_draw=first,
            seed=spec.seed,
            workers=1,
            progress=report,
        )
        earlier = votes[-len(spec.sigmas) :]
        votes += [before + after for before, after in zip(earlier, more.votes, strict=True)] if earlier else more.votes
    return votes


def _rows(votes: Votes, points: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    columns = {f"votes_{index}": votes.counts[:, index] for index in range(votes.counts.shape[1])}
    frame = pd.DataFrame({"point": points, "label": labels, **columns})
    frame.insert(2, "sigma", votes.sigma)
    frame.insert(3, "draws", votes.draws)
    return frame


def _trigger_accuracies(spec: MeasureSpec, network: nn.Module, data: ImageData) -> dict[str, object]:
    """Shares of all attacked test points, with this batch's trigger on, that get the attacker's and the true label."""
    labels, threat = data.test.labels, spec.network.threat
    attacked = np.ones(len(labels), bool) if threat is None else threat.is_attacked(labels)
    images = data.test.images[attacked]
    predicted = predict(network, images if spec.trigger is None else trigger(spec.trigger).apply(images))
    wanted = None if threat is None else threat.attacked_labels(labels[attacked], data.test.num_classes)
    return {
        "accuracy_on_attacker_labels": None if wanted is None else float((predicted == wanted).mean()),
        "accuracy_on_clean_labels": float((predicted == labels[attacked]).mean()),
    }
