"""Measurement of votes under a profile: all of its draws, or the early ones and the late ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float

from wobbliness.detectors.guards.profiles import ProfilePart, default_profile
from wobbliness.detectors.guards.vote_reading import ProfileVotes, profile_votes
from wobbliness.detectors.inputs.distinct_inputs import host_array
from wobbliness.perturbations.base import Perturbation, image_keys
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.plan import Precision, Scores
from wobbliness.sampling.votes import DrawSpan, Votes
from wobbliness.statistics.conformal import tie_breakers

# Of the draws, those that are read first.
EARLY_SHARE = 1 / 5
# Draws of it are the input itself.
UNCHANGED = Gaussian(0)


@dataclass(frozen=True)
class When:
    """Which draws: the early ones, the late ones, or all."""

    is_early: bool
    is_late: bool

    def of(self, part: ProfilePart, level: Perturbation) -> range:
        """Returns those of one level of a part, in their order."""
        draws = part.draws_of(level)
        # Of few draws, as of a ladder, more are early, or all.
        early = min(max(1, round(part.draws_each * EARLY_SHARE)), draws)
        return range(0 if self.is_early else early, draws if self.is_late else early)


EARLY, LATE, ALL = When(True, False), When(False, True), When(True, True)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredProfile:
    """Votes of inputs under some levels of a profile.

    Attributes:
        parts: of the profile.
        found: the votes under the levels that have some of the draws.
        ties: `(N,)` tie-breakers of the inputs.
    """

    parts: tuple[ProfilePart, ...]
    found: Sequence[Votes]
    ties: Float[np.ndarray, " N"]

    @cached_property
    def votes(self) -> ProfileVotes:
        """The votes under each level, as they are read."""
        levels = [(row, level) for row, part in enumerate(self.parts) for level in part.levels]
        names = [level.name for _, level in levels]
        return profile_votes(self.found, names, [row for row, _ in levels])

    @property
    def by_part(self) -> tuple[Votes, ...]:
        """The votes of each part: its groups are consecutive draws of one perturbation."""
        by_name = {votes.perturbation: votes for votes in self.found}
        return tuple(
            _added([by_name[level.name] for level in part.levels], part.whole.name)
            for part in self.parts
        )


def measure_profile(
    classifier: Any,
    images: Any,
    parts: tuple[ProfilePart, ...],
    when: When,
    *,
    seed: int,
    workers: int | None = None,
    scores: Scores | None = None,
    precision: Precision = "float32",
) -> MeasuredProfile:
    """Measures the votes of some draws.

    Args:
        classifier: opened.
        images: `(N, ...)`, array or tensor.
        parts: of the profile.
        when: which draws.
        seed: of the draws and the tie-breakers.
        workers: as for `wobbliness.measure`.
        scores: as for `wobbliness.measure`.
        precision: as for `wobbliness.measure`.
    """
    # Perturbations with the same draws share a sweep.
    by_span: dict[range, list[Perturbation]] = {}
    for part in parts:
        for level in part.levels:
            by_span.setdefault(when.of(part, level), []).append(level)
    found = [
        votes
        for span, levels in by_span.items()
        if span
        for votes in sweep(
            classifier,
            images,
            levels,
            draws=len(span),
            seed=seed,
            first_draw=span.start,
            workers=workers,
            keep_clean=True,
            scores=scores,
            precision=precision,
        ).votes
    ]
    ties = tie_breakers(image_keys(host_array(images)), seed)
    return MeasuredProfile(parts=parts, found=found, ties=ties)


def measured_profile(
    classifier: Any, overlays: Any, draws: int, *, seed: int, workers: int | None = None
) -> tuple[ProfilePart, ...]:
    """Returns the default profile, its overlays in the order of their predictions.

    Args:
        classifier: opened.
        overlays: `(M, ...)` clean images to mix with, array or tensor.
        draws: under each perturbation.
        seed: of the draws.
        workers: as for `wobbliness.measure`.
    """
    settings: dict[str, Any] = {"draws": 1, "seed": seed, "workers": workers}
    (votes,) = sweep(classifier, overlays, [UNCHANGED], **settings).votes
    return default_profile(
        Overlays(overlays), votes.label, draws, num_classes=votes.counts.shape[1]
    )


def _added(votes: Sequence[Votes], name: str) -> Votes:
    """Returns the sum of votes under several perturbations, as those of one."""
    firsts = np.cumsum([0, *(each.draws for each in votes)])
    return reduce(
        add,
        (
            replace(
                each,
                perturbation=name,
                spans=(DrawSpan(seed=span.seed, first=int(first), stop=int(first) + each.draws),),
            )
            for first, each in zip(firsts, votes, strict=False)
            for span in each.spans
        ),
    )
