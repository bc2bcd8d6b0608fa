"""The pixel values that a classifier takes, where these are not those of images in [0, 1]."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

PixelNumbers = str | int | float | Sequence[int | float] | np.ndarray | None
"""Numbers of a user: one, several, or a text of some separated by commas."""


@dataclass(frozen=True, kw_only=True)
class PixelScale:
    """A map from images x in [0, 1] to (low + x (high - low) - mean) / std, per channel.

    It computes in float32.

    Attributes:
        low: what a black pixel becomes before the mean is subtracted.
        high: what a white one becomes.
        has_range: whether these were given, not assumed.
        mean: in the units of this range; one number, or one for each channel.
        std: likewise.
    """

    low: float = 0.0
    high: float = 1.0
    has_range: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __str__(self) -> str:
        """Describes the numbers, for errors."""
        lists = (
            f"{name} {', '.join(f'{value:g}' for value in values)}"
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        return f"input range {self.low:g},{self.high:g}, {', '.join(lists)}"

    @property
    def num_channels(self) -> int | None:
        """The number of channels of mean and std; None where one number is for all."""
        longest = max(len(self.mean), len(self.std))
        return longest if longest > 1 else None

    def apply(self, images: Float32[np.ndarray, "B C ..."]) -> Float32[np.ndarray, "B C ..."]:
        """Computes the classifier's pixel values in new memory; unchanged images are not copied.

        Raises:
            ValueError: the images have another number of channels.
        """
        self.check_channels(images.shape)
        # The first step that changes something makes a new array; later ones work in place on it.
        scaled = images
        for step, value, neutral in self._steps(images.ndim):
            if (value != neutral).any():
                scaled = step(scaled, value, out=None if scaled is images else scaled)
        return scaled

    def check_channels(self, shape: Sequence[Any]) -> None:
        """Raises ValueError unless a batch has the channels that mean and std are given for."""
        if self.num_channels is not None and (len(shape) == 3 or shape[1] != self.num_channels):
            raise ValueError(
                f"expected images of {self.num_channels} channels, as mean and std are given for, "
                f"got {shape[1:]} each"
            )

    def columns(self, ndim: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and std as float32 arrays aligned with the channels of a batch, axis 1."""
        shape = (-1, *[1] * (ndim - 2))
        mean, std = (
            np.asarray(values, np.float32).reshape(shape) for values in (self.mean, self.std)
        )
        return mean, std

    def _steps(self, ndim: int) -> list[tuple[Any, np.ndarray, int]]:
        """Returns operations in order, each with its number and the number that changes nothing."""
        mean, std = self.columns(ndim)
        width, low = np.array([self.high - self.low], np.float32), np.array([self.low], np.float32)
        # In the order of training pipelines: the range of pixels, then mean and std in its units.
        return [
            (np.multiply, width, 1),
            (np.add, low, 0),
            (np.subtract, mean, 0),
            (np.divide, std, 1),
        ]


def described_scale(scale: PixelScale | None) -> dict[str, str]:
    """Describes pixel values, for comparisons; nothing where they stay as they are.

    A value that all channels share is written once.
    """
    if scale is None:
        return {}
    mean, std = (
        values[:1] if len(set(values)) == 1 else values for values in (scale.mean, scale.std)
    )
    same = PixelScale(low=scale.low, high=scale.high, mean=mean, std=std)
    return {} if same == PixelScale() else {"pixels": str(same)}


BYTE = PixelScale(low=0.0, high=255.0, has_range=True)


def read_pixel_scale(
    input_range: Any = None, mean: Any = None, std: Any = None
) -> PixelScale | None:
    """Reads the options of a user.

    Args:
        input_range: what 0 and 1 become: two numbers, or a text such as `0,255`.
        mean: a number, or one for each channel; or a text such as `0.485,0.456,0.406`.
        std: likewise.

    Returns:
        None where none of them is given.

    Raises:
        ValueError: they are no finite numbers, or not as many as needed; the range is empty; a std
            is not positive.
    """
    if input_range is None and mean is None and std is None:
        return None
    low, high = (0.0, 1.0) if input_range is None else _range(input_range)
    means, stds = _numbers(mean, "mean", (0.0,)), _numbers(std, "std", (1.0,))
    if not all(value > 0 for value in stds):
        raise ValueError(f"expected a positive std, got {std!r}")
    # Equal lengths, or one of them a single number for all channels.
    if 1 != len(means) != len(stds) != 1:
        raise ValueError(
            f"expected mean and std of as many channels, got {len(means)} and {len(stds)}"
        )
    return PixelScale(low=low, high=high, has_range=input_range is not None, mean=means, std=stds)


def _range(given: Any) -> tuple[float, float]:
    numbers = _numbers(given, "input range", ())
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(f"expected an input range LOW,HIGH such as 0,255, got {given!r}")
    return numbers[0], numbers[1]


def _numbers(given: Any, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return default
    parts = given
    # Texts come from the command line, also as Python or JSON prints a list.
    if isinstance(given, str):
        parts = [part for part in re.split(r"[\s,;]+", given.strip("[]() ")) if part]
    try:
        numbers = np.atleast_1d(np.asarray(parts, np.float64)).ravel()
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"expected {name} as numbers, separated by commas, got {given!r}")
    return tuple(float(number) for number in numbers)
