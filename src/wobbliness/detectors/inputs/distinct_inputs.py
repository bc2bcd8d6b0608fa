"""Detection of copies among inputs.

Copies are no further points, and a test that takes them for such is wrong.
"""

from typing import Any

import numpy as np
from jaxtyping import Int, UInt64

from wobbliness.perturbations.base import image_keys

MAX_COPIES_SHARE = 0.5  # share of the inputs
# features from which on two inputs of the same grey levels are copies rather than alike by chance
FEW_VALUES = 16


def host_array(images: Any) -> np.ndarray:
    """Returns images as an array; a tensor's values without a copy where it is on the CPU."""
    return np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)


def taken(images: Any, rows: Int[np.ndarray, " D"]) -> Any:
    """Returns rows of inputs in their kind; where these are all, the inputs themselves."""
    return images if len(rows) == len(images) else images[rows]


def kept_rows(images: Any) -> Int[np.ndarray, " D"]:
    """Returns the rows of clean inputs without copies of others.

    Args:
        images: array or tensor; values beyond [0, 1] are refused where they are measured.

    Raises:
        ValueError: as `distinct_rows`.
    """
    array = host_array(images)
    if not (array.min() >= 0 and array.max() <= 1):
        return np.arange(len(array))
    return distinct_rows(array, "clean inputs")


def distinct_rows(images: np.ndarray, what: str) -> Int[np.ndarray, " D"]:
    """Returns the first row of each input that differs from those before.

    Two inputs of the same grey levels, of 256, are copies.

    Args:
        images: `(N, ...)` in [0, 1].
        what: the inputs are, for messages: `clean inputs`.

    Raises:
        ValueError: fewer than half differ from all others, or more than half have one value
            throughout.
    """
    rows = images.reshape(len(images), -1)
    if rows.shape[1] > 1 and (rows.max(axis=1) == rows.min(axis=1)).mean() > MAX_COPIES_SHARE:
        raise ValueError(
            f"expected {what} with content, got {len(rows)} of which most have one value throughout"
        )
    _, first = np.unique(content_keys(images), return_index=True)
    if len(first) < MAX_COPIES_SHARE * len(rows):
        raise ValueError(
            f"expected {what} that differ, got {len(rows)} of which {len(first)} do; leave out "
            "the copies"
        )
    return np.sort(first)


def content_keys(images: np.ndarray) -> UInt64[np.ndarray, " N"]:
    """Returns a key of each input, equal for those of the same grey levels, of 256.

    Args:
        images: `(N, ...)` in [0, 1].
    """
    rows = images.reshape(len(images), -1)
    # Equal grey levels are copies even where decoding or scaling changed the last digits.
    levels = np.rint(255 * rows).astype(np.int32) if rows.shape[1] >= FEW_VALUES else rows
    return image_keys(levels.astype(np.float32))
