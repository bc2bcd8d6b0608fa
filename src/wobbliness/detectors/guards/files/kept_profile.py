"""What the files of a `ProfileGuard` hold: votes of its clean inputs, and its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wobbliness.detectors.guards.files.kept_perturbations import overlay_ranks
from wobbliness.detectors.guards.files.kept_settings import (
    check_integer,
    checked_settings,
    kept_precision,
    kept_sigmas,
    read_precision,
    read_sigmas,
)
from wobbliness.detectors.guards.profile_guard import MIN_CLASSES, ProfileGuard
from wobbliness.detectors.guards.profile_stage import EVIDENCE, ProfileStage
from wobbliness.detectors.guards.profiles import MOST_GROUPS, ProfilePart
from wobbliness.detectors.guards.vote_reading import NUM_LABEL_READINGS, READINGS
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.mixing.overlays import MIN_OVERLAYS
from wobbliness.sampling.plan import SCORES, perturbation_of
from wobbliness.statistics.conformal import num_flagged, score_limit
from wobbliness.statistics.expected_votes import ExpectedVotes
from wobbliness.statistics.novelty import Cloud

SETTINGS = ("draws", "scores", "false_positive_rate", "seed", "num_classes")
MIN_POINTS = 2
# Far beyond any reading, and its square is finite.
MAX_READING, MIN_SCALE = 1e9, 1e-9
ROUNDING = 1e-6  # of a sum of shares, for each input
_RANKS = {
    "sums": 3,
    "numbers": 1,
    "centres": 2,
    "scales": 1,
    "points": 2,
    "evidence": 1,
    "calibration": 1,
}
# Not in the files of before.
CALIBRATION_LABEL = "calibration_label"
_DTYPES = {"numbers": np.int64, "evidence": np.int64}


def perturbations_of(guard: ProfileGuard) -> Sequence[float | Perturbation]:
    """Returns the perturbations of a fitted guard, with the overlays it mixes."""
    return guard.perturbations_


def num_classes_of(guard: ProfileGuard) -> int:
    """Returns the number of classes that a fitted guard knows."""
    return len(guard.stages_[-1].expected.numbers)


def settings_of(guard: ProfileGuard) -> dict[str, Any]:
    """Returns the settings of a guard as JSON holds them."""
    return {
        "guard": "profile",
        # Fitted again, a guard of the default profile takes overlays from its new inputs.
        "is_default_profile": guard.perturbations is None,
        "sigmas": kept_sigmas(guard.perturbations_),
        "groups": [part.num_groups for part in guard.parts_],
        **{name: getattr(guard, name) for name in SETTINGS},
        **kept_precision(guard.precision),
    }


def arrays_of(guard: ProfileGuard) -> dict[str, np.ndarray]:
    """Returns what a guard learnt of clean inputs."""
    label = guard.calibration_label_
    arrays = {} if label is None else {CALIBRATION_LABEL: label.astype(np.int64)}
    return arrays | {
        _name(row, name): np.ascontiguousarray(array)
        for row, stage in enumerate(guard.stages_)
        for name, array in _arrays_of_stage(stage).items()
    }


def _arrays_of_stage(stage: ProfileStage) -> dict[str, np.ndarray]:
    return {
        "sums": stage.expected.sums,
        "numbers": stage.expected.numbers.astype(np.int64),
        "centres": stage.cloud.centres,
        "scales": stage.cloud.scales,
        "points": stage.cloud.points,
        "evidence": stage.cloud.evidence,
        "calibration": stage.calibration,
    }


def _name(row: int, name: str) -> str:
    return f"stage_{row}_{name}"


def read_guard(
    content: dict[str, Any], arrays: Mapping[str, np.ndarray], classifier: Any
) -> ProfileGuard:
    """Makes a guard of the settings and arrays of its files.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: they are not those of a guard.
    """
    image_shape = checked_settings(content)
    _check_settings(content)
    sigmas = read_sigmas(content, arrays, image_shape)
    settings: dict[str, Any] = {name: content[name] for name in SETTINGS}
    given = None if content["is_default_profile"] else sigmas
    settings["precision"] = read_precision(content)
    guard = ProfileGuard(classifier, perturbations=given, **settings)
    guard.image_shape_, guard.n_features_in_ = image_shape, image_shape[0]
    guard.parts_ = _parts(tuple(map(perturbation_of, sigmas)), content)
    guard.perturbations_ = tuple(part.whole for part in guard.parts_)
    guard.stages_ = _stages(guard, content, arrays)
    guard.calibration_label_ = None
    if CALIBRATION_LABEL in arrays:
        guard.calibration_label_ = _checked_label(arrays[CALIBRATION_LABEL], guard.stages_[-1])
    guard.offset_ = score_limit(guard.stages_[-1].calibration, guard.false_positive_rate)
    return guard


def _check_settings(content: dict[str, Any]) -> None:
    """Checks what a guard of noise alone does not have, and its rate."""
    if not isinstance(content["is_default_profile"], bool):
        raise ValueError("is_default_profile that is neither true nor false")
    scores = content["scores"]
    if scores is not None and scores not in SCORES:
        raise ValueError(f"scores that are none of {', '.join(SCORES)}")
    rate = content["false_positive_rate"]
    if not isinstance(rate, float) or not 0 < rate < 1:
        raise ValueError("a false_positive_rate that is not between 0 and 1")


def _parts(
    perturbations: Sequence[Perturbation], content: dict[str, Any]
) -> tuple[ProfilePart, ...]:
    """Returns the parts of a profile: perturbations, and into how many groups overlays are cut."""
    groups, draws = content["groups"], content["draws"]
    if not isinstance(groups, list) or len(groups) != len(perturbations):
        raise ValueError(f"expected groups of {len(perturbations)} perturbations, got others")
    for made, number in zip(perturbations, groups, strict=True):
        overlays = getattr(made, "overlays", ())
        most = max(1, min(MOST_GROUPS, draws, len(overlays) // MIN_OVERLAYS))
        check_integer("groups", number, 1, most)
    return tuple(
        ProfilePart(whole=made, draws=draws, num_groups=number)
        for made, number in zip(perturbations, groups, strict=True)
    )


def _stages(
    guard: ProfileGuard, content: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[ProfileStage, ...]:
    """Returns the stages of a file: after the early draws, and after all where there are more."""
    rows = range(guard.num_stages)
    expected = {_name(row, name): rank for row in rows for name, rank in _RANKS.items()}
    expected |= overlay_ranks(arrays, guard.image_shape_)
    expected |= {CALIBRATION_LABEL: 1} if CALIBRATION_LABEL in arrays else {}
    # Names and ranks first; values are looked at only in arrays of the right shape.
    if (ranks := {name: array.ndim for name, array in arrays.items()}) != expected:
        raise ValueError(f"expected arrays {expected} by rank, got {ranks}")
    by_stage = [{name: arrays[_name(row, name)] for name in _RANKS} for row in rows]
    for found in by_stage:
        _check_shapes(found, guard.parts_, has_scores=content["scores"] is not None)
        _check_values(found)
        _check_calibration(found["calibration"], content["false_positive_rate"])
    _check_stages(by_stage, content["num_classes"])
    return tuple(map(_stage, by_stage))


def _checked_label(label: np.ndarray, stage: ProfileStage) -> np.ndarray:
    """Returns the predictions of the calibration inputs, checked."""
    num_classes = len(stage.expected.numbers)
    if label.dtype != np.int64 or label.shape != stage.calibration.shape:
        raise ValueError(f"expected {CALIBRATION_LABEL} as int64 of each score, got others")
    if label.min() < 0 or label.max() >= num_classes:
        raise ValueError(f"expected {CALIBRATION_LABEL} from 0 to {num_classes - 1}, got others")
    return label


def _stage(found: Mapping[str, np.ndarray]) -> ProfileStage:
    return ProfileStage(
        expected=ExpectedVotes(sums=found["sums"], numbers=found["numbers"]),
        cloud=Cloud(
            centres=found["centres"],
            scales=found["scales"],
            points=found["points"],
            evidence=found["evidence"],
        ),
        calibration=found["calibration"],
    )


def _check_shapes(
    found: Mapping[str, np.ndarray], parts: Sequence[ProfilePart], *, has_scores: bool
) -> None:
    """Checks types, and sizes among each other and with the settings."""
    for name, array in found.items():
        if array.dtype != (dtype := np.dtype(_DTYPES.get(name, np.float64))):
            raise ValueError(f"expected {name} as {dtype}, got {array.dtype}")
    num_classes, num_points = len(found["numbers"]), len(found["points"])
    num_values = len(parts) * (len(READINGS) if has_scores else NUM_LABEL_READINGS)
    num_levels = sum(len(part.levels) for part in parts)
    shapes = {
        "sums": (num_levels, num_classes, num_classes),
        "centres": (num_classes, num_values),
        "scales": (num_values,),
        "points": (num_points, num_values),
        "evidence": (num_values,),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise ValueError(f"expected {name} of shape {shape}, got {found[name].shape}")


def _check_values(found: Mapping[str, np.ndarray]) -> None:
    """Checks ranges, and that shares add up to the inputs they are of."""
    numbers, sums = found["numbers"], found["sums"]
    if len(found["points"]) < MIN_POINTS or (numbers < 0).any():
        raise ValueError(f"expected numbers of at least {MIN_POINTS} inputs, got others")
    # Python's own sum: that of int64 may overflow.
    if sum(numbers.tolist()) != len(found["points"]):
        raise ValueError(f"expected the numbers of {len(found['points'])} inputs, got others")
    # Each first, so that their sum is finite.
    _check_within("sums", sums, 0, len(found["points"]) + ROUNDING)
    if (np.abs(sums.sum(axis=2) - numbers) > ROUNDING * (1 + numbers)).any():
        raise ValueError("expected sums of shares that add up to their inputs, got others")
    _check_within("scales", found["scales"], MIN_SCALE, MAX_READING)
    _check_within("evidence", found["evidence"], 0, max(EVIDENCE.values()))
    for name in ("centres", "points", "calibration"):
        _check_within(name, found[name], -MAX_READING, MAX_READING)


def _check_within(name: str, values: np.ndarray, least: float, most: float) -> None:
    # NaN fails both comparisons.
    if not ((values >= least) & (values <= most)).all():
        raise ValueError(f"expected {name} from {least:g} to {most:g}, got others")


def _check_calibration(scores: np.ndarray, false_positive_rate: float) -> None:
    if (np.diff(scores) < 0).any():
        raise ValueError("expected ascending calibration scores, got others")
    if num_flagged(len(scores), false_positive_rate) < 1:
        raise ValueError(
            f"expected scores enough to calibrate a false-positive rate of {false_positive_rate}, "
            f"got {len(scores)}"
        )


def _check_stages(stages: Sequence[Mapping[str, np.ndarray]], num_classes: int | None) -> None:
    """Checks that stages are of the same inputs; a later one may have seen more classes."""
    sizes = {(len(found["points"]), len(found["calibration"])) for found in stages}
    if len(sizes) > 1:
        raise ValueError("expected stages of the same inputs, got others")
    numbers = [len(found["numbers"]) for found in stages]
    is_known = num_classes is None or set(numbers) == {num_classes}
    if not is_known or numbers != sorted(numbers) or numbers[0] < MIN_CLASSES:
        known = num_classes or f"at least {MIN_CLASSES}"
        raise ValueError(f"expected stages of {known} classes, got {numbers}")
