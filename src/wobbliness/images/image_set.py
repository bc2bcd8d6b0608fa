"""The result of reading images, and limits on its size."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from wobbliness.runtime.terminal import well_formed

MAX_SET_BYTES = 8 * 2**30
"""A set that takes more memory than this, as float32, is refused before memory is taken."""

MAX_EXPANSION = 100
"""How many times its stored size a compressed array or column may take."""

SMALL_BYTES = 64 * 2**20
"""What is no larger than this may expand as it likes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    r"""Images with what their source tells of each.

    Attributes:
        images: `(N, C, H, W)` pictures in [0, 1], or `(N, ...)` where an array holds no pictures;
            of any values where they were read as stored.
        labels: `(N,)` class of each image as the source states it; None where it states none.
        names: N names: the file's, relative to the folder that was read, or the row's number or
            path. A byte that is not UTF-8 reads `\xe9`: no table or page can hold it.
        class_names: names of the classes 0, 1, ..., where the source tells them; likewise.
    """

    images: Shaped[np.ndarray, "N ..."]
    labels: Int[np.ndarray, " N"] | None
    names: tuple[str, ...]
    class_names: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.images) or (
            self.labels is not None and len(self.labels) != len(self.images)
        ):
            raise ValueError(
                f"expected a name, and a label or none, for each of {len(self.images)} images"
            )
        # Frozen, so set this way: names come from file systems and may hold any bytes.
        object.__setattr__(self, "names", tuple(map(well_formed, self.names)))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(map(well_formed, self.class_names)))

    def __len__(self) -> int:
        return len(self.images)


def row_names(num_images: int) -> tuple[str, ...]:
    """Returns the rows' numbers, for sources without names."""
    return tuple(str(row) for row in range(num_images))


def check_set_size(shape: tuple[int, ...], name: str) -> None:
    """Raises ValueError where float32 images of this shape exceed the memory of a set."""
    # Python's integers do not overflow, whatever a header states.
    if math.prod(shape) * 4 > MAX_SET_BYTES:
        raise ValueError(
            f"expected images that take at most {MAX_SET_BYTES / 2**30:g} GiB as float32, got "
            f"shape {shape} in {name}; read them in parts"
        )


def check_expansion(unpacked: int, stored: int, name: str) -> None:
    """Raises ValueError where compressed content claims to grow like a decompression bomb."""
    if unpacked > max(SMALL_BYTES, MAX_EXPANSION * stored):
        raise ValueError(
            f"expected content that unpacks to at most {MAX_EXPANSION} times its stored size, "
            f"got {stored} bytes that unpack to {unpacked} in {name}"
        )
