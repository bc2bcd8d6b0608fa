"""Images as callers give them, checked and as one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wobbliness.classifiers.base import as_array
from wobbliness.perturbations.base import InputValues
from wobbliness.runtime.errors import reason_of
from wobbliness.sampling.input_values import check_range, check_type

PICTURE_CHANNELS = (1, 3, 4)
WAY_TO_AN_ARRAY = (
    "stack them, torch.stack(list) or np.stack(list), pictures channels first and divided by 255, "
    "or use read_images"
)


def checked_images(
    images: Any, *, with_channels_first: bool = True, values: InputValues = InputValues.UNIT
) -> np.ndarray:
    """Returns images as an array without a copy: floats in [0, 1], channels first.

    Args:
        images: of a caller.
        with_channels_first: whether to refuse channels that are the last axis.
        values: what the perturbation takes in place of floats in [0, 1].

    Raises:
        ValueError: they are none, or none at all.
    """
    array = _as_array(images)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            "expected images of shape (N, ...), at least one and none empty, "
            f"got shape {array.shape}"
        )
    check_type(array, values)
    if with_channels_first:
        check_channels_first(array)
    check_range(array, values)
    return array


def check_channels_first(images: np.ndarray) -> None:
    """Raises ValueError for pictures with the channels last."""
    if (
        images.ndim == 4
        and images.shape[1] not in PICTURE_CHANNELS
        and images.shape[3] in PICTURE_CHANNELS
    ):
        raise ValueError(f"expected pictures channels first (N, C, H, W), got shape {images.shape}")


def _as_array(images: Any) -> np.ndarray:
    """Returns an array, a tensor, or a list of equal ones as an array.

    Raises:
        ValueError: it only leads to images, as a data set does.
    """
    # Without an import of torch: what has `detach` is a tensor.
    if hasattr(images, "detach"):
        return _of_tensor(images)
    if isinstance(images, list | tuple) and not any(
        isinstance(image, list | tuple) for image in images
    ):
        return _stacked(images)
    if not hasattr(images, "__array__") and not isinstance(images, list | tuple):
        raise ValueError(
            "expected images as one array or tensor (N, ...) of floats in [0, 1], "
            f"got {type(images).__name__}; {WAY_TO_AN_ARRAY}"
        )
    return np.asarray(images)


def _of_tensor(images: Any) -> np.ndarray:
    """Returns numbers of a tensor; of a type unknown to arrays, as bfloat16, as float32."""
    try:
        return as_array(images)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        kind = f"a tensor of {images.dtype} on {images.device}"
        raise ValueError(
            f"expected images as plain numbers, got {kind}: {reason_of(error)}"
        ) from error


def _stacked(images: Sequence[Any]) -> np.ndarray:
    """One array of a list of arrays or tensors."""
    arrays = [_of_tensor(image) if hasattr(image, "detach") else image for image in images]
    strange = [image for image in arrays if not isinstance(image, np.ndarray)]
    if strange:
        raise ValueError(
            "expected arrays or tensors of images, "
            f"got a list with {type(strange[0]).__name__}; {WAY_TO_AN_ARRAY}"
        )
    shapes = sorted({image.shape for image in arrays})
    if len(shapes) > 1:
        raise ValueError(f"expected images of one shape, got {shapes[0]} and {shapes[1]} in a list")
    return np.stack(arrays) if arrays else np.empty(0)
