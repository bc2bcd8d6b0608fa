"""Pictures one by one into one array."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wobbliness.images.fitting import Target, with_channels
from wobbliness.images.image_set import check_set_size
from wobbliness.images.pictures import decode_picture
from wobbliness.images.values import unit_values
from wobbliness.progress import progress_bar

Encoded = tuple[str, Path | bytes]
"""A picture's name, and its file or content."""


def stack_pictures(encoded: Iterable[Encoded], num_pictures: int, target: Target, name: str) -> Float32[np.ndarray, "N C H W"]:
    """Decodes pictures one by one, each fitted before the next, into one array.

    Grey pictures among coloured ones are repeated to three channels: the same colours.

    Args:
        encoded: name and content of each.
        num_pictures: how many there are.
        target: what they are fitted to.
        name: of the set, for messages.

    Raises:
        ValueError: a picture cannot be read or fitted, has another size than the first, or the set is too large, or empty.
    """
    pictures = _decoded(encoded, target)
    first_name, first = next(pictures, (name, None))
    if first is None:
        raise ValueError(f"expected at least one picture in {name}, got none")
    stack = _allocated(num_pictures, first.shape, name)
    with progress_bar("reading pictures", num_pictures) as advance:
        stack[0] = first
        advance(1)
        for row, (picture_name, picture) in enumerate(pictures, start=1):
            if picture.shape[1:] != stack.shape[2:]:
                raise ValueError(
                    f"expected pictures of one size, got {first.shape[1]} x {first.shape[2]} in {first_name} and "
                    f"{picture.shape[1]} x {picture.shape[2]} in {picture_name}"
                )
            if len(picture) > stack.shape[1]:
                stack = _with_colour(stack, row, len(picture), name)
            stack[row] = with_channels(picture, stack.shape[1], picture_name)
            advance(1)
    return stack


def _decoded(encoded: Iterable[Encoded], target: Target) -> Iterator[tuple[str, Float32[np.ndarray, "C H W"]]]:
    for name, content in encoded:
        yield name, unit_values(target.fit(decode_picture(content, name), name))


def _allocated(num_pictures: int, shape: tuple[int, ...], name: str) -> Float32[np.ndarray, "N C H W"]:
    check_set_size((num_pictures, *shape), name)
    return np.empty((num_pictures, *shape), np.float32)


def _with_colour(
    stack: Float32[np.ndarray, "N c H W"], num_done: int, channels: int, name: str
) -> Float32[np.ndarray, "N C H W"]:
    coloured = _allocated(len(stack), (channels, *stack.shape[2:]), name)
    coloured[:num_done] = stack[:num_done]
    return coloured
