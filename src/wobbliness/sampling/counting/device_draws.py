"""Draws on a device for the rows of a block, keyed by (seed, image key, draw) as on the host."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Int, Int64, Shaped, UInt64

from wobbliness.perturbations.base import Scratch, Stream

# draws made at a time, needed or not: a generator's values depend on how many are asked for
PAGE = 256
NUM_WORDS = 2**32  # values of a word
NORMAL = ""  # the purpose of standard-normal draws


class _KeyedPages:
    """Pages of PAGE draws, seeded with a 63-bit digest of seed, key, page and purpose.

    So a draw depends on (seed, key, draw) alone and not on how it is reached; another kind of
    device makes other draws. (On the CPU, where tests run it, torch's generator reads 32 bits of
    its seed.)
    """

    purpose = NORMAL

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device) -> None:
        self._seed, self._shape, self._device = seed, shape, device
        self._generator = torch.Generator(device)
        self._page: tuple[tuple[int, int], torch.Tensor] | None = None

    def page(self, key: int, number: int) -> Shaped[torch.Tensor, "B ..."]:
        """Returns a page of an image's draws; the last one is kept: blocks end within pages."""
        # Blocks go through the draws in order, so the page asked for is mostly the last one.
        if self._page is None or self._page[0] != (key, number):
            text = f"{self._seed} {key} {number} {self.purpose}".rstrip()
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            # Seeded for each page, so that a page does not depend on those drawn before.
            self._generator.manual_seed(int.from_bytes(digest, "little") >> 1)
            self._page = (key, number), self._drawn((PAGE, *self._shape))
        return self._page[1]

    def _drawn(self, shape: tuple[int, ...]) -> torch.Tensor:
        raise NotImplementedError


class StandardNormal(_KeyedPages):
    """Standard-normal draws of images from torch's generator of their device."""

    def _drawn(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(
            shape, generator=self._generator, device=self._device, dtype=torch.float32
        )


class RandomWords(_KeyedPages):
    """Random 32-bit words of images, as int64, from torch's generator of their device."""

    def __init__(
        self, seed: int, shape: tuple[int, ...], device: torch.device, purpose: str
    ) -> None:
        """Takes a purpose; another one has other words, independent of these."""
        super().__init__(seed, shape, device)
        self.purpose = purpose

    def _drawn(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(
            NUM_WORDS, shape, generator=self._generator, device=self._device, dtype=torch.int64
        )


@dataclass(kw_only=True, eq=False)
class ShardDraws:
    """The draws of all copies of some images, image after image.

    Attributes:
        seed: of the noise.
        keys: `(M,)` of the images.
        draws: which ones of each image.
        shape: of an image.
        device: where they are made.
        constants: what perturbations keep on the device, by name.
    """

    seed: int
    keys: UInt64[np.ndarray, " M"]
    draws: range
    shape: tuple[int, ...]
    device: torch.device
    constants: dict[str, torch.Tensor]
    _pages: dict[tuple[str, tuple[int, ...]], _KeyedPages] = field(default_factory=dict, init=False)

    @property
    def num_rows(self) -> int:
        """Returns the number of copies."""
        return len(self.keys) * len(self.draws)

    def parts(self, first: int, stop: int) -> Iterator[tuple[slice, int, int]]:
        """Yields the copies of one image after another, among those from `first` to `stop` - 1.

        Each is a slice of rows from `first` on, the image, and the first draw.
        """
        length = len(self.draws)
        for image, begin, end in split(first, min(stop, self.num_rows), length):
            first_draw = self.draws.start + begin - image * length
            yield slice(begin - first, end - first), image, first_draw

    def owners(self, first: int, num_rows: int) -> Int[torch.Tensor, " B"]:
        """Returns which image each row is a copy of; rows beyond the last count as the last's."""
        return self._rows(first, num_rows).div_(len(self.draws), rounding_mode="floor")

    def numbers(self, first: int, num_rows: int) -> Int64[torch.Tensor, " B"]:
        """Returns the number of each row's draw; rows beyond the last have the last's."""
        return self._rows(first, num_rows).remainder_(len(self.draws)).add_(self.draws.start)

    def pages(self, purpose: str, shape: tuple[int, ...]) -> _KeyedPages:
        """Returns the pages of a purpose, made at the first use."""
        if (purpose, shape) not in self._pages:
            self._pages[purpose, shape] = (
                RandomWords(self.seed, shape, self.device, purpose)
                if purpose != NORMAL
                else StandardNormal(self.seed, shape, self.device)
            )
        return self._pages[purpose, shape]

    def _rows(self, first: int, num_rows: int) -> Int64[torch.Tensor, " B"]:
        rows = torch.arange(first, first + num_rows, device=self.device)
        return rows.clamp_(max=self.num_rows - 1)


class BlockDraws:
    """The draws of a block's rows, made when they are first asked for.

    Rows beyond the last copy, which fill up the block, have no noise.
    """

    def __init__(self, shard: ShardDraws, first: int, num_rows: int) -> None:
        self._shard, self._first, self._num_rows = shard, first, num_rows
        self._drawn: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def numbers(self) -> Int64[torch.Tensor, " B"]:
        """Returns the number of each row's draw."""
        return self._shard.numbers(self._first, self._num_rows)

    def normal(self) -> Float32[torch.Tensor, "B ..."]:
        """Returns standard-normal draws, the same for all perturbations of the block."""
        return self._of_pages(NORMAL, self._shard.shape, torch.float32)

    def words(self, purpose: str, shape: tuple[int, ...]) -> Int64[torch.Tensor, "B ..."]:
        """Returns random 32-bit words of the device, the same for all that ask for a purpose."""
        return self._of_pages(purpose, shape, torch.int64)

    def from_host(
        self, parameters: Callable[[Stream, int], np.ndarray]
    ) -> Shaped[torch.Tensor, "B ..."]:
        """Returns parameters that the streams of the images give; zeros beyond the last copy."""
        found: np.ndarray | None = None
        for rows, stream in self._streams:
            own = parameters(stream, rows.stop - rows.start)
            if found is None:
                found = np.zeros((self._num_rows, *own.shape[1:]), own.dtype)
            found[rows] = own
        assert found is not None  # a block has at least one copy
        return sent(found, self._shard.device)

    def constant(self, name: str, make: Callable[[], np.ndarray]) -> Shaped[torch.Tensor, "..."]:
        """Returns what all blocks share, sent to the device once."""
        constants = self._shard.constants
        if name not in constants:
            constants[name] = sent(make(), self._shard.device)
        return constants[name]

    @cached_property
    def _streams(self) -> list[tuple[slice, Stream]]:
        # Kept for the block: perturbations share the words that they draw.
        shard = self._shard
        return [
            (
                rows,
                Stream(shard.seed, int(shard.keys[image]), first_draw=draw, scratch=Scratch()),
            )
            for rows, image, draw in shard.parts(self._first, self._first + self._num_rows)
        ]

    def _of_pages(
        self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Shaped[torch.Tensor, "B ..."]:
        if (purpose, shape) in self._drawn:
            return self._drawn[purpose, shape]
        shard, pages = self._shard, self._shard.pages(purpose, shape)
        drawn = torch.zeros((self._num_rows, *shape), dtype=dtype, device=shard.device)
        for rows, image, draw in shard.parts(self._first, self._first + self._num_rows):
            # Rows count copies of all images, pages the draws of one.
            for page, begin, end in split(draw, draw + rows.stop - rows.start, PAGE):
                to_row = rows.start - draw
                own = pages.page(int(shard.keys[image]), page)
                drawn[begin + to_row : end + to_row] = own[begin - page * PAGE : end - page * PAGE]
        self._drawn[purpose, shape] = drawn
        return drawn


def split(first: int, stop: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yields the parts of first ... stop - 1 that lie within one stretch of `length`.

    Each is the number of the stretch, start, stop.
    """
    for number in range(first // length, -(-stop // length)):
        yield number, max(first, number * length), min(stop, (number + 1) * length)


def sent(array: np.ndarray, device: torch.device) -> Shaped[torch.Tensor, "..."]:
    """Returns an array on a device."""
    if device.type == "mps" and array.dtype == np.float64:
        array = array.astype(np.float32)  # it has no other
    tensor = torch.tensor(array)  # a copy: constants may be read-only
    # From pinned memory the copy does not wait for the device's work so far.
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else (tensor.to(device))
    )
