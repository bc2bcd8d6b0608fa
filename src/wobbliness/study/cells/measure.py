"""Measures the votes of a batch of test points under a network."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from wobbliness.classifiers.open import open_classifier
from wobbliness.classifiers.torch_module import CPU
from wobbliness.runtime.progress import Progress
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.votes import Votes
from wobbliness.study.cells.base import (
    ApplyPattern,
    Context,
    Outcome,
    point_order,
    trained_network,
)
from wobbliness.study.plan import browser_networks
from wobbliness.study.records.integrity import verified_weights
from wobbliness.study.records.picture_strips import strip
from wobbliness.study.specs import MeasureSpec, cell_name
from wobbliness.study.training.data import ImageData, load_data
from wobbliness.study.training.device import Place
from wobbliness.study.training.train import predict, top_scores

# noisy copies in a block: several processes share the memory of one accelerator
ACCELERATOR_BLOCK = 1250


def run(spec: MeasureSpec, context: Context) -> Outcome:
    """Measures the votes of the batch, with each of its patterns on."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    points, patterns = _points(spec, data), _patterns(context.out, spec)
    frames: list[pd.DataFrame] = []
    executions: list[dict[str, object]] = []
    for index, (candidate, apply_pattern) in enumerate(patterns.items()):
        images = apply_pattern(data.test.images[points])
        report = _part(context.progress, index, len(patterns))
        checkpoints = _votes_at_checkpoints(spec, network, images, context.place, report)
        # one pass without noise: the same score at every sigma and checkpoint
        scores = top_scores(network, images)
        columns = {"point": points, "label": data.test.labels[points]}
        frames += [_rows(votes, columns, scores, candidate) for votes in checkpoints]
        executions += [execution.as_record() for execution in checkpoints[-1].executions]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    results: dict[str, object] = {"executions": executions}
    if not spec.has_candidates:
        results = _accuracies(spec, next(iter(patterns.values())), network, data) | results
    # the point browser shows points of these networks alone: other records stay small
    if spec.network in browser_networks(context.recipe):
        results |= _pictures(data.test.images[points], patterns)
    return Outcome(results=results, table=table)


def _pictures(images: np.ndarray, patterns: dict[int, ApplyPattern]) -> dict[str, object]:
    """Returns the pictures of a batch for the page: its first points with each pattern on.

    They are keyed by the class of the candidate, as in the table.
    """
    strips = {
        str(candidate): strip(apply_pattern(images))
        for candidate, apply_pattern in patterns.items()
    }
    return {"pictures": {"height": images.shape[2], "strips": strips}}


def _patterns(out: Path, spec: MeasureSpec) -> dict[int, ApplyPattern]:
    """Returns the patterns put on the points, by the class of the Neural Cleanse candidate.

    The class is -1 for any other pattern.
    """
    if spec.crafted is None:
        return {-1: np.asarray if spec.attack is None else spec.attack.apply}
    # what was crafted knows its own file
    crafted = import_module(f"{__package__}.{spec.crafted.kind}")
    found: dict[int, ApplyPattern] = crafted.patterns(
        verified_weights(out, cell_name(spec.crafted)), spec.form
    )
    return found


def _points(spec: MeasureSpec, data: ImageData) -> np.ndarray:
    order = point_order(spec.network, data, spec.seed)[spec.first_point :]
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


def _rows(
    votes: Votes, columns: dict[str, np.ndarray], scores: np.ndarray, candidate: int
) -> pd.DataFrame:
    counts = {f"votes_{index}": votes.counts[:, index] for index in range(votes.counts.shape[1])}
    settings = {"sigma": votes.sigma, "draws": votes.draws}
    return pd.DataFrame(
        {**columns, **settings, "top_score": scores, "candidate": candidate, **counts}
    )


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
