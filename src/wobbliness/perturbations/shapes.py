"""The shape that a perturbation needs, and the random boxes of several families."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int, UInt32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_share

if TYPE_CHECKING:
    import torch

# Of a random box by default, as shares of a side: 10 to 23 of 28 pixels.
SMALLEST, LARGEST = 0.36, 0.82


def checked_picture(image: Float32[np.ndarray, "..."], family: str) -> tuple[int, int, int]:
    """Returns channels, height and width of a picture.

    Raises:
        ValueError: it is no picture `(C, H, W)` of at least 2 x 2 pixels.
    """
    if image.ndim != 3 or min(image.shape[1:]) < 2:
        raise ValueError(
            f"expected pictures (C, H, W) for a perturbation of the kind {family}, got inputs of "
            f"shape {image.shape}"
        )
    channels, height, width = image.shape
    return channels, height, width


@dataclass(frozen=True)
class BoxSides:
    """Smallest and largest side of a random box, as shares of the picture's side.

    Raises:
        ValueError: they are not from 0 to 1, in order.
    """

    smallest: float
    largest: float

    def __post_init__(self) -> None:
        for field in ("smallest", "largest"):
            level = checked_level(getattr(self, field), f"the {field} side", at_most=1.0)
            object.__setattr__(self, field, level)
        if self.smallest > self.largest:
            raise ValueError(
                f"expected the smallest side up to the largest one, {self.largest:g}, got "
                f"{self.smallest:g}"
            )

    @property
    def area(self) -> str:
        """The share of a picture that a box has, for people."""
        return shown_share(self.smallest**2, self.largest**2)

    def boxes(
        self, stream: Stream, shape: tuple[int, ...], draws: int
    ) -> list[tuple[slice, slice]]:
        """Returns rows and columns of a box for each draw; the arguments are those of `bounds`."""
        return [
            (slice(top, bottom), slice(left, right))
            for (top, bottom), (left, right) in self.bounds(stream, shape, draws).tolist()
        ]

    def bounds(
        self, stream: Stream, shape: tuple[int, ...], draws: int
    ) -> Int[np.ndarray, "B 2 2"]:
        """Returns a box for each draw; sides and place are uniform over all whole numbers.

        Args:
            stream: of an image.
            shape: height and width of the picture.
            draws: of this page.

        Returns:
            Of rows and of columns, the first one and the one after the last.
        """
        # Words 0 and 1 decide the sides, 2 and 3 where the box starts.
        words = stream.words("box", 4, draws)
        bounds = np.empty((draws, 2, 2), np.int64)
        for axis, size in enumerate(shape):
            # Sides first: where a box can start depends on how large it is.
            least, most = (round(share * size) for share in (self.smallest, self.largest))
            sides = least + whole_numbers(words[:, axis], most - least + 1)
            starts = whole_numbers(words[:, 2 + axis], size - sides + 1)
            bounds[:, axis] = np.stack([starts, starts + sides], axis=1)
        return bounds

    def lowered(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns which pixels of copies on a device are in their boxes, those of the host."""
        size = tuple(images.shape[2:])
        # Four numbers a copy are cheap to send, and keep the boxes those of the host.
        return inside(draws.from_host(lambda stream, num: self.bounds(stream, size, num)), size)


def inside(bounds: "torch.Tensor", size: tuple[int, ...]) -> "torch.Tensor":
    """Returns which pixels are in boxes, a tensor `(B, 1, H, W)`.

    Args:
        bounds: tensor `(B, 2, 2)` as `BoxSides.bounds` has them.
        size: height and width.
    """
    import torch

    # A comparison along each axis, joined by broadcasting: no loop over copies.
    rows, columns = (
        (places >= bounds[:, axis, :1]) & (places < bounds[:, axis, 1:])
        for axis, places in enumerate(torch.arange(n, device=bounds.device) for n in size)
    )
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def whole_numbers(
    words: UInt32[np.ndarray, "..."], limit: int | Int[np.ndarray, "..."]
) -> Int[np.ndarray, "..."]:
    """Returns whole numbers from 0 to limit - 1 from 32-bit words: floor(word * limit / 2^32).

    >>> whole_numbers(np.array([0, 2**31, 2**32 - 1], np.uint32), 10).tolist()
    [0, 5, 9]
    """
    # No rejection, so each draw takes one word; the bias is below limit / 2^32.
    return np.asarray((words.astype(np.int64) * limit) >> 32)
