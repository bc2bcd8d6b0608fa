"""The steps of a Hugging Face image processor.

The processor resizes and crops pictures itself when they are read; torch does the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

# torch's modes by PIL's codes for resampling. Lanczos, box and Hamming have no counterpart.
MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
# The side from which on ConvNeXt's processor resizes without cropping.
WARPING_SIZE = 384
# Of the picture that a processor is compared on, neither square nor of a usual size.
TEST_PICTURE_SIZE = (37, 53)
MAX_SIDE = 2048
"""Pixels of a side that a processor may resize, crop or pad to; usual networks take up to 1024."""

MAX_RESIZED_PIXELS = 8192 * 8192
"""Pixels that a picture may have between resizing and cropping.

A strip that is far longer than wide would grow beyond any bound.
"""

# Settings of the steps behind resizing and cropping, which `Preparation` does itself.
_AFTER_FITTING = (
    "do_rescale",
    "do_normalize",
    "do_flip_channel_order",
    "include_top",
    "rescale_offset",
)
_SIZES = ("size", "crop_size", "pad_size")


class PictureFit:
    """A callable that resizes and crops 8-bit pictures by a Hugging Face image processor."""

    def __init__(self, processor: Any, num_channels: int) -> None:
        """Wraps an image processor.

        Raises:
            ValueError: it resizes to more than MAX_SIDE pixels, or does something else to a
                picture.
        """
        settings = processor.to_dict()
        self._processor, self.num_channels = processor, num_channels
        self._off = {name: False for name in _AFTER_FITTING if name in settings}
        self._largest_side = _largest_side(settings)

    def __call__(self, picture: UInt8[np.ndarray, "C H W"]) -> UInt8[np.ndarray, "C h w"]:
        """Returns the picture as the network sees it.

        Raises:
            ValueError: it is so long and narrow that it would grow beyond MAX_RESIZED_PIXELS.
        """
        short, long = sorted(picture.shape[1:])
        # The shorter side becomes `_largest_side`, the longer one grows in proportion.
        if self._largest_side**2 * long > MAX_RESIZED_PIXELS * short:
            raise ValueError(
                f"expected a picture that the image processor does not blow up, got {short} x "
                f"{long} pixels"
            )
        fitted = _processed(self._processor, picture, **self._off)
        if fitted.ndim != 3 or len(fitted) != self.num_channels or fitted.dtype != np.uint8:
            raise _unsupported(self._processor)
        return fitted

    def image_shape(self) -> tuple[int | None, ...]:
        """The shape of its output: `(C, H, W)`; None for sizes that depend on the picture's."""
        height, width = TEST_PICTURE_SIZE
        sides = [
            self(np.zeros((self.num_channels, *size), np.uint8)).shape[1:]
            for size in ((height, width), (width, height))
        ]
        return (self.num_channels, *(sides[0] if sides[0] == sides[1] else (None, None)))


class Preparation(nn.Module):
    """A torch module from pictures in [0, 1] to the input of a Hugging Face network.

    Pictures that were fitted by the processor (see PictureFit) are scaled and normalised. Those of
    another size are resized and cropped here before; that rounds nothing to 8 bits and cuts nothing
    off at 0 and 1, since noisy pictures are no 8-bit ones.

    Attributes:
        size: height and width of fitted pictures; None inside where they depend on the picture.
        geometry: how other pictures are brought to it; None for a processor that torch cannot
            follow.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        settings: Mapping[str, Any],
        num_channels: int,
        size: tuple[int | None, ...] | None = None,
    ) -> None:
        """Reads a processor's settings, and the size of fitted pictures where it is known."""
        super().__init__()
        self.geometry = _geometry(settings)
        self.size = size or (self.geometry.size if self.geometry else (None, None))
        self.flips = bool(settings.get("do_flip_channel_order"))
        # Processors start from 0 to 255, pictures here are in [0, 1].
        self.factor = (
            255 * float(settings["rescale_factor"]) if settings.get("do_rescale") else 255.0
        )
        mean, std = _normalisation(settings, num_channels)
        self.register_buffer("mean", torch.from_numpy(mean)[:, None, None])
        self.register_buffer("std", torch.from_numpy(std)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepares pictures."""
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"expected images (B, {len(self.mean)}, H, W), got {tuple(images.shape)}"
            )
        if None in self.size or tuple(images.shape[-2:]) != self.size:
            images = self._resized(images)
        if self.flips:
            images = images.flip(1)
        return (images * self.factor - self.mean) / self.std

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        if self.geometry is not None:
            return self.geometry.apply(images)
        if self.size == (None, None):
            return images
        height, width = self.size
        raise ValueError(
            f"expected pictures of {height} x {width}, got {tuple(images.shape[-2:])}; fit them "
            "(fit_images), as read_images does"
        )


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A description of how pictures are resized and cropped in torch.

    Attributes:
        resized: height and width to resize to.
        shortest_edge: or the side that becomes so long, the other in proportion.
        crop: height and width of the central part that is kept.
        mode: of torch's interpolation.
    """

    resized: tuple[int, int] | None = None
    shortest_edge: int | None = None
    crop: tuple[int, int] | None
    mode: str

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of the output."""
        return self.crop or self.resized or (None, None)

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Resizes, unless a picture has the wanted size, and crops."""
        wanted = self._wanted(*images.shape[-2:])
        if wanted != tuple(images.shape[-2:]):
            # PIL averages over all pixels that become one, which torch calls antialiasing.
            smooth = self.mode in ("bilinear", "bicubic")
            images = nn.functional.interpolate(
                images, size=wanted, mode=self.mode, antialias=smooth
            )
        return images if self.crop is None else _cropped(images, *self.crop)

    def _wanted(self, height: int, width: int) -> tuple[int, int]:
        if self.shortest_edge is None:
            return self.resized or (height, width)
        short, long = sorted((height, width))
        other = int(self.shortest_edge * long / short)
        return (self.shortest_edge, other) if height <= width else (other, self.shortest_edge)


def check_preparation(preparation: Preparation, processor: Any) -> None:
    """Raises ValueError unless fitting and preparing a picture equals the processor's output.

    A module that does not resize as the processor does, up to rounding to 8 bits, drops its
    geometry and takes fitted pictures only.
    """
    picture = _check_picture(len(preparation.mean))
    theirs = _processed(processor, picture)
    fitted = PictureFit(processor, len(picture))(picture)
    # Factor from units of the result to steps of 8 bits.
    steps = preparation.std.min().item() / (preparation.factor / 255)
    # The same numbers up to rounding; written so that NaN fails.
    if not _differ_by(theirs, preparation(_unit(fitted)), steps) <= 0.01:
        raise _unsupported(processor)
    # PIL rounds to 8 bits after each of the two directions, which makes a step or two.
    try:
        follows = _differ_by(theirs, preparation(_unit(picture)), steps) <= 3
    except (ValueError, RuntimeError):  # a crop larger than the picture
        follows = False
    if not follows:
        preparation.geometry = None


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Raises ValueError where a processor asks for pictures larger than MAX_SIDE."""
    _largest_side(settings)


def _largest_side(settings: Mapping[str, Any]) -> float:
    """Returns the largest length of the shorter side at any step."""
    sides = [side for name in _SIZES for side in _sides(settings.get(name))]
    for side in sides:
        if not (isinstance(side, int | float) and 0 < side <= MAX_SIDE):
            raise ValueError(
                f"expected an image processor that gives 1 to {MAX_SIDE} pixels a side, got "
                f"{str(side)[:40]}"
            )
    # ConvNeXt's resizes to a side of edge / share before it crops to the edge.
    share = settings.get("crop_pct")
    if share is not None and not (isinstance(share, int | float) and 0.1 <= share <= 1):
        raise ValueError(
            "expected an image processor that keeps a share of 0.1 to 1 of a side, got "
            f"{str(share)[:40]}"
        )
    # LeViT's processor resizes to 256 / 224 of the side that it crops to.
    return max(sides, default=1) / (share or 1) * 256 / 224


def _sides(size: Any) -> list[Any]:
    if isinstance(size, Mapping) or hasattr(size, "items"):
        return [side for side in dict(size).values() if side is not None]
    if size is None or isinstance(size, bool):
        return []
    return list(size) if isinstance(size, list | tuple) else [size]


def _processed(processor: Any, picture: UInt8[np.ndarray, "C H W"], **settings: bool) -> np.ndarray:
    """Runs a processor on one picture, in the form that its pipeline uses."""
    from PIL import Image

    source: Any = picture.transpose(1, 2, 0)
    # PIL knows no pictures of other numbers of channels, for which an array has to name its layout.
    if len(picture) == 3:
        source = Image.fromarray(source)
    else:
        settings["input_data_format"] = "channels_last"  # type: ignore[assignment]
    return np.asarray(processor(source, return_tensors="np", **settings)["pixel_values"][0])


def _check_picture(num_channels: int) -> UInt8[np.ndarray, "C H W"]:
    rows, columns = np.meshgrid(
        *(np.linspace(0, 1, side) for side in TEST_PICTURE_SIZE), indexing="ij"
    )
    # Smooth ramps, different in each channel: another crop, size or order of channels shows.
    channels = [rows, columns, (rows + columns) / 2, (1 + rows - columns) / 2]
    picture = np.stack([channels[channel % 4] for channel in range(num_channels)])
    return np.asarray(np.round(255 * (0.1 + 0.8 * picture)), np.uint8)


def _unit(picture: UInt8[np.ndarray, "C H W"]) -> torch.Tensor:
    return torch.from_numpy(picture[None] / np.float32(255))


def _differ_by(theirs: np.ndarray, ours: torch.Tensor, steps: float) -> float:
    prepared = ours.numpy()[0]
    if theirs.shape != prepared.shape:
        return float("inf")
    return float(np.abs(theirs - prepared).max() * steps)


def _unsupported(processor: Any) -> ValueError:
    name = type(processor).__name__
    return ValueError(
        f"expected an image processor that resizes, crops, scales and normalises, got {name}, "
        "which does more"
    )


def _normalisation(settings: Mapping[str, Any], num_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each channel over all steps that shift and scale."""
    normalises = bool(settings.get("do_normalize"))
    mean, std = (
        np.broadcast_to(
            np.float32(settings[f"image_{name}"] if normalises else neutral), (num_channels,)
        ).copy()
        for name, neutral in (("mean", 0.0), ("std", 1.0))
    )
    # EfficientNet's processor maps to [-1, 1] first.
    if settings.get("do_rescale") and settings.get("rescale_offset"):
        mean += 1
    # EfficientNet's processor divides by the standard deviation a second time.
    if settings.get("include_top"):
        std *= np.float32(settings["image_std"])
    return mean, std


def _geometry(settings: Mapping[str, Any]) -> Geometry | None:
    """Reads a processor's settings; None for those that torch cannot reproduce."""
    try:
        return _read_geometry(settings)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _read_geometry(settings: Mapping[str, Any]) -> Geometry:
    crop = _height_and_width(settings["crop_size"]) if settings.get("do_center_crop") else None
    if not settings.get("do_resize"):
        return Geometry(crop=crop, mode="")
    size, mode = settings["size"], MODES[int(cast(int, settings["resample"]))]
    edge, share = size.get("shortest_edge"), settings.get("crop_pct")
    if edge is None:
        return Geometry(resized=_height_and_width(size), crop=crop, mode=mode)
    if share is None:
        return Geometry(shortest_edge=int(edge), crop=crop, mode=mode)
    # ConvNeXt: from WARPING_SIZE on pictures are resized to the square; below, their shorter side
    # becomes edge / share, and the square is cropped.
    square = (int(edge), int(edge))
    if edge >= WARPING_SIZE:
        return Geometry(resized=square, crop=crop, mode=mode)
    return Geometry(shortest_edge=int(edge / share), crop=square, mode=mode)


def _height_and_width(size: Mapping[str, Any]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])


def _cropped(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Crops the central part."""
    missing = (images.shape[-2] < height, images.shape[-1] < width)
    if any(missing):
        raise ValueError(
            f"expected pictures of at least {height} x {width}, got {tuple(images.shape[-2:])}"
        )
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
