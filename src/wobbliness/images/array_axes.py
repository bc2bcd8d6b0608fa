"""The meaning of an array's axes (images, channels, rows, columns), given a classifier's shape."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from wobbliness.images.fitting import FittedShape, Target
from wobbliness.images.image_set import ImageSet, row_names
from wobbliness.images.values import check_range, unit_values

# times as wide as high: beyond, an array of two axes is taken for flattened pictures
MAX_ASPECT_RATIO = 16


def image_set_of(
    array: np.ndarray, labels: Int[np.ndarray, " N"] | None, target: Target, path: Path | str
) -> ImageSet:
    """Converts an array from a file to images that fit a classifier.

    Raises:
        ValueError: its values are no pixels, its axes can be read in several ways, or as for
            `Target.fit_all`.
    """
    if array.ndim < 2:
        raise ValueError(f"expected images of shape (N, ...), got shape {array.shape} in {path}")
    if target.as_stored:
        return _set_of(array, labels)
    array = with_image_axis(array, target, str(path), is_set=labels is not None)
    try:
        images = unit_values(array)
    except ValueError as error:
        raise ValueError(f"{error} in {path}") from None
    check_range(images, str(path))
    # Contiguous: moved axes are views, which each forward pass would copy again.
    return _set_of(target.fit_all(np.ascontiguousarray(images)), labels)


def _set_of(images: np.ndarray, labels: Int[np.ndarray, " N"] | None) -> ImageSet:
    return ImageSet(
        images=images,
        labels=None if labels is None else labels.astype(np.int64),
        names=row_names(len(images)),
        class_names=None,
    )


def with_image_axis(array: np.ndarray, target: Target, name: str, *, is_set: bool) -> np.ndarray:
    """Returns the array as `(N, ...)`, channels first, as far as the declared shape decides it.

    One picture `(C, H, W)`, `(H, W, C)` or, where it is grey, `(H, W)` becomes a set of one.
    Channels that are last, and could not be rows, become the first.

    Args:
        array: of a file.
        target: what the classifier declares.
        name: of the array, for messages.
        is_set: whether its first axis is known to count images, by their labels.

    Raises:
        ValueError: one picture could have its channels first or last.
    """
    shape = target.image_shape
    if shape is None or len(shape) != 3:
        return array
    if array.ndim == 2 and not is_set and _may_be_grey(array, target):
        _check_not_flat(array, target, name)
        return array[None, None]
    # Three axes: several grey pictures, or one picture with its channels first or last.
    if array.ndim == 3 and not is_set:
        return _maybe_one_picture(array, target, name)
    if array.ndim == 4 and _has_channels_last(array.shape[1:], shape[0]):
        return np.moveaxis(array, -1, 1)
    return array


def _may_be_grey(array: np.ndarray, target: Target) -> bool:
    """Checks whether `(H, W)` may be one grey picture of the classifier's."""
    channels = target.image_shape[0] if target.image_shape else None
    return channels in (None, 1, 3) and _are_sides(array.shape, target)


def _maybe_one_picture(array: np.ndarray, target: Target, name: str) -> np.ndarray:
    """Returns `(N, H, W)` as it is, unless it is one picture of several channels."""
    channels = target.image_shape[0] if target.image_shape else None
    if channels is None:
        _check_rows(array, target, name)
        return array
    # One picture if its first or last axis is as long as the declared channels and the other two
    # may be its sides; grey pictures that match the declared sides exactly stay a set.
    first = channels > 1 and array.shape[0] == channels and _are_sides(array.shape[1:], target)
    last = array.shape[2] == channels and _are_sides(array.shape[:2], target)
    if first and last:
        raise ValueError(
            f"expected images of shape (N, ...), got shape {array.shape} in {name}: its channels "
            "may be the first or the last axis; add an axis for one picture, array[None], "
            "channels first"
        )
    if first:
        return array[None]
    grey = channels in (1, 3) and _are_exactly(array.shape[1:], target)
    if last and not grey:
        return np.moveaxis(array, -1, 0)[None]
    _check_rows(array, target, name)
    return array


def _check_rows(array: np.ndarray, target: Target, name: str) -> None:
    """Raises ValueError if `(N, H, W)` would be pictures of 1, 3 or 4 undeclared columns."""
    is_set = (
        array.shape[2] not in (1, 3, 4)
        or _are_exactly(array.shape[1:], target)
        or not _are_sides(array.shape[1:], target)
    )
    if not is_set and array.shape[1] > array.shape[2]:
        raise ValueError(
            f"expected images of shape (N, C, H, W), got shape {array.shape} in {name}, which may "
            "be one picture with its channels last; add an axis for one picture, array[None], or "
            "for the channels, array[:, None]"
        )


def _check_not_flat(array: np.ndarray, target: Target, name: str) -> None:
    """Raises ValueError where `(H, W)`, taken for one picture, may be flattened ones."""
    declared = [size for size in target.image_shape or () if size is not None]
    # As many columns as a whole picture has values, or far more than rows.
    is_declared = len(declared) == 3 and array.shape[1] == math.prod(declared)
    if not _are_exactly(array.shape, target) and (
        is_declared or array.shape[1] > MAX_ASPECT_RATIO * array.shape[0]
    ):
        raise ValueError(
            f"expected images of shape (N, C, H, W), got shape {array.shape} in {name}, which may "
            "be flattened pictures; reshape them, or add two axes for one picture, array[None, "
            "None]"
        )


def _has_channels_last(sizes: Sequence[int], channels: int | None) -> bool:
    # (1, H, 3) may be grey pictures of three columns, which a classifier of colour takes, too.
    return (
        channels is not None
        and sizes[2] == channels
        and sizes[0] != channels
        and not (channels == 3 and sizes[0] == 1)
    )


def _are_sides(sizes: Sequence[int], target: Target) -> bool:
    """Checks for a possible height and width: those declared, or any where pictures are resized."""
    return (
        target.resize or isinstance(target.image_shape, FittedShape) or _are_declared(sizes, target)
    )


def _are_declared(sizes: Sequence[int], target: Target) -> bool:
    declared = (target.image_shape or ())[1:]
    return all(want in (None, got) for got, want in zip(sizes, declared, strict=True))


def _are_exactly(sizes: Sequence[int], target: Target) -> bool:
    """Checks whether these are the declared height and width, and both are declared."""
    return tuple(sizes) == tuple((target.image_shape or ())[1:])
