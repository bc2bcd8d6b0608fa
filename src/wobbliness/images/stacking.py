"""The stacking of pictures, one by one, into one array."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wobbliness.images.fitting import Target, with_channels
from wobbliness.images.image_set import check_set_size
from wobbliness.images.pictures import decode_picture
from wobbliness.images.values import unit_values
from wobbliness.runtime.progress import progress_bar

Encoded = tuple[str, Path | bytes]
"""A picture's name, and its file or content."""


def stack_pictures(
    encoded: Iterable[Encoded], num_pictures: int, target: Target, name: str
) -> Float32[np.ndarray, "N C H W"]:
    """Decodes pictures one by one, each fitted before the next, into one array.

    Grey pictures among coloured ones are repeated to three channels: the same colours.

    Args:
        encoded: name and content of each.
        num_pictures: how many there are.
        target: what they are fitted to.
        name: of the set, for messages.

    Raises:
        ValueError: a picture cannot be read or fitted, has another size than the first, or the set
            is too large, or empty.
    """
    stack = _Stack(num_pictures, name)
    with progress_bar("reading pictures", num_pictures) as advance:
        for picture_name, content in encoded:
            stack.add(
                unit_values(target.fit(decode_picture(content, picture_name), picture_name)),
                picture_name,
            )
            advance(1)
    return stack.images()


class _Stack:
    """A stack of pictures whose memory is allocated with the first.

    By then it is known that they are not too many.
    """

    def __init__(self, num_pictures: int, name: str) -> None:
        self._num_pictures, self._name = num_pictures, name
        self._num_added = 0
        self._first_name = ""
        self._images: Float32[np.ndarray, "N C H W"] | None = None

    def add(self, picture: Float32[np.ndarray, "C H W"], name: str) -> None:
        if self._num_added == self._num_pictures:
            raise self._other_number("more")
        images = self._images
        if images is None:
            images, self._first_name = self._allocated(picture.shape), name
        self._check_size(picture.shape, images.shape, name)
        # The first coloured picture after grey ones: these are repeated to three channels.
        if len(picture) > images.shape[1]:
            grey, images = images, self._allocated(picture.shape)
            images[: self._num_added] = grey[: self._num_added]
        images[self._num_added] = with_channels(picture, images.shape[1], name)
        self._images = images
        self._num_added += 1

    def _check_size(self, shape: tuple[int, ...], stacked: tuple[int, ...], name: str) -> None:
        if shape[1:] != stacked[2:]:
            sizes = ["{} x {}".format(*sides[-2:]) for sides in (stacked, shape)]
            raise ValueError(
                f"expected pictures of one size, got {sizes[0]} in {self._first_name} and "
                f"{sizes[1]} in {name}; scale them to one (size=(H, W), --size HxW)"
            )

    def images(self) -> Float32[np.ndarray, "N C H W"]:
        if self._images is None:
            raise ValueError(f"expected at least one picture in {self._name}, got none")
        if self._num_added < self._num_pictures:
            raise self._other_number(str(self._num_added))
        return self._images

    def _other_number(self, got: str) -> ValueError:
        return ValueError(
            f"expected {self._num_pictures} pictures in {self._name}, as it states itself, got "
            f"{got}"
        )

    def _allocated(self, shape: tuple[int, ...]) -> Float32[np.ndarray, "N C H W"]:
        # Before the memory is taken; pages of `empty` are the system's until they are written.
        check_set_size((self._num_pictures, *shape), self._name)
        return np.empty((self._num_pictures, *shape), np.float32)
