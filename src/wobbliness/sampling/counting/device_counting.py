"""Copies made and votes counted on the classifier's device: counts are all that crosses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import DeviceClassifier
from wobbliness.classifiers.probing import SMALL_BLOCK, require_close, watched_rows
from wobbliness.perturbations.base import DeviceDraws, LoweredPerturbation, num_draws_of
from wobbliness.runtime.progress import Advance
from wobbliness.sampling.counting.device_draws import BlockDraws, ShardDraws
from wobbliness.sampling.plan import Plan

# blocks between two copies of counts from the device, of which the last one is padded
SHARD_BLOCKS = 16


class DeviceCounter:
    """Counts the votes of a plan whose classifier runs on a device.

    All blocks of a measurement have the same shape, since a network's rounding may depend on it.

    Attributes:
        changed_labels: share of labels that a lower precision changed in the first block; None at
            full precision.
    """

    def __init__(self, plan: Plan, *, block_size: int) -> None:
        """Starts with a block size, which is halved, for good, whenever memory runs out."""
        self._plan, self._block_size = plan, block_size
        self._classifier = cast(DeviceClassifier, plan.classifier)
        self._perturbations = cast(Sequence[LoweredPerturbation], plan.perturbations)
        self.changed_labels: float | None = None
        self._constants: dict[str, torch.Tensor] = {}
        # Of each perturbation the first block is compared with a small one.
        self._watched = set(range(len(self._perturbations)))

    def count(
        self, rows: Int[np.ndarray, " M"], draws: range, advance: Advance
    ) -> Int[np.ndarray, "M S K"]:
        """Returns the votes of some of the plan's images.

        Args:
            rows: of the images.
            draws: which draws of each image.
            advance: called with the number of images just done.

        Raises:
            CompanyError: images of the first block have other scores in a small one.
            ValueError: as `classify` does; NaN scores.
            torch.OutOfMemoryError: not even one copy fits.
        """
        counts: list[np.ndarray] = []
        first = 0
        while first < len(rows):
            part = rows[first : first + _images_per_shard(len(draws), self._block_size)]
            with self._classifier.made_ready():
                counts.append(self._count_part(part, draws))
            advance(len(part))
            first += len(part)
        return np.concatenate(counts)

    def _count_part(self, part: Int[np.ndarray, " M"], draws: range) -> Int[np.ndarray, "M S K"]:
        """Counts the votes of as many images as make one shard."""
        images = self._classifier.on_device(self._plan.images[part])
        counted: list[tuple[list[int], np.ndarray]] = []
        for own_draws, rows in self._spans(draws).items():
            made = ShardDraws(
                seed=self._plan.seed,
                keys=self._plan.keys[part],
                draws=own_draws,
                shape=tuple(images.shape[1:]),
                device=images.device,
                constants=self._constants,
            )
            shard = _Shard(self, rows, images, made)
            self._block_size = shard.run(self._block_size)
            counted.append((rows, shard.counts()))
        # Only now is the number of classes known for sure.
        counts = np.zeros((len(part), len(self._perturbations), self.num_classes), dtype=np.int64)
        for rows, votes in counted:
            counts[:, rows] = votes
        return counts

    def _spans(self, draws: range) -> dict[range, list[int]]:
        """Returns which perturbations have which of the draws: some may have few, or none."""
        spans: dict[range, list[int]] = {}
        for row, perturbation in enumerate(self._perturbations):
            there = num_draws_of(perturbation)
            own = draws if there is None else range(draws.start, min(draws.stop, there))
            if own:
                spans.setdefault(own, []).append(row)
        return spans

    @property
    def num_classes(self) -> int:
        """K, as far as it is known by now."""
        return self._classifier.num_classes or 1

    def labels(
        self,
        rows: Sequence[int],
        images: Float32[torch.Tensor, "B ..."],
        draws: DeviceDraws,
        num_rows: int,
    ) -> Int[torch.Tensor, "S R"]:
        """Returns labels of the first `num_rows` copies under some perturbations; K for NaN."""
        # The whole block is classified, padding included: one shape for every block.
        labels = self._all_labels(rows, images, draws, exact=False)[:, :num_rows]
        # The first block was compared with a small one; once is enough, as all have one shape.
        self._watched.difference_update(rows)
        if self._classifier.is_reduced and self.changed_labels is None:
            exact = self._all_labels(rows, images, draws, exact=True)[:, :num_rows]
            self.changed_labels = float((labels != exact).float().mean())
        return labels

    def _all_labels(
        self, rows: Sequence[int], images: torch.Tensor, draws: DeviceDraws, *, exact: bool
    ) -> Int[torch.Tensor, "S B"]:
        # One perturbation after another: only one set of copies is in memory.
        copies = ((row, self._perturbations[row].lower(images, draws)) for row in rows)
        return torch.stack(
            [_labels_or_nan(self._watched_scores(row, block, exact=exact)) for row, block in copies]
        )

    def _watched_scores(
        self, row: int, batch: Float32[torch.Tensor, "B ..."], *, exact: bool
    ) -> Float32[torch.Tensor, "B K"]:
        scores = cast(torch.Tensor, self._classifier.device_scores(batch, exact=exact))
        if row in self._watched and len(batch) > SMALL_BLOCK:
            rows = watched_rows(len(batch))
            again = cast(torch.Tensor, self._classifier.device_scores(batch[rows], exact=exact))
            require_close(scores[rows].cpu().numpy(), again.cpu().numpy())
        return scores


@dataclass(eq=False)
class _Shard:
    """The copies of some images, image after image, in blocks of one shape; fetched once."""

    counter: DeviceCounter
    perturbations: Sequence[int]
    images: Float32[torch.Tensor, "M ..."]
    draws: ShardDraws
    _counts: torch.Tensor | None = field(default=None, init=False)

    def run(self, block_size: int) -> int:
        """Classifies all copies; returns the block size that fitted."""
        first = 0
        while first < self.draws.num_rows:
            labels = self._try_labels(first, block_size)
            if labels is None:
                # Memory ran out: the same rows again in smaller blocks.
                block_size //= 2
                continue
            self._count(first, labels)
            first += labels.shape[1]
        return block_size

    def counts(self) -> Int[np.ndarray, "M S K"]:
        """Returns the votes.

        Raises:
            ValueError: some scores were NaN.
        """
        assert self._counts is not None
        shape = (len(self.images), len(self.perturbations), self.counter.num_classes + 1)
        counts = self._counts.cpu().numpy().reshape(shape)
        if counts[..., -1].any():
            raise ValueError(
                "expected scores that are numbers, got NaN for "
                f"{counts[..., -1].sum()} noisy copies"
            )
        return np.asarray(counts[..., :-1])

    def _try_labels(self, first: int, block_size: int) -> Int[torch.Tensor, "S B"] | None:
        """Returns labels of the next block, without its padding; None where memory ran out."""
        try:
            return self._labels(first, block_size)
        except torch.OutOfMemoryError:
            if block_size == 1:
                raise
        # outside `except`, whose traceback keeps the block's tensors
        if self.images.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _labels(self, first: int, block_size: int) -> Int[torch.Tensor, "S B"]:
        """Returns labels of the next block; its tensors are held by this call alone."""
        images = self.images[self.draws.owners(first, block_size)]
        draws = BlockDraws(self.draws, first, block_size)
        num_rows = min(block_size, self.draws.num_rows - first)
        return self.counter.labels(self.perturbations, images, draws, num_rows)

    def _count(self, first: int, labels: Int[torch.Tensor, "S B"]) -> None:
        """Adds votes; NaN scores vote for a class K of their own."""
        # One column more, for scores that are NaN.
        width, device = self.counter.num_classes + 1, labels.device
        if self._counts is None:
            size = len(self.images) * len(labels) * width
            self._counts = torch.zeros(size, dtype=torch.int64, device=device)
        rows = torch.arange(len(labels), device=device)[:, None]
        owners = self.draws.owners(first, labels.shape[1])
        # One flat index for (image, perturbation, class), so that one call adds all votes.
        cells = ((owners * len(labels) + rows) * width + labels).flatten()
        self._counts.scatter_add_(0, cells, torch.ones_like(cells))


def _images_per_shard(num_draws: int, block_size: int) -> int:
    """Returns as many images as SHARD_BLOCKS hold: at least one, at most one block's worth."""
    return min(block_size, max(1, SHARD_BLOCKS * block_size // num_draws))


def _labels_or_nan(scores: Float32[torch.Tensor, "B K"]) -> Int[torch.Tensor, " B"]:
    """Returns the arg-max (Eq. 1), or K where a score is NaN."""
    # On the device, without a check: asking for the truth value would wait for it.
    return torch.where(scores.isnan().any(dim=1), scores.shape[1], scores.argmax(dim=1))
