"""Settings in the files of any guard, checked: they may come from a stranger."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wobbliness.classifiers.base import MAX_UNDECLARED_CLASSES
from wobbliness.detectors.guards.files.kept_perturbations import (
    checked_overlays,
    read_perturbations,
)
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.sampling.plan import Precision, checked_precision, perturbation_of

MAX_SIGMAS, MAX_DRAWS, MAX_SEED = 1000, 10**6, 2**128
MAX_VALUES = 2**28  # of one input
MAX_SIGMA = 1e6  # pixel units


def kept_sigmas(perturbations: Sequence[float | Perturbation]) -> list[float | None]:
    """Returns the sigmas that a file holds, None where another perturbation stands."""
    return [sigma_of(perturbation_of(value)) for value in perturbations]


def read_sigmas(
    content: dict[str, Any], arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]
) -> tuple[float | Perturbation, ...]:
    """Returns the sigmas of a file, and the other perturbations where they stand.

    Args:
        content: of the settings, checked by `checked_settings`.
        arrays: of the file, overlays among them.
        image_shape: of one input.

    Raises:
        ValueError: as for `read_perturbations`.
    """
    sigmas = content["sigmas"]
    described = content.get("perturbations", [None] * len(sigmas))
    made = read_perturbations(described, checked_overlays(arrays, image_shape))
    # Both lists come from the file, and may contradict each other.
    if [sigma is None for sigma in sigmas] != [other is not None for other in made]:
        raise ValueError("expected a sigma or a perturbation in each place, got both or neither")
    return tuple(
        float(sigma) if other is None else other for sigma, other in zip(sigmas, made, strict=True)
    )


def checked_settings(content: dict[str, Any]) -> tuple[int, ...]:
    """Returns the shape of one input; ValueError where a setting is not a guard's."""
    sigmas, shape, num_classes = content["sigmas"], content["image_shape"], content["num_classes"]
    _check_sigmas(sigmas)
    check_integer("draws", content["draws"], 1, MAX_DRAWS)
    check_integer("seed", content["seed"], 0, MAX_SEED)
    if num_classes is not None:
        check_integer("num_classes", num_classes, 2, MAX_UNDECLARED_CLASSES)
    return _checked_shape(shape)


def _check_sigmas(sigmas: Any) -> None:
    """Checks sigmas; None stands for another perturbation."""
    numbers = [sigma for sigma in sigmas if sigma is not None] if isinstance(sigmas, list) else None
    if numbers is None or not 1 <= len(sigmas) <= MAX_SIGMAS or len(set(numbers)) < len(numbers):
        raise ValueError(f"other than 1 to {MAX_SIGMAS} different sigmas")
    # NaN fails the comparison, too.
    if not all(isinstance(sigma, int | float) and 0 <= sigma <= MAX_SIGMA for sigma in numbers):
        raise ValueError(f"sigmas that are no numbers from 0 to {MAX_SIGMA:g}")


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4:
        raise ValueError("an image_shape of other than 1 to 4 sizes")
    for size in shape:
        check_integer("image_shape", size, 1, MAX_VALUES)
    if math.prod(shape) > MAX_VALUES:
        raise ValueError(f"inputs of more than {MAX_VALUES} values")
    return tuple(shape)


def kept_precision(precision: str) -> dict[str, str]:
    """Returns the precision as a file holds it: nothing of float32, as before there was another."""
    return {} if precision == "float32" else {"precision": precision}


def read_precision(content: dict[str, Any]) -> Precision:
    """Returns the precision of a file.

    Raises:
        ValueError: there is none of that name.
    """
    return checked_precision(content.get("precision", "float32"))


def check_integer(name: str, value: Any, least: int, most: int) -> None:
    """Raises ValueError where a setting is no whole number within limits."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} that is no whole number from {least} to {most}")
