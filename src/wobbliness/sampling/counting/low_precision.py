"""Checked low precision: the quantised twin of a classifier, and the margin below which it doubts.

Almost every vote is decided by a wide margin between the two best scores, which the error of
integers of 8 bits does not turn. So the twin votes, and where its own margin is small float32 votes
again. The margin is found on calibration copies that both have voted on: the order statistic above
which at most one vote in 10,000 differs, with 99 % confidence.

Which path is taken depends on the call alone, never on a clock: a repeat gives the same counts.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped

from wobbliness.classifiers.base import QuantisableClassifier, Twin, as_array
from wobbliness.classifiers.compile import processor
from wobbliness.perturbations.base import Scratch, Stream, ThreadScratch, num_draws_of
from wobbliness.runtime.progress import ignore_progress
from wobbliness.runtime.threads import check_stopped, for_each
from wobbliness.sampling.plan import Plan, Prepared
from wobbliness.statistics.tolerance import upper_tolerance_limit, values_needed

# Of votes that low precision may change, with this confidence.
MAX_CHANGED, CONFIDENCE = 1e-4, 0.99
# Images whose perturbed copies set the ranges of the twin's integers.
NUM_RANGE_IMAGES = 64
# One vote in so many is audited.
AUDIT_EVERY = 200
# Of a copy on the checked path, in float32 passes: above it the twin does not pay.
MAX_COST = 0.95
# What an execution says.
CHECKED = "checked: 8-bit integers, and float32 again where margins are small"
FLOAT32 = "float32: {}"
NO_DOT_PRODUCTS = "the processor has no dot products of 8-bit integers (VNNI, Arm's UDOT)"
NO_GRAPH = "the classifier is no compiled graph"
LABELS_ONLY = "the classifier gives labels, which have no margins"
SCORES_KEPT = "scores are kept, which low precision changes"
FIXED_DRAWS = "a perturbation has a fixed number of draws"
TOO_FEW = "{} copies are too few to calibrate low precision on {}"
TOO_SLOW = "the quantised network would not be faster, by the sizes of its steps"
NO_MARGIN = (
    "no margin of the quantised network shows that at most 1 vote in 10,000 changes and leaves "
    "enough copies above it, {:.0%} lie below"
)
CONTRADICTED = (
    "of {} votes that were audited the quantised network changed {}, more than 1 in 10,000"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LowPrecision:
    """A quantised twin with the margins below which it is not trusted.

    Attributes:
        twin: the classifier in low precision.
        bounds: `(S,)` margins under each perturbation; infinite where float32 has all votes.
        reasons: why, under each perturbation; None where the twin votes.
        known: votes of float32 on the calibration copies.
    """

    twin: Any
    bounds: Float[np.ndarray, " S"]
    reasons: tuple[str | None, ...]
    known: "KnownVotes"

    def is_used(self, row: int) -> bool:
        """Checks whether the twin votes under a perturbation."""
        return self.reasons[row] is None


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownVotes:
    """Float32's votes on the first draws of some images.

    Attributes:
        place: `(N,)` row of `labels` of each image; -1 where it has none.
        labels: `(C, S, m)` classes of draws 0 to m - 1.
    """

    place: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, "C S m"]

    def of(self, image: int, span: range) -> Int[np.ndarray, "S d"]:
        """Returns the votes within a span of draws, which are its first ones if there are any."""
        stop = self.labels.shape[2] if self.place[image] >= 0 else 0
        return self.labels[self.place[image], :, span.start : max(span.start, min(stop, span.stop))]


def open_low_precision(
    plan: Plan, prepared: Prepared, *, num_copies: int | None = None
) -> LowPrecision | str:
    """Makes and calibrates the twin; or says in words why the votes have to be those of float32.

    Args:
        plan: what is measured.
        prepared: its classifier.
        num_copies: expected under each perturbation, where calibration copies do not count among
            them; by default all draws of all images, calibration copies among them.
    """
    if reason := _why_not(plan, prepared):
        return reason
    order = in_order_of_chance(plan)
    calibration = _Calibration.of(order)
    is_reused = num_copies is None and plan.span.start == 0
    num_expected = len(plan.images) * len(plan.span) if num_copies is None else num_copies
    too_few = TOO_FEW.format(num_expected, calibration.num_copies)
    if is_reused and calibration.num_draws > len(plan.span):
        return too_few
    copies = _range_copies(plan, order[:NUM_RANGE_IMAGES])
    answers = as_array(prepared.answers(copies, prepared.execution.block_size or 1))
    if not np.issubdtype(answers.dtype, np.floating):
        return LABELS_ONLY
    try:
        twin = plan.classifier.twin(copies)  # type: ignore[attr-defined]
    except ValueError as error:
        return str(error)
    cost = twin.relative_cost + 1 / AUDIT_EVERY
    if cost > MAX_COST:
        return TOO_SLOW
    # Calibration copies cost a pass of the twin more than without, or also one of float32.
    extra = calibration.num_copies * (twin.relative_cost + (0 if is_reused else 1))
    num_low = num_expected - (calibration.num_copies if is_reused else 0)
    if num_low * (1 - cost) <= extra:
        return too_few
    found = calibration.run(plan, prepared, twin)
    return found if any(map(found.is_used, range(len(plan.perturbations)))) else _first(found)


def _first(found: LowPrecision) -> str:
    return next(reason for reason in found.reasons if reason is not None)


def _why_not(plan: Plan, prepared: Prepared) -> str | None:
    """Returns why the call cannot be made in low precision, whatever its size."""
    if not processor.has_int8_dot_products():
        return NO_DOT_PRODUCTS
    is_compiled = prepared.execution.backend == "onnxruntime" and not plan.is_on_device
    if not is_compiled or not isinstance(plan.classifier, QuantisableClassifier):
        return NO_GRAPH
    if plan.scores is not None:
        return SCORES_KEPT
    if any(num_draws_of(perturbation) is not None for perturbation in plan.perturbations):
        return FIXED_DRAWS
    return prepared.execution.company


def in_order_of_chance(plan: Plan) -> Int[np.ndarray, " D"]:
    """Returns the places of images of distinct keys in an order of chance, keyed by seed and image.

    It does not depend on the order in which they are given. Of images of one key, which have the
    same draws, the first one stands for all: their votes are no independent ones.
    """
    keys, places = np.unique(plan.keys, return_index=True)
    # The first word of each image's stream: keys that a caller numbers are no chance by themselves.
    scratch = Scratch()
    words = [
        int(Stream(plan.seed, int(key), scratch=scratch).words("calibration", 2, 1)[0] @ WEIGHTS)
        for key in keys
    ]
    return np.asarray(places[np.lexsort((keys, np.array(words, np.uint64)))])


# Of two words of 32 bits, in one of 64.
WEIGHTS = np.array([1, 2**32], np.uint64)


def _range_copies(plan: Plan, places: Int[np.ndarray, " B"]) -> Float32[np.ndarray, "B ..."]:
    """Returns copies of images at draw 0, under the perturbation that changes them most."""
    images = np.stack([np.asarray(plan.images[place], np.float32) for place in places])
    made = np.empty((len(plan.perturbations), *images.shape), np.float32)
    for index, place in enumerate(places):
        stream = Stream(plan.seed, int(plan.keys[place]), scratch=Scratch())
        for row, perturbation in enumerate(plan.perturbations):
            perturbation.copies(stream, images[index], 1, made[row, index : index + 1])
    changes = np.abs(made - images).reshape(len(made), -1).mean(axis=1, dtype=np.float64)
    return np.asarray(made[int(np.argmax(changes))])


def labels_and_margins(
    classifier: Any, answers: Shaped[np.ndarray, "B ..."]
) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Returns the class of each answer, and how far its score lies above the second best one.

    Of one score for two classes it is the distance from the threshold.
    """
    labels = classifier.labels_of(answers, len(answers))
    scores = as_array(answers).reshape(len(answers), -1)
    if scores.shape[1] == 1:
        return labels, np.abs(scores[:, 0] - classifier.class_threshold)
    rows = np.arange(len(scores))
    best = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    # Both infinite: no margin, and no warning about it.
    with np.errstate(invalid="ignore"):
        return labels, np.nan_to_num(best - others.max(axis=1), nan=0.0, posinf=np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Calibration:
    """The copies that both networks vote on: the first draws of images in an order of chance.

    As many draws of each image, so that the copies stand for those of all images alike.
    """

    places: Int[np.ndarray, " C"]
    num_draws: int

    @classmethod
    def of(cls, order: Int[np.ndarray, " D"]) -> "_Calibration":
        needed = values_needed(MAX_CHANGED, CONFIDENCE)
        places = order[:needed]
        return cls(places=places, num_draws=math.ceil(needed / len(places)))

    @property
    def num_copies(self) -> int:
        """Number of copies under each perturbation."""
        return len(self.places) * self.num_draws

    def run(self, plan: Plan, prepared: Prepared, twin: Twin) -> LowPrecision:
        """Votes on all copies in both precisions, and finds the margins."""
        both = _BothVotes(plan, prepared, twin.classifier, self)
        for_each(both, both.num_groups, workers=plan.num_workers, advance=ignore_progress)
        found = [_bound(*both.of_row(row), twin) for row in range(len(plan.perturbations))]
        return LowPrecision(
            twin=twin.classifier,
            bounds=np.array([bound for bound, _ in found]),
            reasons=tuple(reason for _, reason in found),
            known=KnownVotes(place=self._places_of_all(plan), labels=both.labels),
        )

    def _places_of_all(self, plan: Plan) -> Int[np.ndarray, " N"]:
        """Returns where the votes of each image are; -1 where it has none.

        Copies of an image share its votes.
        """
        own = {int(plan.keys[place]): index for index, place in enumerate(self.places)}
        found = np.full(len(plan.images), -1)
        for place, key in enumerate(plan.keys.tolist()):
            index = own.get(key)
            if index is None:
                continue
            first = self.places[index]
            # Other images may have been given the same key.
            if place == first or np.array_equal(plan.images[place], plan.images[first]):
                found[place] = index
        return found


def _bound(
    margins: Float[np.ndarray, " n"], is_changed: Bool[np.ndarray, " n"], twin: Twin
) -> tuple[float, str | None]:
    """Returns the margin up to which a vote is cast again; infinite, and why, where none will do.

    A vote is changed for good where its label is another one and its margin lies above the bound.
    """
    limit = upper_tolerance_limit(
        np.where(is_changed, margins, -np.inf), share=MAX_CHANGED, confidence=CONFIDENCE
    )
    assert limit is not None  # of as many copies as `values_needed` says
    bound = max(limit, 0.0)
    doubtful = float((margins <= bound).mean())
    if twin.relative_cost + 1 / AUDIT_EVERY + doubtful > MAX_COST:
        return np.inf, NO_MARGIN.format(doubtful)
    return bound, None


class _BothVotes:
    """The votes of both networks on the calibration copies, group by group of images."""

    def __init__(
        self, plan: Plan, prepared: Prepared, twin: Any, calibration: _Calibration
    ) -> None:
        self._plan, self._prepared, self._twin = plan, prepared, twin
        self._places, self._num_draws = calibration.places, calibration.num_draws
        self._block_size = block_size = prepared.execution.block_size or 1
        # Several images share them where draws are few.
        self._rows = plan.rows_within_cache(block_size)
        self._group = max(1, self._rows // self._num_draws)
        self.num_groups = -(-len(self._places) // self._group)
        shape = (len(self._places), len(plan.perturbations), self._num_draws)
        self.labels = np.zeros(shape, np.int64)
        self._is_changed, self._margins = np.zeros(shape, bool), np.zeros(shape, np.float32)
        self._own = ThreadScratch()

    def of_row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the margins of all copies under a perturbation, and which votes changed."""
        return self._margins[:, row].ravel().astype(np.float64), self._is_changed[:, row].ravel()

    def __call__(self, group: int) -> None:
        """Votes on the copies of a group of images."""
        first = group * self._group
        images = slice(first, min(first + self._group, len(self._places)))
        # Many draws of one image come in pages.
        for start in range(0, self._num_draws, self._rows):
            draws = range(start, min(start + self._rows, self._num_draws))
            for row, copies in enumerate(self._copies(images, draws)):
                check_stopped()
                self._vote(images, row, draws, copies)

    def _vote(self, images: slice, row: int, draws: range, copies: np.ndarray) -> None:
        part = (images, row, slice(draws.start, draws.stop))
        shape = self.labels[part].shape
        num_copies = math.prod(shape)
        labels = self._prepared.classify(copies, self._block_size)[:num_copies]
        answers = self._twin.answers(copies, self._block_size)[:num_copies]
        low, margins = labels_and_margins(self._twin, answers)
        self.labels[part] = labels.reshape(shape)
        self._is_changed[part] = (labels != low).reshape(shape)
        self._margins[part] = margins.reshape(shape)

    def _copies(self, images: slice, draws: range) -> Float32[np.ndarray, "S B ..."]:
        """Returns copies under each perturbation, the first ones again to fill the last block."""
        plan, scratch = self._plan, self._own.scratch
        num_used = (images.stop - images.start) * len(draws)
        num_rows = -(-num_used // self._block_size) * self._block_size
        shape = (len(plan.perturbations), num_rows, *plan.images[0].shape)
        copies = scratch.array("copies", shape)
        for index, place in enumerate(self._places[images]):
            image = np.asarray(plan.images[place], dtype=np.float32)
            stream = Stream(
                plan.seed, int(plan.keys[place]), first_draw=draws.start, scratch=scratch
            )
            own = slice(index * len(draws), (index + 1) * len(draws))
            for row, perturbation in enumerate(plan.perturbations):
                perturbation.copies(stream, image, len(draws), copies[row, own])
        copies[:, num_used:] = copies[:, :1]
        return copies


def audited(stream: Stream, name: str, draws: int) -> Bool[np.ndarray, " B"]:
    """Chooses the draws of a page that are audited, one in AUDIT_EVERY, by words of their own.

    Args:
        stream: of the image, at the first of the draws.
        name: of the perturbation.
        draws: number of copies.
    """
    return np.asarray(stream.words(f"audit {name}", 1, draws)[:, 0] < 2**32 // AUDIT_EVERY)
