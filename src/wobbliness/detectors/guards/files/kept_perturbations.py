"""Perturbations in the files of a guard: settings as JSON, overlays as arrays, and no code.

A description says kind, name and settings. Reading one makes an object of a family of this package
or raises ValueError: the file may come from a stranger.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.find import perturbation_kinds
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.field_limits import kind_of, shown
from wobbliness.sampling.plan import perturbation_of

MAX_LENGTH = 1000  # of a ladder of levels, of a list of perturbations
MAX_DEPTH = 4  # of tuples within tuples, of perturbations within perturbations
MAX_TEXT = 200  # characters of a setting
MAX_NUMBER = 1e30  # of a setting, as of noise that does not overflow
MAX_OVERLAY_VALUES = 2**26  # of all overlays together, 256 MiB
PREFIX = "overlays_"  # of the names of their arrays
DESCRIPTION = {"kind", "name", "settings"}
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptPerturbations:
    """Perturbations as files hold them.

    Attributes:
        described: kind, name and settings of each; None of Gaussian noise, which is its sigma.
        arrays: the overlays, each once, by the names that settings refer to.
    """

    described: tuple[dict[str, Any] | None, ...]
    arrays: Mapping[str, np.ndarray]


def keep_perturbations(perturbations: Sequence[float | Perturbation]) -> KeptPerturbations:
    """Describes perturbations for a file.

    Args:
        perturbations: or sigmas.

    Raises:
        ValueError: one is not of this package, or has settings that are no data; the overlays are
            too many.
    """
    made, names = map(perturbation_of, perturbations), _Names()
    described = tuple(None if sigma_of(each) is not None else names.describe(each) for each in made)
    # The limit of reading, checked at writing: what is saved can be read again.
    _check_size(sum(overlays.images.size for overlays in names.given))
    arrays = {name: overlays.images for overlays, name in names.given.items()}
    return KeptPerturbations(described=described, arrays=arrays)


@dataclass(frozen=True)
class _Names:
    """Writer of descriptions: gives each overlays a name."""

    given: dict[Overlays, str] = field(default_factory=dict)

    def describe(self, made: Any) -> dict[str, Any]:
        """Returns the description of a perturbation."""
        # A class of one's own cannot be found again, a function is no data.
        if perturbation_kinds().get(kind := kind_of(made)) is not type(made):
            raise _cannot_be_kept(made.name)
        names = [each.name for each in fields(made)]
        settings = {name: self._setting(getattr(made, name), made.name) for name in names}
        return {"kind": kind, "name": made.name, "settings": settings}

    def _setting(self, value: Any, name: str) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, tuple):
            return [self._setting(part, name) for part in value]
        if isinstance(value, Overlays):
            # Equal overlays are one array, whatever mixes them.
            return {"overlays": self.given.setdefault(value, f"{PREFIX}{len(self.given)}")}
        if isinstance(value, Perturbation):
            return self.describe(value)
        raise _cannot_be_kept(name)


def _cannot_be_kept(name: str) -> ValueError:
    return ValueError(
        "expected perturbations of this package, whose settings are data, to be kept in a file, "
        f"got {name}"
    )


def _check_size(size: int) -> None:
    if size > MAX_OVERLAY_VALUES:
        raise ValueError(f"expected overlays of at most {MAX_OVERLAY_VALUES} values, got {size}")


def overlay_ranks(arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]) -> dict[str, int]:
    """Returns the number of axes that arrays of overlays must have, by name."""
    return {name: 1 + len(image_shape) for name in arrays if name.startswith(PREFIX)}


def checked_overlays(
    arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]
) -> dict[str, Overlays]:
    """Returns the overlays of a file by name.

    Raises:
        ValueError: they are too large, of another shape than the inputs, or not within [0, 1].
    """
    found = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
    # Sizes first: `Overlays` copies each array.
    _check_size(sum(array.size for array in found.values()))
    for array in found.values():
        if array.shape[1:] != image_shape or array.dtype != np.float32:
            raise ValueError(
                f"expected overlays as float32 of the shape of the inputs, {image_shape}, got "
                f"{array.dtype} of shape {array.shape[1:]}"
            )
    return {name: Overlays(array) for name, array in found.items()}


def read_perturbations(
    described: Any, overlays: Mapping[str, Overlays]
) -> tuple[Perturbation | None, ...]:
    """Makes perturbations of their descriptions.

    Args:
        described: of JSON, as `KeptPerturbations.described`.
        overlays: by name, as `checked_overlays` returns them.

    Raises:
        ValueError: a description is none, of an unknown kind, or has settings that the kind does
            not take; an overlay is missing, or used by none; two perturbations are the same.
    """
    # JSON of a stranger: any type may stand anywhere, at any length.
    if not isinstance(described, list) or len(described) > MAX_LENGTH:
        raise ValueError(f"expected a list of at most {MAX_LENGTH} perturbations, got another")
    reader = _Reader(overlays)
    made = tuple(None if each is None else reader.perturbation(each) for each in described)
    # Overlays that nothing refers to have no use in a guard, and may be anyone's images.
    if reader.used != set(overlays):
        raise ValueError(f"expected overlays {sorted(reader.used)}, got {shown(sorted(overlays))}")
    names = [each.name for each in made if each is not None]
    if len(set(names)) < len(names):
        raise ValueError(f"expected different perturbations, got {shown(names)}")
    return made


@dataclass(frozen=True)
class _Reader:
    """Reader of descriptions, which remembers the overlays it has used."""

    overlays: Mapping[str, Overlays]
    used: set[str] = field(default_factory=set)

    def perturbation(self, content: Any, depth: int = 0) -> Perturbation:
        """Makes a perturbation of its description."""
        # Exactly these: an unknown key would be ignored, and may change what is meant.
        if not (isinstance(content, dict) and content.keys() == DESCRIPTION):
            raise ValueError(
                f"expected a perturbation as kind, name and settings, got {shown(content)}"
            )
        kind, settings = content["kind"], content["settings"]
        # Out of the families of this package, never imported by a name of the file; a list as a key
        # would raise TypeError.
        of = perturbation_kinds().get(kind) if isinstance(kind, str) else None
        if of is None:
            raise ValueError(f"expected a known kind of perturbation, got {shown(kind)}")
        # All of them: a default that is changed later must not change a guard that was saved.
        if not isinstance(settings, dict) or settings.keys() != {each.name for each in fields(of)}:
            raise ValueError(f"expected the settings of {kind}, got {shown(settings)}")
        made = _called(of, {name: self._value(part, depth) for name, part in settings.items()})
        # The name says all settings, also what is on the overlays.
        if made.name != content["name"]:
            raise ValueError(f"expected {made.name} by its name, got {shown(content['name'])}")
        return made

    def _value(self, value: Any, depth: int) -> Any:
        """Returns a setting of JSON: plain, a tuple, overlays, or another perturbation."""
        # Depth is limited, so that nested content cannot exhaust the stack.
        if isinstance(value, list) and len(value) <= MAX_LENGTH and depth < MAX_DEPTH:
            return tuple(self._value(part, depth + 1) for part in value)
        if isinstance(value, dict) and value.keys() == {"overlays"}:
            return self._overlays(value["overlays"])
        if isinstance(value, dict) and depth < MAX_DEPTH:
            return self.perturbation(value, depth + 1)
        # What is too long or too deep ends here, and is refused as not plain.
        return _plain(value)

    def _overlays(self, name: Any) -> Overlays:
        if not isinstance(name, str) or name not in self.overlays:
            raise ValueError(f"expected overlays of this file, got {shown(name)}")
        self.used.add(name)
        return self.overlays[name]


def _plain(value: Any) -> Any:
    # Strict JSON has no infinity, and yet numbers that are read as one; NaN fails, too.
    is_finite = not isinstance(value, int | float) or abs(value) <= MAX_NUMBER
    is_short = not isinstance(value, str) or len(value) <= MAX_TEXT
    if not (isinstance(value, PLAIN) and is_finite and is_short):
        raise ValueError(f"expected numbers or short texts as settings, got {shown(value)}")
    return value


def _called(of: type[Any], values: dict[str, Any]) -> Perturbation:
    """Makes an object of its settings; a ladder's levels are arguments one by one."""
    # `Blur(0.5, 1)` takes its widths one by one, while its field is one tuple.
    parameters = inspect.signature(of).parameters.values()
    ladders = [each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL]
    named = {name: value for name, value in values.items() if name not in ladders}
    try:
        # The family's own checks of ranges run here; their ValueError goes through as it is.
        made: Perturbation = of(*(level for name in ladders for level in values[name]), **named)
    except (AttributeError, TypeError) as error:  # settings of other types than the family's
        raise ValueError(f"expected settings of {kind_of(of)}, got {cause_of(error)}") from error
    return made
