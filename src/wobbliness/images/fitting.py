"""The conversion of images to the shape that a classifier declares, or their refusal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from wobbliness.images.image_set import check_set_size
from wobbliness.images.values import check_range, unit_values
from wobbliness.runtime.errors import reason_of

ImageShape = Sequence[int | None] | None
"""Shape of one image, `(C, H, W)` for pictures; None inside: any size; None: not declared."""

MAX_SIDE = 8192
"""Pixels of a side that a user may have pictures scaled to."""

PictureFitting = Callable[[UInt8[np.ndarray, "C H W"]], UInt8[np.ndarray, "C h w"]]
"""Brings a picture of any size to the shape that a classifier takes."""


class FittedShape(tuple[int | None, ...]):
    """A shape with the method by which pictures of any size are brought to it.

    A classifier with its own image processor declares it, so that pictures are fitted to
    `image_shape` as that processor does it.

    Attributes:
        fit_picture: resizes and crops an 8-bit picture.
    """

    fit_picture: PictureFitting

    def __new__(cls, shape: Sequence[int | None], fit_picture: PictureFitting) -> "FittedShape":
        """Creates the shape of a fitted picture, and attaches the function that fits it."""
        # A tuple takes its values in __new__ and no others.
        made = super().__new__(cls, shape)
        made.fit_picture = fit_picture
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (tuple(self), self.fit_picture)


def fit_images(
    images: Float32[np.ndarray, "N ..."], image_shape: ImageShape, *, resize: bool = False
) -> Float32[np.ndarray, "N ..."]:
    """Converts images to the shape that a classifier declares.

    Grey pictures are repeated for a classifier of colour, and pictures whose channels are all equal
    are given as one channel to a classifier of grey ones; an array `(N, H, W)` gets its channel
    axis. Neither loses anything. Another size is scaled only where `resize` allows it: both axes by
    themselves, bilinear and antialiased (Pillow's, on float values), as
    `torchvision.transforms.v2.Resize((H, W))` does up to rounding.

    A model of Hugging Face declares how its image processor resizes and crops: pictures of any size
    are fitted in that way, by Pillow on 8-bit values. Floats are rounded to 8 bits where this
    changes a picture.

    >>> fit_images(np.zeros((5, 1, 8, 8), np.float32), (3, None, None)).shape
    (5, 3, 8, 8)

    Args:
        images: `(N, C, H, W)` or `(N, ...)` in [0, 1].
        image_shape: the classifier's `image_shape`: of one image, channels first; None inside for
            any size; None if not declared.
        resize: scale pictures of another size.

    Raises:
        ValueError: the images do not fit and may not be made to; or `resize` is asked for and no
            size is declared.
    """
    return Target(image_shape=image_shape, resize=resize).fit_all(images)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The target shape and size of images; none where values are taken as stored."""

    image_shape: ImageShape = None
    resize: bool = False
    as_stored: bool = False

    @classmethod
    def of_size(cls, image_shape: ImageShape, size: tuple[int, int]) -> "Target":
        """Creates the target of pictures scaled to a height and width that the user chose.

        Raises:
            ValueError: the classifier declares another size, its own method of fitting, or no
                pictures.
        """
        shape = (None, None, None) if image_shape is None else tuple(image_shape)
        if isinstance(image_shape, FittedShape) or len(shape) != 3 or not _fits(size, shape[1:]):
            raise ValueError(
                f"expected no size for a classifier that declares {_text(shape)}, got {_text(size)}"
            )
        if not all(1 <= side <= MAX_SIDE for side in size):
            raise ValueError(f"expected a size of 1 to {MAX_SIDE} pixels a side, got {_text(size)}")
        return cls(image_shape=(shape[0], *size), resize=True)

    def __post_init__(self) -> None:
        if isinstance(self.image_shape, FittedShape):
            return
        if self.resize and (
            self.picture_shape is None
            or len(self.picture_shape) != 3
            or None in self.picture_shape[1:]
        ):
            raise ValueError(
                "expected a classifier that declares the size to resize pictures to, "
                f"got {_text(self.image_shape) or 'none'}; give a size (size=(H, W), --size HxW)"
            )

    @property
    def picture_shape(self) -> ImageShape:
        """The shape of a picture; a classifier of `(H, W)` takes grey pictures `(1, H, W)`."""
        shape = self.image_shape
        return (1, *shape) if shape is not None and len(shape) == 2 else shape

    def fit_all(self, images: Float32[np.ndarray, "N ..."]) -> Float32[np.ndarray, "M ..."]:
        """Fits all images of an array; returns the array itself where nothing is to be done."""
        shape = self.picture_shape if images.ndim == 4 else self.image_shape
        if shape is None:
            return images
        if images.ndim == 3 and len(shape) == 3:
            if shape[0] not in (None, 1) and _fits(images.shape, shape):
                raise ValueError(
                    f"expected images of shape (N, ...), got {images.shape}, one picture or as "
                    "many grey ones; add an axis for one picture, images[None], or for the "
                    "channels, images[:, None]"
                )
            images = images[:, None]
        # A processor may crop or scale even what has its size.
        if _fits(images.shape[1:], shape) and not isinstance(shape, FittedShape):
            return images
        if images.ndim != 4 or len(shape) != 3:
            raise ValueError(
                f"expected images of shape {_text(shape)} each, as the classifier declares, got "
                f"{_text(images.shape[1:])}"
            )
        return self._fit_each(images)

    def _fit_each(self, images: Float32[np.ndarray, "N C H W"]) -> Float32[np.ndarray, "N c h w"]:
        # The first tells the size of all, which is checked before the memory is taken.
        first = self.fit(images[0], "image 0")
        check_set_size((len(images), *first.shape), "the images fitted to the classifier")
        fitted = np.empty((len(images), *first.shape), np.float32)
        for row, image in enumerate(images):
            fitted[row] = unit_values(self.fit(image, f"image {row}"))
        return fitted

    def fit(self, picture: np.ndarray, name: str) -> np.ndarray:
        """Fits one picture `(C, H, W)`; its type of pixel stays unless it is scaled."""
        if self.picture_shape is None:
            return picture
        if len(self.picture_shape) != 3:
            raise ValueError(
                f"expected images of shape {_text(self.image_shape)}, as the classifier declares, "
                f"got picture {name}"
            )
        # The channels before the size: a processor of colour takes no grey.
        channels, height, width = self.picture_shape
        picture = with_channels(picture, channels, name)
        if isinstance(self.image_shape, FittedShape):
            return _fitted(picture, self.image_shape.fit_picture, name)
        if _fits(picture.shape[1:], (height, width)):
            return picture
        if not self.resize or height is None or width is None:
            raise _other_size(picture.shape[1:], (height, width), name)
        return np.stack([_resized(channel, height, width) for channel in picture])


def _other_size(found: Sequence[int], wanted: Sequence[int | None], name: str) -> ValueError:
    return ValueError(
        f"expected pictures of {_text(wanted)} pixels, as the classifier "
        f"declares, got {_text(found)} in {name}; resize them (--resize) or "
        "choose others"
    )


def _fitted(picture: np.ndarray, fit_picture: PictureFitting, name: str) -> np.ndarray:
    """Resizes and crops a picture with the classifier's own processor.

    A picture whose pixels all stay as they are is not copied.
    """
    eight_bits = picture
    if picture.dtype != np.uint8:
        values = unit_values(picture)
        check_range(values, name)
        eight_bits = np.asarray(np.round(values * 255), np.uint8)
    try:
        fitted = fit_picture(eight_bits)
    except Exception as error:  # the processor's own classes
        expected = "expected a picture that the model's image processor takes"
        raise ValueError(f"{expected}, got {name}: {reason_of(error)}") from error
    # Pixels that stay are given back with all their bits, not as rounded ones.
    return picture if np.array_equal(fitted, eight_bits) else fitted


def with_channels(picture: np.ndarray, channels: int | None, name: str) -> np.ndarray:
    """Converts a picture to another number of channels if that loses nothing.

    Raises:
        ValueError: colours would be lost, or the channels have no common meaning.
    """
    found = picture.shape[0]
    if channels in (None, found):
        return picture
    # Lossless both ways: grey as three equal channels, and three equal channels as grey.
    if channels == 3 and found == 1:
        return np.repeat(picture, 3, axis=0)
    if channels == 1 and found == 3 and (picture == picture[:1]).all():
        return picture[:1]
    why = "; colours are not turned to grey" if channels == 1 and found == 3 else ""
    why = why or ("; are its channels last?" if picture.shape[2] == channels else "")
    raise ValueError(
        f"expected pictures of {channels} channels, as the classifier declares, got {found} in "
        f"{name}{why}"
    )


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(
        want in (None, got) for got, want in zip(found, wanted, strict=True)
    )


def _resized(channel: np.ndarray, height: int, width: int) -> Float32[np.ndarray, "H W"]:
    from PIL import Image

    # On floats: Pillow's filter would round 8-bit values after each axis.
    picture = Image.fromarray(np.ascontiguousarray(unit_values(channel)))
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    # the weights' rounding may lead out of the range by a last bit
    return np.asarray(np.clip(scaled, 0, 1))


def _text(shape: Sequence[int | None] | None) -> str:
    return (
        "" if shape is None else " x ".join("any" if size is None else str(size) for size in shape)
    )
