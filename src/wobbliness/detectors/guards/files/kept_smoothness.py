"""What the files of a `SmoothnessGuard` hold: W of its clean inputs, and its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wobbliness.classifiers.base import MAX_UNDECLARED_CLASSES
from wobbliness.detectors.guards.files.kept_perturbations import overlay_ranks
from wobbliness.detectors.guards.files.kept_settings import (
    checked_settings,
    kept_precision,
    kept_sigmas,
    read_precision,
    read_sigmas,
)
from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard, check_rates
from wobbliness.perturbations.base import Perturbation
from wobbliness.statistics.conformal import ROUNDING, Reference, score_limit

SETTINGS = ("sigmas", "draws", "false_positive_rate", "error_rate", "seed", "num_classes")
_SHAPES = {"reference_wobbliness": 2, "reference_label": 1, "calibration": 1, "smooth_pvalues": 1}


def perturbations_of(guard: SmoothnessGuard) -> Sequence[float | Perturbation]:
    """Returns the perturbations of a guard, or sigmas."""
    return guard.sigmas


def num_classes_of(guard: SmoothnessGuard) -> int:
    """Returns the number of classes that a fitted guard knows."""
    return len(guard.smooth_pvalues_)


def settings_of(guard: SmoothnessGuard) -> dict[str, Any]:
    """Returns the settings of a guard as JSON holds them."""
    settings = {name: getattr(guard, name) for name in SETTINGS}
    return settings | {"sigmas": kept_sigmas(guard.sigmas)} | kept_precision(guard.precision)


def arrays_of(guard: SmoothnessGuard) -> dict[str, np.ndarray]:
    """Returns what a guard learnt of clean inputs."""
    return {
        "reference_wobbliness": np.ascontiguousarray(guard.reference_.wobbliness),
        "reference_label": guard.reference_.label.astype(np.int64),
        "calibration": guard.calibration_,
        "smooth_pvalues": guard.smooth_pvalues_,
    }


def read_guard(
    content: dict[str, Any], arrays: Mapping[str, np.ndarray], classifier: Any
) -> SmoothnessGuard:
    """Makes a guard of the settings and arrays of its files.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: they are not those of a guard.
    """
    image_shape = checked_settings(content)
    settings: dict[str, Any] = {name: content[name] for name in SETTINGS}
    guard = SmoothnessGuard(classifier, precision=read_precision(content), **settings)
    ranks = _SHAPES | overlay_ranks(arrays, image_shape)
    learnt = _checked(arrays, ranks, len(guard.sigmas), content["num_classes"])
    guard.sigmas = read_sigmas(content, learnt, image_shape)
    _set_arrays(guard, learnt, image_shape)
    return guard


def _set_arrays(
    guard: SmoothnessGuard, arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]
) -> None:
    guard.image_shape_, guard.n_features_in_ = image_shape, image_shape[0]
    guard.reference_ = Reference(
        wobbliness=arrays["reference_wobbliness"], label=arrays["reference_label"]
    )
    guard.calibration_, guard.smooth_pvalues_ = arrays["calibration"], arrays["smooth_pvalues"]
    check_rates(
        guard.false_positive_rate,
        guard.error_rate,
        len(guard.reference_.label) + len(guard.calibration_),
    )
    guard.offset_ = score_limit(guard.calibration_, guard.false_positive_rate)


def _checked(
    arrays: Mapping[str, np.ndarray],
    expected: dict[str, int],
    num_sigmas: int,
    num_classes: int | None,
) -> Mapping[str, np.ndarray]:
    # Names and ranks first; values are looked at only in arrays of the right shape.
    ranks = {name: array.ndim for name, array in arrays.items()}
    if ranks != expected:
        raise ValueError(f"expected arrays {expected} by rank, got {ranks}")
    w, label = arrays["reference_wobbliness"], arrays["reference_label"]
    _check_w(w, label, num_sigmas)
    _check_calibration(arrays["calibration"])
    _check_pvalues(arrays["smooth_pvalues"], num_classes)
    _check_reference(w, label, len(arrays["smooth_pvalues"]))
    return arrays


def _check_w(w: np.ndarray, label: np.ndarray, num_sigmas: int) -> None:
    if (
        w.shape != (num_sigmas, len(label))
        or not np.isfinite(w).all()
        or w.dtype != np.float64
        or label.dtype != np.int64
    ):
        raise ValueError(
            f"expected finite W of shape {(num_sigmas, len(label))}, got {w.dtype} of shape "
            f"{w.shape}"
        )


def _check_calibration(scores: np.ndarray) -> None:
    if (
        scores.dtype != np.float64
        or not ((scores >= 0) & (scores < 1)).all()
        or (np.diff(scores) < 0).any()
        or len(scores) < 1
    ):
        raise ValueError("expected ascending calibration scores in [0, 1), got others")


def _check_pvalues(pvalues: np.ndarray, num_classes: int | None) -> None:
    if (
        len(pvalues) != (num_classes or len(pvalues))
        or not 1 <= len(pvalues) <= MAX_UNDECLARED_CLASSES
    ):
        raise ValueError(
            f"expected p-values of {num_classes or f'1 to {MAX_UNDECLARED_CLASSES}'} classes, got "
            f"{len(pvalues)}"
        )
    if pvalues.dtype != np.float64 or not ((pvalues > 0) & (pvalues <= 1)).all():
        raise ValueError("expected p-values in (0, 1], got others")


def _check_reference(w: np.ndarray, label: np.ndarray, num_classes: int) -> None:
    if len(label) < 1 or label.min() < 0 or label.max() >= num_classes:
        raise ValueError(f"expected labels from 0 to {num_classes - 1}, got others")
    # W lies between 0 and log K, but for rounding.
    if w.min() < -ROUNDING or w.max() > np.log(num_classes) + ROUNDING:
        raise ValueError(f"expected W of {num_classes} classes in nats, got {w.min()} to {w.max()}")
