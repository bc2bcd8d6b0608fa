"""What attacks on whole pictures share: checks of shapes, keyed draws, arrays and tensors alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Scratch, Stream
from wobbliness.perturbations.noise.uniform import uniform_draws


def checked_pictures(images: Any, attack: str) -> tuple[int, int, int]:
    """Returns channels, height and width; 1 channel where the images have no axis for them.

    Args:
        images: float array or tensor, `(N, C, H, W)` or `(N, H, W)`.
        attack: its name, for the message.

    Raises:
        ValueError: the images are no floats or have another rank.
    """
    if "float" not in str(images.dtype):
        raise ValueError(
            f"expected images as floats in [0, 1], got {images.dtype}; divide 8-bit pixels by 255"
        )
    if images.ndim not in (3, 4):
        raise ValueError(
            f"expected images (N, C, H, W) or (N, H, W) for {attack}, got shape "
            f"{tuple(images.shape)}"
        )
    height, width = images.shape[-2:]
    return (1 if images.ndim == 3 else int(images.shape[1])), int(height), int(width)


def keyed_uniform(
    seed: int, purpose: str, shape: tuple[int, ...], *, key: int = 0
) -> Float32[np.ndarray, "..."]:
    """Returns uniform draws in (0, 1) that a seed, a purpose and a key decide, on any machine.

    Args:
        seed: of the attack, or of the poisoning.
        purpose: what they decide; another purpose has independent draws.
        shape: of the draws.
        key: number of the sample, where each has its own.
    """
    drawn = np.empty((1, *shape), np.float32)
    uniform_draws(Stream(seed, key, scratch=Scratch()), purpose, shape, 1, drawn)
    first: np.ndarray = drawn[0]
    return first


def like(images: Any, values: np.ndarray) -> Any:
    """Returns values in the kind and type of the images, and on their device."""
    if hasattr(images, "new_tensor"):
        return images.new_tensor(values)
    return values.astype(images.dtype)


def on_arrays(images: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Changes images as an array of float32 or float64 on the host; returns them in their kind.

    Args:
        images: float array or tensor.
        change: from an array in C order to one of the same shape.
    """
    is_tensor = hasattr(images, "new_tensor")
    # Half-precision types have no compiled loops, and bfloat16 no numpy type.
    is_double = "float64" in str(images.dtype)
    if is_tensor:
        images_on_host = images.detach().cpu()
        values = (images_on_host if is_double else images_on_host.float()).numpy()
    else:
        values = images if is_double else images.astype(np.float32, copy=False)
    return like(images, change(np.ascontiguousarray(values)))


def seed_suffix(seed: int) -> str:
    """Returns what a seed other than 0 adds to a name."""
    return f"-seed-{seed}" if seed else ""
