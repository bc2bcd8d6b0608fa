"""Explanations of verdicts: what spoke about an input, and some of its copies that voted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from wobbliness.detectors.guards.detection_results import Judgement, ProfileJudgement
from wobbliness.detectors.guards.profile_guard import ProfileGuard
from wobbliness.detectors.guards.reasons import telling_draws
from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard
from wobbliness.perturbations.base import Perturbation
from wobbliness.sampling.labelled_copies import labelled_copies

NUM_COPIES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Why an input is suspicious.

    Attributes:
        row: of the input.
        reasons: a sentence for each perturbation that spoke, the first one most.
        effect: of that one on the input, in plain words.
        draws: `(D,)` which of its copies are shown: up to three, first those with the class that
            the first reason names.
        copies: `(D, ...)` these copies; noise may leave [0, 1].
        label: `(D,)` their predicted classes.
    """

    row: int
    reasons: tuple[str, ...]
    effect: str
    draws: Int[np.ndarray, " D"]
    copies: Float32[np.ndarray, "D ..."]
    label: Int[np.ndarray, " D"]


def explain(
    guard: SmoothnessGuard | ProfileGuard, judgement: Judgement, images: Any, rows: Sequence[int]
) -> tuple[Explanation, ...]:
    """Explains verdicts on some inputs.

    The copies are made and predicted again, by the keyed draws of the guard's seed: they are those
    that voted. Where the classifier runs on a device that draws its own noise, they are others of
    the same kind.

    Args:
        guard: fitted, with its classifier.
        judgement: of the inputs, by this guard.
        images: all the inputs, array or tensor.
        rows: of those to explain.
    """
    spoke = judgement.spoke[list(rows)]
    found: dict[int, Explanation] = {}
    for at in np.unique(spoke).tolist():
        same = [row for row, own in zip(rows, spoke, strict=True) if own == at]
        for row, (copies, label) in zip(same, _copies(guard, images[same], at), strict=True):
            draws = _chosen(_telling(judgement, row, label))
            found[row] = Explanation(
                row=row,
                reasons=judgement.reasons_of(row),
                effect=judgement.effects[at],
                draws=draws,
                copies=copies[draws],
                label=label[draws],
            )
    return tuple(found[row] for row in rows)


def _copies(
    guard: SmoothnessGuard | ProfileGuard, images: Any, at: int
) -> Iterator[tuple[Float32[np.ndarray, "D ..."], Int[np.ndarray, " D"]]]:
    """Yields the copies of each image under one perturbation, and their predictions."""
    made = [
        labelled_copies(
            guard.classifier,
            images,
            level,
            draws,
            guard.seed,
            num_classes=guard.num_classes,
            device=guard.device,
        )
        for level, draws in _levels(guard, at)
    ]
    for row in range(len(images)):
        yield (
            np.concatenate([each.copies[row] for each in made]),
            np.concatenate([each.label[row] for each in made]),
        )


def _levels(
    guard: SmoothnessGuard | ProfileGuard, at: int
) -> list[tuple[float | Perturbation, int]]:
    """Returns the perturbations of one part, each with its draws."""
    if isinstance(guard, SmoothnessGuard):
        return [(guard.sigmas[at], guard.draws)]
    part = guard.parts_[at]
    return [(level, part.draws_of(level)) for level in part.levels]


def _telling(
    judgement: Judgement, row: int, label: Int[np.ndarray, " D"]
) -> Bool[np.ndarray, " D"]:
    """Returns which copies show what the first reason says."""
    if not isinstance(judgement, ProfileJudgement):
        return np.asarray(label == judgement.undisturbed_label[row])
    spoke = judgement.spoke[row]
    return telling_draws(label, judgement.votes.votes[spoke], row, judgement.expected[spoke, row])


def _chosen(is_telling: Bool[np.ndarray, " D"]) -> Int[np.ndarray, " C"]:
    """Returns the first copies that tell, and others where they are too few."""
    return np.argsort(~is_telling, kind="stable")[:NUM_COPIES]
