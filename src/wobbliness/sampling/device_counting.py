"""Copies made and votes counted on the classifier's device: counts are all that crosses."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt64

from wobbliness.classifiers.base import DeviceClassifier
from wobbliness.classifiers.probing import SMALL_BLOCK, require_close, watched_rows
from wobbliness.perturbations.base import LoweredPerturbation
from wobbliness.runtime.progress import Advance
from wobbliness.sampling.plan import Plan

# draws made at a time, needed or not: a generator's values depend on how many are asked for
PAGE = 256
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
        self._is_watched = True  # the first block is compared with a small one

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
                images = self._classifier.on_device(self._plan.images[part])
                shard = _Shard(
                    self, images, self._plan.keys[part], seed=self._plan.seed, draws=draws
                )
                self._block_size = shard.run(self._block_size)
                counts.append(shard.counts())
            advance(len(part))
            first += len(part)
        return np.concatenate(counts)

    @property
    def num_perturbations(self) -> int:
        """S."""
        return len(self._perturbations)

    @property
    def num_classes(self) -> int:
        """K, as far as it is known by now."""
        return self._classifier.num_classes or 1

    def labels(
        self,
        images: Float32[torch.Tensor, "B ..."],
        normal: Float32[torch.Tensor, "B ..."],
        num_rows: int,
    ) -> Int[torch.Tensor, "S R"]:
        """Returns labels of the first `num_rows` copies under each perturbation; K for NaN."""
        # The whole block is classified, padding included: one shape for every block.
        labels = self._all_labels(images, normal, exact=False)[:, :num_rows]
        # The first block was compared with a small one; once is enough, as all have one shape.
        self._is_watched = False
        if self._classifier.is_reduced and self.changed_labels is None:
            exact = self._all_labels(images, normal, exact=True)[:, :num_rows]
            self.changed_labels = float((labels != exact).float().mean())
        return labels

    def _all_labels(
        self, images: torch.Tensor, normal: torch.Tensor, *, exact: bool
    ) -> Int[torch.Tensor, "S B"]:
        # One perturbation after another: only one set of copies is in memory.
        copies = (made.lower(images, normal) for made in self._perturbations)
        return torch.stack(
            [_labels_or_nan(self._watched_scores(block, exact=exact)) for block in copies]
        )

    def _watched_scores(
        self, batch: Float32[torch.Tensor, "B ..."], *, exact: bool
    ) -> Float32[torch.Tensor, "B K"]:
        scores = cast(torch.Tensor, self._classifier.device_scores(batch, exact=exact))
        if self._is_watched and len(batch) > SMALL_BLOCK:
            rows = watched_rows(len(batch))
            again = cast(torch.Tensor, self._classifier.device_scores(batch[rows], exact=exact))
            require_close(scores[rows].cpu().numpy(), again.cpu().numpy())
        return scores


class StandardNormal:
    """Standard-normal draws of images from torch's generator of their device.

    Draws come in pages of PAGE, seeded with a 63-bit digest of seed, key and page. So a draw
    depends on (seed, key, draw) alone and not on how it is reached; another kind of device makes
    other draws. (On the CPU, where tests run it, torch's generator reads 32 bits of its seed.)
    """

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device) -> None:
        self._seed, self._shape, self._device = seed, shape, device
        self._generator = torch.Generator(device)
        self._page: tuple[tuple[int, int], torch.Tensor] | None = None

    def page(self, key: int, number: int) -> Float32[torch.Tensor, "B ..."]:
        """Returns a page of an image's draws; the last one is kept: blocks end within pages."""
        # Blocks go through the draws in order, so the page asked for is mostly the last one.
        if self._page is None or self._page[0] != (key, number):
            text = f"{self._seed} {key} {number}"
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            # Seeded for each page, so that a page does not depend on those drawn before.
            self._generator.manual_seed(int.from_bytes(digest, "little") >> 1)
            draws = torch.randn(
                (PAGE, *self._shape),
                generator=self._generator,
                device=self._device,
                dtype=torch.float32,
            )
            self._page = (key, number), draws
        return self._page[1]


class _Shard:
    """The copies of some images, image after image, in blocks of one shape; fetched once."""

    def __init__(
        self,
        counter: DeviceCounter,
        images: Float32[torch.Tensor, "M ..."],
        keys: UInt64[np.ndarray, " M"],
        *,
        seed: int,
        draws: range,
    ) -> None:
        self._counter, self._images, self._keys, self._draws = counter, images, keys, draws
        self._num_rows = len(images) * len(draws)
        self._normal = StandardNormal(seed, tuple(images.shape[1:]), images.device)
        self._counts: torch.Tensor | None = None

    def run(self, block_size: int) -> int:
        """Classifies all copies; returns the block size that fitted."""
        first = 0
        while first < self._num_rows:
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
        shape = (len(self._images), self._counter.num_perturbations, self._counter.num_classes + 1)
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
            images, normal = self._block(first, block_size)
            num_rows = min(block_size, self._num_rows - first)
            return self._counter.labels(images, normal, num_rows)
        except torch.OutOfMemoryError:
            if block_size == 1:
                raise
        # outside `except`, whose traceback keeps the block's tensors
        if self._images.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _count(self, first: int, labels: Int[torch.Tensor, "S B"]) -> None:
        """Adds votes; NaN scores vote for a class K of their own."""
        # One column more, for scores that are NaN.
        width, device = self._counter.num_classes + 1, labels.device
        if self._counts is None:
            size = len(self._images) * len(labels) * width
            self._counts = torch.zeros(size, dtype=torch.int64, device=device)
        rows = torch.arange(len(labels), device=device)[:, None]
        owners = self._owners(first, labels.shape[1])
        # One flat index for (image, perturbation, class), so that one call adds all votes.
        cells = ((owners * len(labels) + rows) * width + labels).flatten()
        self._counts.scatter_add_(0, cells, torch.ones_like(cells))

    def _owners(self, first: int, num_rows: int) -> Int[torch.Tensor, " B"]:
        """Returns which image each row is a copy of; rows beyond the last count as the last's."""
        rows = torch.arange(first, first + num_rows, device=self._images.device)
        return rows.clamp_(max=self._num_rows - 1).div_(len(self._draws), rounding_mode="floor")

    def _block(self, first: int, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns images and their draws, row by row; rows beyond the last one have no noise."""
        images = self._images[self._owners(first, num_rows)]
        normal = torch.zeros_like(images)
        for image, start, stop in _split(
            first, min(first + num_rows, self._num_rows), len(self._draws)
        ):
            to_draw = self._draws.start - image * len(self._draws)
            # Rows count copies of all images, pages the draws of one: `to_draw` leads across.
            for page, begin, end in _split(start + to_draw, stop + to_draw, PAGE):
                drawn = self._normal.page(int(self._keys[image]), page)
                rows = slice(begin - to_draw - first, end - to_draw - first)
                normal[rows] = drawn[begin - page * PAGE : end - page * PAGE]
        return images, normal


def _images_per_shard(num_draws: int, block_size: int) -> int:
    """Returns as many images as SHARD_BLOCKS hold: at least one, at most one block's worth."""
    return min(block_size, max(1, SHARD_BLOCKS * block_size // num_draws))


def _split(first: int, stop: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yields the parts of first ... stop - 1 that lie within one stretch of `length`.

    Each is the number of the stretch, start, stop.
    """
    for number in range(first // length, -(-stop // length)):
        yield number, max(first, number * length), min(stop, (number + 1) * length)


def _labels_or_nan(scores: Float32[torch.Tensor, "B K"]) -> Int[torch.Tensor, " B"]:
    """Returns the arg-max (Eq. 1), or K where a score is NaN."""
    # On the device, without a check: asking for the truth value would wait for it.
    return torch.where(scores.isnan().any(dim=1), scores.shape[1], scores.argmax(dim=1))
