"""Other images that an input is mixed with, checked once and compared by value."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.shapes import whole_numbers

if TYPE_CHECKING:
    import torch

MIN_OVERLAYS = 2
DIGEST_BYTES = 4


@dataclass(frozen=True, eq=False)
class Overlays:
    """Images to mix inputs with. Equal where all values are.

    Attributes:
        images: `(M, ...)` floats in [0, 1], array or tensor; kept as a read-only float32 copy.

    Raises:
        ValueError: they are fewer than two, or not within [0, 1].
    """

    images: Any

    def __post_init__(self) -> None:
        # Tensors are recognised without an import of torch.
        given = self.images.detach().cpu() if hasattr(self.images, "detach") else self.images
        array = np.asarray(given)
        if array.ndim < 2 or len(array) < MIN_OVERLAYS or array.dtype.kind != "f":
            raise ValueError(
                f"expected at least {MIN_OVERLAYS} overlays as floats (M, ...), got {array.dtype} "
                f"of shape {array.shape}"
            )
        # NaN fails both comparisons
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"expected overlays in [0, 1], got values from {array.min()} to {array.max()}"
            )
        # A copy of our own: the caller may change the array it gave.
        kept = np.array(array, dtype=np.float32, order="C")
        kept.setflags(write=False)
        object.__setattr__(self, "images", kept)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of values and shape, for names."""
        text = hashlib.blake2b(repr(self.images.shape).encode(), digest_size=DIGEST_BYTES)
        # In one byte order, so that names are the same on every machine.
        text.update(self.images.astype("<f4", copy=False).tobytes())
        return text.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overlays) and np.array_equal(self.images, other.images)

    def __hash__(self) -> int:
        # Equal values have equal digests; computed once, not from all values at each look-up.
        return hash(self.digest)

    def like(self, image: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "M ..."]:
        """Returns the overlays for an image.

        Raises:
            ValueError: they have another shape.
        """
        if self.images.shape[1:] != image.shape:
            raise ValueError(
                f"expected overlays of the shape of the inputs, {image.shape}, got "
                f"{self.images.shape[1:]}"
            )
        return np.asarray(self.images)

    def chosen(self, stream: Stream, draws: int) -> Int[np.ndarray, " B"]:
        """Returns the number of a random overlay for each draw of a page."""
        return whole_numbers(stream.words("overlay", 1, draws)[:, 0], len(self))

    def lowered(self, draws: DeviceDraws) -> "torch.Tensor":
        """Returns all overlays on the device of some draws, sent there once."""
        # By content: perturbations that mix in equal overlays share them on the device.
        found: torch.Tensor = draws.constant(f"overlays {self.digest}", lambda: self.images)
        return found

    def lowered_chosen(self, draws: DeviceDraws) -> "torch.Tensor":
        """Returns the random overlay of each row on a device, the one of the host."""
        return self.lowered(draws)[draws.from_host(self.chosen)]


def as_overlays(images: Any) -> Overlays:
    """Returns overlays as they are, and makes them of images."""
    return images if isinstance(images, Overlays) else Overlays(images)
