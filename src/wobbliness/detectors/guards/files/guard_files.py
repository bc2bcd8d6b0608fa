"""Files of a fitted guard: `guard.json` says how it was fitted, `guard.safetensors` is the data."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.utils.validation import check_is_fitted

from wobbliness.classifiers.base import ScoredClassifier
from wobbliness.classifiers.open import open_classifier
from wobbliness.classifiers.untrusted.fingerprint import Fingerprint, fingerprint
from wobbliness.detectors.guards.files import kept_profile, kept_smoothness
from wobbliness.detectors.guards.files.kept_perturbations import keep_perturbations
from wobbliness.detectors.guards.profile_guard import ProfileGuard
from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.field_limits import shown
from wobbliness.runtime.files import unfinished_name, write_atomically, write_json
from wobbliness.runtime.terminal import visible

KIND, SCHEMA_VERSION = "wobbliness guard", 1
SETTINGS_FILE, ARRAYS_FILE = "guard.json", "guard.safetensors"
MAX_BYTES = 2**30  # a guard of a million inputs and a hundred sigmas; a larger file is none
MAX_SETTINGS_BYTES = 2**20
MAX_NAME = 200  # characters of a model's name
MAX_KINDS = 16  # of preprocessing
MAX_WARNINGS, MAX_WARNING = 16, 2000  # of fitting, and characters of one
RESIZE = "resize"

Guard: TypeAlias = SmoothnessGuard | ProfileGuard


class _KeptKind(Protocol):
    """Module that says what the files of one kind of guard hold."""

    def perturbations_of(self, guard: Any) -> Sequence[float | Perturbation]: ...
    def num_classes_of(self, guard: Any) -> int: ...
    def settings_of(self, guard: Any) -> dict[str, Any]: ...
    def arrays_of(self, guard: Any) -> dict[str, np.ndarray]: ...
    def read_guard(
        self, content: dict[str, Any], arrays: Mapping[str, np.ndarray], classifier: Any
    ) -> Guard: ...


# By what the settings say: nothing in a guard's of noise alone, as before there were others.
_KINDS: dict[str | None, _KeptKind] = {None: kept_smoothness, "profile": kept_profile}


def _kind_of(guard: Guard) -> _KeptKind:
    return _KINDS["profile" if isinstance(guard, ProfileGuard) else None]


def save_guard(
    guard: Guard,
    folder: str | Path,
    *,
    model: str | None = None,
    resized: bool | None = None,
) -> None:
    """Writes a fitted guard, without its classifier, into a folder.

    Of the classifier a name, a digest and its preprocessing are kept. Perturbations are kept with
    their settings and overlays, which are images of the user's; a function of one's own cannot be.

    Args:
        guard: fitted.
        folder: new, or empty, or of a guard, which is replaced.
        model: what the classifier is called; by default its file's name or its type's.
        resized: whether pictures were scaled to the classifier's size, where that is known; kept,
            to be compared.

    Raises:
        ValueError: the folder holds something else; a perturbation cannot be kept.
        sklearn.exceptions.NotFittedError: the guard is not fitted.
    """
    check_is_fitted(guard)
    folder, kind = checked_folder(folder), _kind_of(guard)
    kept = keep_perturbations(kind.perturbations_of(guard))
    folder.mkdir(parents=True, exist_ok=True)
    arrays = save({**kind.arrays_of(guard), **kept.arrays})
    # Guards of noise alone say nothing of other perturbations: their files are those of before.
    others = {"perturbations": list(kept.described)} if any(kept.described) else {}
    content = _settings(guard, model) | {
        "arrays": _digest(arrays),
        "preprocessing": _kept_preprocessing(guard, resized),
        **others,
        # Likewise of what nothing was odd about.
        **({"warnings": list(guard.warnings_)} if guard.warnings_ else {}),
    }
    # Settings last: they hold the digest of the arrays, so a half-written pair is noticed.
    write_atomically(folder / ARRAYS_FILE, lambda file: file.write_bytes(arrays))
    write_json(folder / SETTINGS_FILE, content)


def _settings(guard: Guard, model: str | None) -> dict[str, Any]:
    """Returns a guard's settings, and the model that it was fitted on."""
    # A guard that was loaded keeps the digest of the model that it was fitted on.
    known = getattr(guard, "model_", None) or fingerprint(guard.classifier)
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        **_kind_of(guard).settings_of(guard),
        "image_shape": list(guard.image_shape_),
        "model": (model or known.name)[:MAX_NAME],
        "model_digest": known.digest,
    }


def load_guard(folder: str | Path, classifier: Any, *, model: str | None = None) -> Guard:
    """Reads a fitted guard from its folder, running no code of the files.

    Its verdicts are those of the guard that was saved.

    With another classifier than it was fitted on, or one that is given other pixel values, the
    false-positive rate is unknown: a UserWarning names both where what was kept tells them apart
    (see `model_mismatch` and `preprocessing_mismatch`).

    Args:
        folder: what `save_guard` wrote.
        classifier: the one it was fitted on, in whatever form.
        model: what that is called; by default its file's name or its type's.

    Raises:
        ValueError: a file is missing, damaged, or of something else, or asks for more than a guard
            can.
    """
    guard = _loaded(Path(folder), classifier)
    if (line := model_mismatch(guard, model) or preprocessing_mismatch(guard)) is not None:
        warnings.warn(line, stacklevel=2)
    return guard


def model_mismatch(guard: Guard, model: str | None = None) -> str | None:
    """Describes how a loaded guard's classifier differs from the one it was fitted on.

    None where it is the same, as far as the digest tells.

    Nothing is said of guards without a digest: those of functions, and those that were saved before
    digests were kept.

    Args:
        guard: loaded.
        model: what its classifier is called; by default its file's name or its type's.
    """
    fitted: Fingerprint | None = getattr(guard, "model_", None)
    if fitted is None or fitted.digest is None:
        return None
    given = fingerprint(guard.classifier)
    if given.digest == fitted.digest:
        return None
    name = model or given.name
    if given.digest is None or given.digest.split(":")[0] != fitted.digest.split(":")[0]:
        return visible(
            f"this guard was fitted on the model {fitted.name}; whether {name}, of another form, "
            "is that model cannot be told"
        )
    return visible(
        f"this guard was fitted on the model {fitted.name}, and {name} is another: its "
        "false-positive rate is unknown"
    )


def preprocessing_mismatch(guard: Guard, *, resized: bool | None = None) -> str | None:
    """Describes how a loaded guard's images differ from those it was fitted on.

    None where its classifier is given the same images and read in the same way.

    Compared are pixel values (input range, mean, std), layout, output and threshold, and resizing
    where both are known. Nothing is said of guards that were saved before these were kept. Where
    `model_mismatch` says something, this need not be asked.

    Args:
        guard: loaded.
        resized: whether pictures are scaled to the classifier's size.
    """
    fitted: dict[str, str] | None = getattr(guard, "preprocessing_", None)
    if fitted is None or _is_of_another_kind(guard):
        return None
    try:
        given = _preprocessing(guard, resized)
    except ValueError:  # no classifier, or none that opens: said once it is to judge
        return None
    kinds = _kinds_that_differ(fitted, given, with_resizing=resized is not None)
    if not kinds:
        return None
    before, now = (
        ", ".join(f"{kind} {values.get(kind, 'as it is')}" for kind in kinds)
        for values in (fitted, given)
    )
    return visible(
        f"this guard was fitted with {before}, and is used with {now}: its false-positive rate is "
        "unknown"
    )


def _kinds_that_differ(
    fitted: dict[str, str], given: dict[str, str], *, with_resizing: bool
) -> list[str]:
    """Returns the kinds of steps that differ, or that only one of the two has."""
    kinds = sorted(kind for kind in {*fitted, *given} if fitted.get(kind) != given.get(kind))
    if with_resizing and RESIZE in fitted:
        return kinds
    return [kind for kind in kinds if kind != RESIZE]


def _is_of_another_kind(guard: Guard) -> bool:
    """Checks whether a guard of a function, without a digest, is used with what has one."""
    known: Fingerprint | None = getattr(guard, "model_", None)
    return (
        known is not None
        and known.digest is None
        and fingerprint(guard.classifier).digest is not None
    )


def _kept_preprocessing(guard: Guard, resized: bool | None) -> dict[str, str] | None:
    """Returns the preprocessing of the file a guard came from, else of its classifier.

    None for a file that had none.
    """
    if hasattr(guard, "preprocessing_"):
        kept: dict[str, str] | None = guard.preprocessing_
        return kept
    return _preprocessing(guard, resized)


def _preprocessing(guard: Guard, resized: bool | None) -> dict[str, str]:
    """Returns what is done to images and predictions besides what the classifier does.

    A threshold is included only where there are two classes.
    """
    opened = open_classifier(guard.classifier, num_classes=guard.num_classes)
    found: dict[str, str] = opened.preprocessing() if isinstance(opened, ScoredClassifier) else {}
    # A threshold is meaningful for two classes only.
    if _kind_of(guard).num_classes_of(guard) != 2:
        found.pop("threshold", None)
    if resized is not None:
        found[RESIZE] = "yes" if resized else "no"
    return {kind: text[:MAX_NAME] for kind, text in found.items()}


def _loaded(folder: Path, classifier: Any) -> Guard:
    content, arrays = _read_settings(folder / SETTINGS_FILE), _read(folder / ARRAYS_FILE, MAX_BYTES)
    # Arrays and settings are two files: one may be of another guard, or unfinished.
    if _digest(arrays) != content.get("arrays"):
        raise ValueError(
            f"expected the arrays that belong to {folder / SETTINGS_FILE}, got others in "
            f"{ARRAYS_FILE}"
        )
    try:
        return _guard_of(content, arrays, classifier)
    except (LookupError, TypeError, ValueError, ArithmeticError, SafetensorError) as error:
        raise ValueError(f"expected a whole guard in {folder}, got {cause_of(error)}") from error


def _guard_of(content: dict[str, Any], arrays: bytes, classifier: Any) -> Guard:
    """Makes a guard of the settings and arrays of its files."""
    # A list as a key would raise TypeError.
    named = content.get("guard")
    kind = _KINDS.get(named) if isinstance(named, str | None) else None
    if kind is None:
        raise ValueError(f"a guard of the unknown kind {shown(named)}")
    guard = kind.read_guard(content, load(arrays), classifier)
    if content.get("model") is not None:
        guard.model_ = _fingerprint(content)
    guard.preprocessing_ = _checked_preprocessing(content.get("preprocessing"))
    guard.warnings_ = _checked_warnings(content.get("warnings", []))
    return guard


def _fingerprint(content: dict[str, Any]) -> Fingerprint:
    name, digest = content["model"], content.get("model_digest")
    if (
        not isinstance(name, str)
        or len(name) > MAX_NAME
        or not isinstance(digest, str | None)
        or len(digest or "") > MAX_NAME
    ):
        raise ValueError("a model's name or digest that is none")
    return Fingerprint(name=name, digest=digest)


def _checked_preprocessing(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > MAX_KINDS:
        raise ValueError(f"preprocessing that is no table of at most {MAX_KINDS} kinds")
    if not all(
        isinstance(text, str) and len(text) <= MAX_NAME for text in (*given, *given.values())
    ):
        raise ValueError(f"preprocessing that is no text of at most {MAX_NAME} characters")
    return given


def _checked_warnings(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or len(given) > MAX_WARNINGS:
        raise ValueError(f"warnings that are no list of at most {MAX_WARNINGS}")
    if not all(isinstance(line, str) and len(line) <= MAX_WARNING for line in given):
        raise ValueError(f"warnings that are no text of at most {MAX_WARNING} characters")
    return tuple(map(visible, given))


def checked_folder(folder: str | Path) -> Path:
    """Returns the folder; ValueError where it is a file or holds something else than a guard."""
    path = Path(folder)
    if path.exists() and (
        not path.is_dir() or not ((path / SETTINGS_FILE).is_file() or _holds_parts_only(path))
    ):
        raise ValueError(f"expected a new or empty folder, or one of a guard, got {path}")
    return path


def _holds_parts_only(folder: Path) -> bool:
    """Checks whether a folder holds only the unfinished files of a guard.

    They are left where the disk was full, or the process was ended.
    """
    names = {unfinished_name(path.name) or path.name for path in folder.iterdir()}
    return names <= {SETTINGS_FILE, ARRAYS_FILE}


def _read_settings(path: Path) -> dict[str, Any]:
    text = _read(path, MAX_SETTINGS_BYTES)
    try:
        # Strict JSON: NaN and infinities are refused.
        content = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected strict JSON in {path}, got {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"expected a guard in {path}, got something else")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"expected a guard of schema {SCHEMA_VERSION}, got {content.get('schema_version')} in "
            f"{path}"
        )
    return content


def _read(path: Path, most: int) -> bytes:
    if not path.is_file():
        found = "got a folder, device or pipe" if path.exists() else "which does not exist"
        raise ValueError(f"expected a guard's file {path}, {found}")
    if not 0 < path.stat().st_size <= most:  # a device or a file of /proc has no size
        raise ValueError(f"expected 1 to {most} bytes in {path}, got {path.stat().st_size}")
    with path.open("rb") as file:
        return file.read(most)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


def _digest(arrays: bytes) -> str:
    return hashlib.blake2b(arrays, digest_size=16).hexdigest()
