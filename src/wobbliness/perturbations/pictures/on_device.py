"""Interpolation of pictures on a device, as `scipy.ndimage` does them on the host."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def places(images: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Returns the row `(H, 1)` and the column `(1, W)` of each pixel of pictures `(B, C, H, W)`."""
    import torch

    # In float64, as on the host; `mps` has none.
    dtype = torch.float32 if images.device.type == "mps" else torch.float64
    rows, columns = (
        torch.arange(size, dtype=dtype, device=images.device) for size in images.shape[2:]
    )
    return rows[:, None], columns[None]


def interpolated(
    images: "torch.Tensor", rows: "torch.Tensor", columns: "torch.Tensor"
) -> "torch.Tensor":
    """Returns the values of pictures at places between their pixels, interpolated linearly.

    Beyond the edge its last pixel is repeated.

    Args:
        images: pictures `(B, C, H, W)`.
        rows: of the place of each pixel, `(B, H, W)`.
        columns: the same.
    """
    (top, bottom, down), (left, right, across) = (
        _neighbours(at, size) for at, size in zip((rows, columns), images.shape[2:], strict=True)
    )
    upper = _mixed(_values(images, top, left), _values(images, top, right), across)
    lower = _mixed(_values(images, bottom, left), _values(images, bottom, right), across)
    return _mixed(upper, lower, down)


def _neighbours(
    at: "torch.Tensor", size: int
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Returns the pixels before and after each place of an axis, and the weight of the latter."""
    import torch

    kept = at.clamp(0, size - 1)
    before = kept.floor()
    # Subtracted in the type of the places, and only then rounded to that of pixels.
    weight = (kept - before).to(torch.float32)[:, None]
    first = before.to(torch.int64)
    # The last pixel has none after it; the weight is 0 there.
    return first, (first + 1).clamp_(max=size - 1), weight


def _values(
    images: "torch.Tensor", rows: "torch.Tensor", columns: "torch.Tensor"
) -> "torch.Tensor":
    """Returns `images[b, c, rows[b, h, w], columns[b, h, w]]`."""
    # One flat index for all channels, expanded over them without a copy.
    flat = (rows * images.shape[3] + columns).flatten(1)[:, None]
    found = images.flatten(2).gather(2, flat.expand(-1, images.shape[1], -1))
    return found.view_as(images)


def _mixed(first: "torch.Tensor", second: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    """Returns the weighted mean."""
    # One product, and exact where both values are equal.
    return first + weight * (second - first)
