"""How images are settled: the next draws of all open ones in full blocks, a look at the votes, and again."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from wobbliness.classifiers.base import DeviceCounter
from wobbliness.noise import NormalStream, Scratch
from wobbliness.planning import NOISE_VALUES, Plan
from wobbliness.progress import Advance
from wobbliness.stopping import Boundaries
from wobbliness.workers import Items, share_items

STEP = 5  # draws of an image between two looks


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """The boundaries of each threshold, and which of them an image has."""

    most_below: Int[np.ndarray, "T D"]
    least_above: Int[np.ndarray, "T D"]
    index: Int[np.ndarray, " N"]

    @classmethod
    def of(
        cls, boundaries: Callable[[float], Boundaries], threshold: float | Float[np.ndarray, " N"], num_images: int
    ) -> "Rules":
        """Of the threshold of all images, or of each."""
        values, index = np.unique(np.broadcast_to(threshold, num_images), return_inverse=True)
        rules = [boundaries(float(value)) for value in values]
        most_below, least_above = np.stack([rule.most_below for rule in rules]), np.stack([rule.least_above for rule in rules])
        return cls(most_below=most_below, least_above=least_above, index=index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What is known of each image; every row is written by the one thread that has the image."""

    counts: Int[np.ndarray, "N K"]
    draws: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]
    verdict: Int[np.ndarray, " N"]  # 1 below, 0 not below, -1 open

    @classmethod
    def of(cls, num_images: int, num_classes: int) -> "Tally":
        """Before the first draw."""
        zeros = np.zeros(num_images, dtype=np.int64)
        return cls(counts=np.zeros((num_images, num_classes), np.int64), draws=zeros, first=zeros.copy(), verdict=zeros - 1)

    def judge(self, images: Int[np.ndarray, " M"], rules: Rules) -> None:
        """Settles what the votes of these images settle."""
        draws, counts = self.draws[images], self.counts[images]
        strays_of_first = draws - counts[np.arange(len(images)), self.first[images]]
        strays_of_leader = draws - counts.max(axis=1)
        rule = rules.index[images]
        is_below = strays_of_first <= rules.most_below[rule, draws]
        is_above = strays_of_leader >= rules.least_above[rule, draws]
        self.verdict[images] = np.where(is_below, 1, np.where(is_above, 0, -1))

    def is_over(self, images: Int[np.ndarray, " M"], max_draws: int) -> Bool[np.ndarray, " M"]:
        """Whether images are settled or have no draws left."""
        return np.asarray((self.verdict[images] >= 0) | (self.draws[images] == max_draws))


def settle(plan: Plan, rules: Rules, tally: Tally, block_size: int, advance: Advance) -> None:
    """Draws until every image is settled or has no draws left.

    Args:
        plan: what is drawn.
        rules: when an image is settled.
        tally: is filled.
        block_size: copies classified at once.
        advance: called with the number of images just settled.
    """
    if isinstance(plan.classifier, DeviceCounter):
        _settle_on_device(plan, plan.classifier, rules, tally, block_size, advance)
        return
    share_items(
        lambda items: _Pool(plan, rules, tally, block_size).work(items),
        len(plan.images),
        workers=plan.num_workers,
        advance=advance,
    )


def _settle_on_device(
    plan: Plan, classifier: DeviceCounter, rules: Rules, tally: Tally, block_size: int, advance: Advance
) -> None:
    """All open images in step, with the draws that `measure` makes there."""
    open_images, max_draws = np.arange(len(plan.images)), len(plan.span)
    for start, stop in _looks(max_draws):
        counts = classifier.count_votes(
            plan.images[open_images],
            plan.keys[open_images],
            plan.sigmas,
            seed=plan.seed,
            draws=range(plan.span.start + start, plan.span.start + stop),
            block_size=block_size,
            advance=lambda _: None,
        )[:, 0]
        if start == 0:
            tally.first[open_images] = counts.argmax(axis=1)
        tally.counts[open_images] += counts
        tally.draws[open_images] = stop
        if stop % STEP and stop < max_draws:
            continue
        tally.judge(open_images, rules)
        is_over = tally.is_over(open_images, max_draws)
        advance(int(is_over.sum()))
        open_images = open_images[~is_over]
        if not open_images.size:
            return


def _looks(max_draws: int) -> list[tuple[int, int]]:
    """The first draw by itself, which names the class that strays are told from, then up to each look."""
    ends = sorted({1, *range(STEP, max_draws, STEP), max_draws})
    return list(zip([0, *ends], ends, strict=False))


@dataclass(eq=False)
class _Pool:
    """The open images of one thread, whose next draws are packed into full blocks."""

    plan: Plan
    rules: Rules
    tally: Tally
    block_size: int
    scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        rows = max(self.block_size, NOISE_VALUES // self.plan.images[0].size // self.block_size * self.block_size)
        self._num_rows = min(rows, STEP * self.block_size)
        self._capacity = max(1, self._num_rows // STEP)

    def work(self, items: Items) -> None:
        """Settles images until there are no more."""
        streams: dict[int, NormalStream] = {}
        while True:
            while len(streams) < self._capacity and (index := items.take()) is not None:
                streams[index] = self._stream(index)
            if not streams:
                return
            settled = self._look(streams)
            for index in settled:
                del streams[index]
            items.finish(len(settled))

    def _stream(self, index: int) -> NormalStream:
        shape = self.plan.images[index].shape
        return NormalStream(self.plan.seed, int(self.plan.keys[index]), shape, scratch=self.scratch)

    def _look(self, streams: dict[int, NormalStream]) -> list[int]:
        """Makes the next draws of every open image; the images that are settled by them or have no draws left."""
        tally, open_images = self.tally, np.fromiter(streams, dtype=np.int64)
        before = tally.draws[open_images]
        steps = np.minimum(STEP, len(self.plan.span) - before)
        labels = self.plan.classifier.classify(self._noisy(streams, steps), self.block_size)[: steps.sum()]
        starts = np.cumsum(steps) - steps
        is_new = before == 0
        tally.first[open_images[is_new]] = labels[starts[is_new]]
        np.add.at(tally.counts, (np.repeat(open_images, steps), labels), 1)
        tally.draws[open_images] += steps
        tally.judge(open_images, self.rules)
        return [int(index) for index in open_images[tally.is_over(open_images, len(self.plan.span))]]

    def _noisy(self, streams: dict[int, NormalStream], steps: np.ndarray) -> Float32[np.ndarray, "R ..."]:
        """The perturbed copies, image after image; filled up to whole blocks, so that all blocks have one shape."""
        shape = self.plan.images[0].shape
        num_rows = -(-int(steps.sum()) // self.block_size) * self.block_size
        rows = self.scratch.array("rows", (num_rows, *shape))
        first = 0
        for (index, stream), step in zip(streams.items(), steps, strict=True):
            own = rows[first : first + step]
            np.multiply(stream.take(int(step)), np.float32(self.plan.sigmas[0]), out=own)
            own += np.asarray(self.plan.images[index], dtype=np.float32)
            first += int(step)
        rows[first:] = 0
        return rows
