"""What an image processor of Hugging Face does to a picture, as a torch module: resize, crop, scale, normalise."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # of PIL's codes for resampling
WARPING_SIZE = 384  # from which on ConvNeXt's processor resizes without cropping
CHECK_SIZE = (37, 53)  # of the picture that a processor is compared on, neither square nor of a usual size


class Preparation(nn.Module):
    """Pictures in [0, 1] to what a network of Hugging Face takes.

    Resizing is left out where a picture has the wanted size. It rounds nothing to 8 bits and cuts nothing off at 0 and 1, since
    noisy pictures are no 8-bit ones.

    Attributes:
        size: height and width after resizing a square picture, before the crop; None inside where nothing is resized.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: Mapping[str, Any], num_channels: int) -> None:
        """Reads the settings of a processor.

        Raises:
            ValueError: it resizes in a way that cannot be followed.
        """
        super().__init__()
        self._resizes, self._shortest_edge, self._crop = _geometry(settings)
        self._mode = _mode(settings) if self._resizes or self._shortest_edge else ""
        edge = self._shortest_edge
        self.size: tuple[int | None, int | None] = self._resizes or (edge, edge)
        self._factor = 255 * float(settings["rescale_factor"]) if settings.get("do_rescale") else 255.0
        normalises = bool(settings.get("do_normalize"))
        for name, neutral in (("mean", 0.0), ("std", 1.0)):
            values = settings[f"image_{name}"] if normalises else neutral
            column = torch.tensor(np.broadcast_to(np.float32(values), (num_channels,)).copy())
            self.register_buffer(name, column[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared pictures."""
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(f"expected images (B, {len(self.mean)}, H, W), got {tuple(images.shape)}")
        images = self._resized(images)
        if self._crop is not None:
            images = _cropped(images, *self._crop)
        return (images * self._factor - self.mean) / self.std

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        wanted = self._resizes or (height, width)
        if self._shortest_edge is not None:
            short, long = sorted((height, width))
            other = int(self._shortest_edge * long / short)
            wanted = (self._shortest_edge, other) if height <= width else (other, self._shortest_edge)
        if wanted == (height, width):
            return images
        smooth = self._mode in ("bilinear", "bicubic")
        return nn.functional.interpolate(images, size=wanted, mode=self._mode, antialias=smooth)


def check_preparation(preparation: Preparation, processor: Any) -> None:
    """ValueError unless the module does to a picture what the processor itself does, but for rounding to 8 bits."""
    height, width = CHECK_SIZE
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    picture = np.stack([rows, columns, (rows + columns) / 2][: len(preparation.mean)])
    picture = np.round(255 * (0.1 + 0.8 * picture)).astype(np.uint8)
    theirs = np.asarray(processor(picture.transpose(1, 2, 0), return_tensors="np")["pixel_values"])
    ours = preparation(torch.from_numpy(picture[None] / np.float32(255))).numpy()
    steps = preparation.std.min().item() / (preparation._factor / 255)  # one step of 8 bits, in units of the result
    if theirs.shape != ours.shape or not np.abs(theirs - ours).max() * steps <= 3:
        name = type(processor).__name__
        raise ValueError(f"expected an image processor that resizes, crops, scales and normalises, got {name}, which does more")


def _geometry(settings: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int | None, tuple[int, int] | None]:
    """The size to resize to, or the shortest edge, and the size of the central part that is kept."""
    crop = _height_and_width(settings["crop_size"]) if settings.get("do_center_crop") else None
    if not settings.get("do_resize"):
        return None, None, crop
    size = settings["size"]
    edge = size.get("shortest_edge")
    if edge is None:
        return _height_and_width(size), None, crop
    if settings.get("crop_pct") is not None:  # ConvNeXt
        square = (int(edge), int(edge))
        return (square, None, crop) if edge >= WARPING_SIZE else (None, int(edge / settings["crop_pct"]), square)
    return None, int(edge), crop


def _height_and_width(size: Mapping[str, Any]) -> tuple[int, int]:
    if size.get("height") is None or size.get("width") is None:
        raise ValueError(f"expected an image processor with a height and a width or a shortest edge, got {dict(size)}")
    return int(size["height"]), int(size["width"])


def _mode(settings: Mapping[str, Any]) -> str:
    resample = settings.get("resample")
    if resample is None or int(resample) not in MODES:
        raise ValueError(f"expected an image processor that resamples nearest, bilinear or bicubic, got {resample!r}")
    return MODES[int(cast(int, resample))]


def _cropped(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The central part."""
    missing = (images.shape[-2] < height, images.shape[-1] < width)
    if any(missing):
        raise ValueError(f"expected pictures of at least {height} x {width}, got {tuple(images.shape[-2:])}")
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
