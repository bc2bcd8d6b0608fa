"""Group-sequential sampling: draws of all open images in full blocks, then an interim analysis."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from wobbliness.perturbations.base import Scratch, Stream
from wobbliness.runtime.progress import Advance, ignore_progress
from wobbliness.runtime.threads import Items, check_stopped, share_items
from wobbliness.sampling.counting.checked_groups import CheckedGroups
from wobbliness.sampling.counting.low_precision import audited
from wobbliness.sampling.plan import Plan, Prepared
from wobbliness.statistics.sequential.boundaries import Boundaries

GROUP_SIZE = 5  # draws of an image between two interim analyses
TABLES = ("max_beyond", "min_disagreements")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """The boundaries of each threshold, and which of them an image has."""

    max_beyond: Int[np.ndarray, "T D B"]
    min_disagreements: Int[np.ndarray, "T D C"]
    index: Int[np.ndarray, " N"]

    @classmethod
    def of(
        cls,
        boundaries: Callable[[float], Boundaries],
        threshold: float | Float[np.ndarray, " N"],
        num_images: int,
    ) -> "Rules":
        """Makes those of the threshold of all images, or of each one's own.

        Boundaries of several thresholds must not tell the runner-up from other classes.
        """
        # One table for each distinct threshold, however many images share it.
        values, index = np.unique(np.broadcast_to(threshold, num_images), return_inverse=True)
        rules = [boundaries(float(value)) for value in values]
        max_beyond, min_disagreements = (
            np.stack([getattr(rule, name) for rule in rules]) for name in TABLES
        )
        return cls(max_beyond=max_beyond, min_disagreements=min_disagreements, index=index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What is known of each image; every row is written by the one thread that has the image."""

    counts: Int[np.ndarray, "N K"]
    draws: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]  # class of draw 1
    second: Int[np.ndarray, " N"]  # class of the first draw that named another one; -1 before it
    verdict: Int[np.ndarray, " N"]  # 1 below, 0 not below, -1 open

    @classmethod
    def of(cls, num_images: int, num_classes: int) -> "Tally":
        """Before the first draw."""
        zeros = np.zeros(num_images, dtype=np.int64)
        counts = np.zeros((num_images, num_classes), np.int64)
        return cls(
            counts=counts, draws=zeros, first=zeros.copy(), second=zeros - 1, verdict=zeros - 1
        )

    def decide(self, images: Int[np.ndarray, " M"], rules: Rules) -> None:
        """Decides the images whose votes have crossed a boundary."""
        draws, counts, rule = self.draws[images], self.counts[images], rules.index[images]
        rows = np.arange(len(images))
        against_first = draws - counts[rows, self.first[images]]
        of_second = np.where(self.second[images] < 0, 0, counts[rows, self.second[images]])
        # The last column of a table stands for all larger numbers.
        column = np.minimum(of_second, rules.max_beyond.shape[2] - 1)
        is_below = against_first - column <= rules.max_beyond[rule, draws, column]
        # The runner-up's and the leading class's votes, in this order.
        two_leaders = np.partition(counts, -2, axis=1)[:, -2:]
        column = np.minimum(draws - two_leaders.sum(axis=1), rules.min_disagreements.shape[2] - 1)
        is_above = draws - two_leaders[:, 1] >= rules.min_disagreements[rule, draws, column]
        # Below first, where the draws cross both boundaries.
        self.verdict[images] = np.where(is_below, 1, np.where(is_above, 0, -1))

    def is_over(self, images: Int[np.ndarray, " M"], max_draws: int) -> Bool[np.ndarray, " M"]:
        """Whether images are decided or have no draws left."""
        return np.asarray((self.verdict[images] >= 0) | (self.draws[images] == max_draws))


def sample_until_decided(
    plan: Plan,
    prepared: Prepared,
    rules: Rules,
    advance: Advance,
    checked: CheckedGroups | None = None,
) -> Tally:
    """Draws until every image is decided or has no draws left.

    Args:
        plan: what is drawn.
        prepared: the plan's classifier, which knows how many classes there are.
        rules: when an image is decided.
        advance: called with the number of images just decided.
        checked: labels the copies in checked low precision; None for float32.

    Raises:
        CompanyError: as for `BlockWatch`.
    """
    tally = Tally.of(len(plan.images), plan.classifier.num_classes or 1)
    if plan.is_on_device:
        _sample_on_device(plan, rules, tally, prepared.execution.block_size or 1, advance)
        return tally
    # Each image belongs to one thread until it is decided, so the tally needs no lock.
    share_items(
        lambda items: _Pool(plan, prepared, rules, tally, checked).work(items),
        len(plan.images),
        workers=plan.num_workers,
        advance=advance,
    )
    return tally


def _sample_on_device(
    plan: Plan, rules: Rules, tally: Tally, block_size: int, advance: Advance
) -> None:
    """Decides all open images in step, with the draws that `measure` makes on the device."""
    from wobbliness.sampling.counting.device_counting import DeviceCounter

    counter = DeviceCounter(plan, block_size=block_size)
    open_images, max_draws = np.arange(len(plan.images)), len(plan.span)
    for start, stop in _groups(max_draws):
        draws = range(plan.span.start + start, plan.span.start + stop)
        counts = counter.count(open_images, draws, ignore_progress)[:, 0]
        _add(plan, tally, open_images, counts, stop)
        if stop % GROUP_SIZE and stop < max_draws:
            continue  # after draw 1 alone: no interim analysis
        tally.decide(open_images, rules)
        is_over = tally.is_over(open_images, max_draws)
        advance(int(is_over.sum()))
        open_images = open_images[~is_over]
        if not open_images.size:
            return


def _add(
    plan: Plan,
    tally: Tally,
    images: Int[np.ndarray, " M"],
    counts: Int[np.ndarray, "M K"],
    num_draws: int,
) -> None:
    """Adds the votes of the next draws, after which there are `num_draws` of each image."""
    # The first group is draw 1 by itself, so its votes name the class.
    if num_draws == 1:
        tally.first[images] = counts.argmax(axis=1)
    tally.second[images] = _drawn_seconds(plan, tally, images, counts)
    tally.counts[images] += counts
    tally.draws[images] = num_draws


def _drawn_seconds(
    plan: Plan, tally: Tally, images: Int[np.ndarray, " M"], counts: Int[np.ndarray, "M K"]
) -> Int[np.ndarray, " M"]:
    """Draws the classes of the first votes that disagree with the class of draw 1.

    The device tells no order of draws, and every order is as likely.
    """
    second, disagreements = np.array(tally.second[images]), counts.copy()
    disagreements[np.arange(len(images)), tally.first[images]] = 0
    for row in np.flatnonzero((second < 0) & disagreements.any(axis=1)):
        # Keyed by seed and image, so that it does not depend on the other images.
        key = [plan.seed, int(plan.keys[images[row]])]
        rng, votes = np.random.default_rng(np.random.SeedSequence(key)), disagreements[row]
        second[row] = rng.choice(len(votes), p=votes / votes.sum())
    return second


def _groups(max_draws: int) -> list[tuple[int, int]]:
    """Returns the first draw by itself, then the draws up to each interim analysis.

    Disagreements are counted against the class of the first draw.
    """
    # The first draw alone, each multiple of the group size, and whatever is left at the end.
    ends = sorted({1, *range(GROUP_SIZE, max_draws, GROUP_SIZE), max_draws})
    return list(zip([0, *ends], ends, strict=False))


@dataclass(eq=False)
class _Pool:
    """The open images of one thread, whose next draws are packed into full blocks."""

    plan: Plan
    prepared: Prepared
    rules: Rules
    tally: Tally
    checked: CheckedGroups | None = None
    scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        self.block_size = self.prepared.execution.block_size or 1
        # Whole blocks within the cache, but never more than a group of as many images as a block.
        rows = self.plan.rows_within_cache(self.block_size)
        self._num_rows = min(rows, GROUP_SIZE * self.block_size)
        self._capacity = max(1, self._num_rows // GROUP_SIZE)
        self._is_chosen = np.zeros(GROUP_SIZE * self._capacity, dtype=bool)

    def work(self, items: Items) -> None:
        """Decides images until there are no more."""
        streams: dict[int, Stream] = {}
        while True:
            check_stopped()
            # Decided images make room for the next ones, so that blocks stay full.
            while len(streams) < self._capacity and (index := items.take()) is not None:
                streams[index] = self._stream(index)
            if not streams:
                return
            decided = self._sample_group(streams)
            for index in decided:
                del streams[index]
            items.finish(len(decided))

    def _stream(self, index: int) -> Stream:
        return Stream(self.plan.seed, int(self.plan.keys[index]), scratch=self.scratch)

    def _sample_group(self, streams: dict[int, Stream]) -> list[int]:
        """Makes the next draws of every open image; returns the decided and the exhausted."""
        tally, open_images = self.tally, np.fromiter(streams, dtype=np.int64)
        before = tally.draws[open_images]
        steps = np.minimum(GROUP_SIZE, len(self.plan.span) - before)
        labels = self._labels(self._noisy(streams, steps), int(steps.sum()))
        # Draw 1 names the first class, before any disagreement with it is looked for.
        starts, is_new = np.cumsum(steps) - steps, before == 0
        tally.first[open_images[is_new]] = labels[starts[is_new]]
        owners = np.repeat(open_images, steps)
        disagrees = (labels != tally.first[owners]) & (tally.second[owners] < 0)
        # The first of each image, since `unique` returns the first of equals.
        images, where = np.unique(owners[disagrees], return_index=True)
        tally.second[images] = labels[disagrees][where]
        # Unlike `counts[owners, labels] += 1`, which adds equal pairs once.
        np.add.at(tally.counts, (owners, labels), 1)
        tally.draws[open_images] += steps
        tally.decide(open_images, self.rules)
        is_over = tally.is_over(open_images, len(self.plan.span))
        return [int(index) for index in open_images[is_over]]

    def _labels(self, rows: Float32[np.ndarray, "R ..."], num_used: int) -> Int[np.ndarray, " U"]:
        if self.checked is None:
            return self.prepared.classify(rows, self.block_size)[:num_used]
        return self.checked.classify(rows, self._is_chosen[:num_used])

    def _noisy(self, streams: dict[int, Stream], steps: np.ndarray) -> Float32[np.ndarray, "R ..."]:
        """Returns the perturbed copies, image after image, filled up to whole blocks."""
        shape = self.plan.images[0].shape
        # Rounded up to whole blocks.
        num_rows = -(-int(steps.sum()) // self.block_size) * self.block_size
        rows = self.scratch.array("rows", (num_rows, *shape))
        first = 0
        for (index, stream), step in zip(streams.items(), steps, strict=True):
            image = np.asarray(self.plan.images[index], dtype=np.float32)
            own = rows[first : first + step]
            self.plan.perturbations[0].copies(stream, image, int(step), own)
            if self.checked is not None:
                name = self.plan.perturbations[0].name
                self._is_chosen[first : first + step] = audited(stream, name, int(step))
            stream.turn(int(step))
            first += int(step)
        # The buffer holds earlier copies: the padding is set, so that it is the same each time.
        rows[first:] = 0
        return rows
