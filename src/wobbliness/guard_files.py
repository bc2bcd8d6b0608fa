"""A fitted guard as two files: `guard.json` says how it was fitted, `guard.safetensors` holds what it learnt."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.utils.validation import check_is_fitted

from wobbliness.errors import cause_of
from wobbliness.guard import SmoothnessGuard, check_rates
from wobbliness.smooth_ranks import Reference, score_limit
from wobbliness.study.files import unfinished_name, write_beside, write_json

KIND, SCHEMA_VERSION = "wobbliness guard", 1
SETTINGS_FILE, ARRAYS_FILE = "guard.json", "guard.safetensors"
SETTINGS = ("sigmas", "draws", "false_positive_rate", "error_rate", "seed", "num_classes")
MAX_BYTES = 2**30  # a guard of a million inputs and a hundred sigmas; a larger file is none
_SHAPES = {"reference_wobbliness": 2, "reference_label": 1, "calibration": 1, "smooth_pvalues": 1}


def save_guard(guard: SmoothnessGuard, folder: str | Path) -> None:
    """Writes a fitted guard, without its classifier, into a folder.

    Args:
        guard: fitted.
        folder: new, or empty, or of a guard, which is replaced.

    Raises:
        ValueError: the folder holds something else.
        sklearn.exceptions.NotFittedError: the guard is not fitted.
    """
    check_is_fitted(guard)
    folder = checked_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = save(
        {
            "reference_wobbliness": np.ascontiguousarray(guard.reference_.wobbliness),
            "reference_label": guard.reference_.label.astype(np.int64),
            "calibration": guard.calibration_,
            "smooth_pvalues": guard.smooth_pvalues_,
        }
    )
    settings = {name: getattr(guard, name) for name in SETTINGS}
    content = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        **settings,
        "sigmas": [float(sigma) for sigma in guard.sigmas],
        "image_shape": list(guard.image_shape_),
        "arrays": _digest(arrays),
    }
    write_beside(folder / ARRAYS_FILE, lambda beside: beside.write_bytes(arrays))
    write_json(folder / SETTINGS_FILE, content)


def load_guard(folder: str | Path, classifier: Any) -> SmoothnessGuard:
    """A fitted guard from its folder; its verdicts are those of the guard that was saved. Runs no code of the files'.

    Args:
        folder: what `save_guard` wrote.
        classifier: the one it was fitted on, in whatever form; with another one the false-positive rate is unknown.

    Raises:
        ValueError: a file is missing, damaged, or of something else.
    """
    folder = Path(folder)
    content, arrays = _read_settings(folder / SETTINGS_FILE), _read(folder / ARRAYS_FILE)
    if _digest(arrays) != content.get("arrays"):
        raise ValueError(f"expected the arrays that belong to {folder / SETTINGS_FILE}, got others in {ARRAYS_FILE}")
    try:
        guard = SmoothnessGuard(classifier, **{name: content[name] for name in SETTINGS})
        guard.sigmas = tuple(map(float, guard.sigmas))
        _put(guard, _checked(load(arrays), len(guard.sigmas)), tuple(map(int, content["image_shape"])))
    except (LookupError, TypeError, ValueError, ArithmeticError, SafetensorError) as error:
        raise ValueError(f"expected a whole guard in {folder}, got {cause_of(error)}") from error
    return guard


def checked_folder(folder: str | Path) -> Path:
    """The folder, or ValueError where it is a file or holds something else than a guard."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or not ((path / SETTINGS_FILE).is_file() or _holds_parts_only(path))):
        raise ValueError(f"expected a new or empty folder, or one of a guard, got {path}")
    return path


def _holds_parts_only(folder: Path) -> bool:
    """Whether a folder holds nothing but what a guard leaves that was never finished: the disk was full, or it was ended."""
    names = {unfinished_name(path.name) or path.name for path in folder.iterdir()}
    return names <= {SETTINGS_FILE, ARRAYS_FILE}


def _put(guard: SmoothnessGuard, arrays: dict[str, np.ndarray], image_shape: tuple[int, ...]) -> None:
    guard.image_shape_, guard.n_features_in_ = image_shape, image_shape[0]
    guard.reference_ = Reference(wobbliness=arrays["reference_wobbliness"], label=arrays["reference_label"])
    guard.calibration_, guard.smooth_pvalues_ = arrays["calibration"], arrays["smooth_pvalues"]
    check_rates(guard.false_positive_rate, guard.error_rate, len(guard.reference_.label) + len(guard.calibration_))
    guard.offset_ = score_limit(guard.calibration_, guard.false_positive_rate)


def _checked(arrays: dict[str, np.ndarray], num_sigmas: int) -> dict[str, np.ndarray]:
    ranks = {name: array.ndim for name, array in arrays.items()}
    if ranks != _SHAPES:
        raise ValueError(f"expected arrays {_SHAPES} by rank, got {ranks}")
    w, label, scores = arrays["reference_wobbliness"], arrays["reference_label"], arrays["calibration"]
    if w.shape != (num_sigmas, len(label)) or not np.isfinite(w).all() or w.dtype != np.float64 or label.dtype != np.int64:
        raise ValueError(f"expected finite W of shape {(num_sigmas, len(label))}, got {w.dtype} of shape {w.shape}")
    if not ((scores >= 0) & (scores < 1)).all() or (np.diff(scores) < 0).any() or len(scores) < 1:
        raise ValueError("expected ascending calibration scores in [0, 1), got others")
    return arrays


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path).decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected strict JSON in {path}, got {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"expected a guard in {path}, got something else")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"expected a guard of schema {SCHEMA_VERSION}, got {content.get('schema_version')} in {path}")
    return content


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"expected a guard's file {path}, which does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes in {path}, got {path.stat().st_size}")
    return path.read_bytes()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


def _digest(arrays: bytes) -> str:
    return hashlib.blake2b(arrays, digest_size=16).hexdigest()
