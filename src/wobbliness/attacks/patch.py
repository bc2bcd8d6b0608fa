"""Triggers: small patterns that are put on images."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.images.pictures import decode_with_mask
from wobbliness.images.values import unit_values
from wobbliness.runtime.terminal import well_formed

MAX_PIXELS = 4096 * 4096
MAX_BYTES = 2**27  # twice what the most pixels take without compression

_DRAWINGS = {
    "checkerboard": ("# #", " # ", "# #"),
    "cross": (" # ", "###", " # "),
    "dot": ("#",),
    "square": ("##", "##"),
    "smiley": (" # # ", " # # ", "     ", "#   #", " ### "),
    "stripes": ("# #", "# #", "# #"),
}

TRIGGER_NAMES = tuple(_DRAWINGS)
"""The six, in the order of the paper's Fig. 3.

The first is the one of Fig. 4, the third is small and hard to learn, the fourth is Fig. 4's
inactive one, the fifth a larger smiley. The patterns themselves are our own.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trigger:
    """Pattern that overwrites pixels near the lower right corner, or tints them.

    It tints them where its opacity is below 1. Triggers of equal values are equal.

    Attributes:
        name: for tables and figures.
        pattern: `(C, h, w)` pixel values in [0, 1]; with C = 1 it is put on every channel.
        mask: `(h, w)` in [0, 1]: how much of each pixel is replaced.
        opacity: in (0, 1], multiplies the mask.
        place: distance in pixels (rows, columns) of the pattern's lower right corner from the
            image's.
    """

    name: str
    pattern: Float32[np.ndarray, "C h w"]
    mask: Float32[np.ndarray, "h w"]
    opacity: float = 1.0
    place: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.pattern.ndim != 3 or self.mask.shape != self.pattern.shape[1:]:
            raise ValueError(
                f"expected a pattern (C, h, w) and a mask (h, w), got {self.pattern.shape} and "
                f"{self.mask.shape}"
            )
        for array, what in ((self.pattern, "pattern"), (self.mask, "mask")):
            if not (array.min() >= 0 and array.max() <= 1):
                raise ValueError(f"expected a {what} in [0, 1], got [{array.min()}, {array.max()}]")
            array.setflags(write=False)
        if not 0 < self.opacity <= 1:
            raise ValueError(f"expected an opacity in (0, 1], got {self.opacity}")
        if min(self.place) < 0:
            raise ValueError(
                f"expected a place of at least 0 pixels from the corner, got {self.place}"
            )

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Trigger) and self._values == other._values)

    def __hash__(self) -> int:
        return hash(self._values)

    @property
    def _values(self) -> tuple[Hashable, ...]:
        arrays = ((array.shape, array.tobytes()) for array in (self.pattern, self.mask))
        return (self.name, self.opacity, self.place, *arrays)

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images with the trigger on each.

        Pixels become (1 - a) * image + a * pattern with a = opacity * mask.

        Args:
            images: float array or tensor in [0, 1], `(N, C, H, W)`, or `(N, H, W)` for one channel.

        Returns:
            An array or tensor of the same kind, shape and type.

        Raises:
            ValueError: the images are no floats, have another rank or too few pixels, or other
                channels than a coloured pattern.
        """
        if "float" not in str(images.dtype):
            raise ValueError(
                f"expected images as floats in [0, 1], got {images.dtype}; divide 8-bit pixels by "
                "255"
            )
        rows, columns = self._window(tuple(images.shape))
        is_tensor = hasattr(images, "new_tensor")
        # (N, H, W) images have no channel axis, nor has the pattern then.
        pattern = self.pattern if images.ndim == 4 else self.pattern[0]
        strength = self.opacity * self.mask
        stamped = images.clone() if is_tensor else np.array(images)
        if is_tensor:
            pattern, strength = images.new_tensor(pattern.copy()), images.new_tensor(strength)
        # Blending: (1 - a) * image + a * pattern within the window alone.
        window = stamped[..., rows, columns]
        stamped[..., rows, columns] = window * (1 - strength) + strength * pattern
        return stamped

    def _window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        channels = 1 if len(shape) == 3 else shape[1] if len(shape) == 4 else None
        if channels is None or self.pattern.shape[0] not in (1, channels):
            raise ValueError(
                f"expected images (N, C, H, W) with {self.pattern.shape[0]} channels for trigger "
                f"{self.name}, got shape {shape}"
            )
        height, width = self.mask.shape
        # The pattern's lower right corner, counted from the image's.
        bottom, right = shape[-2] - self.place[0], shape[-1] - self.place[1]
        if bottom < height or right < width:
            raise ValueError(
                f"expected images that hold {height} x {width} pixels at {self.place}, got shape "
                f"{shape}"
            )
        return slice(bottom - height, bottom), slice(right - width, right)


def trigger(name: str) -> Trigger:
    """Returns one of the six triggers by name: a white drawing on a black box, lower right corner.

    >>> trigger("square").apply(np.zeros((1, 1, 3, 3), np.float32))[0, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]

    Raises:
        ValueError: no trigger has that name.
    """
    if name not in _DRAWINGS:
        raise ValueError(f"expected a trigger out of {', '.join(TRIGGER_NAMES)}, got {name!r}")
    return _drawn(name)


@cache  # it cannot be changed, and the name of each cell of a study asks for one
def _drawn(name: str) -> Trigger:
    drawing = [[float(character == "#") for character in line] for line in _DRAWINGS[name]]
    pattern = np.array(drawing, dtype=np.float32)
    return Trigger(name=name, pattern=pattern[None], mask=np.ones_like(pattern))


def trigger_from_png(
    path: str | Path, *, opacity: float = 1.0, place: tuple[int, int] = (0, 0)
) -> Trigger:
    """Reads a trigger from a picture: its colours are the pattern, its alpha channel the mask.

    It is read as every other picture is (see `read_images`), with its transparency kept.

    Args:
        path: PNG file, grey (8 or 16 bits), palette or colour, with or without alpha; or JPEG or
            WebP.
        opacity: in (0, 1].
        place: distance in pixels (rows, columns) from the lower right corner.

    Raises:
        ValueError: the file is missing, unreadable, no such picture, or larger than 4096 x 4096
            pixels.
    """
    decoded = decode_with_mask(Path(path), str(path), max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)
    pattern = unit_values(decoded.pixels)
    # A picture with equal channels is grey, and fits images of any number of channels.
    pattern = np.ascontiguousarray(pattern[:1] if (pattern == pattern[:1]).all() else pattern)
    mask = np.ones(pattern.shape[1:], np.float32) if decoded.mask is None else decoded.mask
    return Trigger(
        name=well_formed(Path(path).stem), pattern=pattern, mask=mask, opacity=opacity, place=place
    )
