"""Attacks, perturbations and detectors as records describe them: data, no code.

A record says the kind, the name and the settings of such an object. Reading it imports nothing and
runs nothing: a stranger's record is data. The six patches of the paper are their names alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np

from wobbliness.attacks.base import Attack
from wobbliness.attacks.patch import TRIGGER_NAMES, Trigger, trigger
from wobbliness.detectors.base import Detector
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.field_limits import check_names, is_default, shown

MAX_SETTINGS = 10_000  # characters
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Recorded:
    """Attack, perturbation or detector of a record.

    Attributes:
        kind: name of its class.
        name: its own, in tables.
        settings: its fields, as JSON.
    """

    access: ClassVar[Any] = None  # what a detector says of itself, and a record does not
    judges: ClassVar[Any] = None

    kind: str
    name: str
    settings: str

    def __post_init__(self) -> None:
        check_names(self, "kind", "name")

    def apply(self, images: Any) -> Any:  # noqa: ARG002
        """Refuses to be an attack: there is no code to a record.

        Raises:
            ValueError: always.
        """
        raise self._refusal()

    def copies(self, stream: Any, image: Any, draws: int, out: Any) -> None:  # noqa: ARG002
        """Refuses to be a perturbation, as `apply`."""
        raise self._refusal()

    def fit(self, classifier: Any, clean: Any) -> Any:  # noqa: ARG002
        """Refuses to be a detector, as `apply`."""
        raise self._refusal()

    def _refusal(self) -> ValueError:
        return ValueError(f"expected {self.kind} {self.name} itself, got a record of it")


PROTOCOLS = (Attack, Perturbation, Detector)
METHODS = ("apply", "copies", "fit")  # one of each of them


def is_described(value: object) -> bool:
    """Checks whether a value is an attack, a perturbation, a detector, or a record of one."""
    # asking a protocol is slow, and most values are numbers, texts and specs
    return (
        is_dataclass(value)
        and not isinstance(value, type)
        and any(hasattr(value, name) for name in METHODS)
        and isinstance(value, PROTOCOLS)
    )


def description(value: Any) -> Any:
    """Returns the kind, name and settings that identify an object; of the six patches the name.

    Fields at their default are left out, so that a new one changes nothing.

    Raises:
        ValueError: a setting is neither a plain value, an array nor a dataclass.
    """
    if isinstance(value, Recorded):
        settings = json.loads(value.settings)
        return {"kind": value.kind, "name": value.name, "settings": settings}
    if isinstance(value, Trigger) and value.name in TRIGGER_NAMES and value == trigger(value.name):
        return value.name
    return {"kind": type(value).__name__, "name": value.name, "settings": _settings(value)}


def description_text(content: Any) -> str:
    """Returns the text of a description: equal for equal ones."""
    return json.dumps(content, sort_keys=True)


def described_objects(value: Any) -> dict[str, Any]:
    """Returns the objects inside a dataclass, by the text of their descriptions."""
    if is_described(value):
        return {description_text(description(value)): value}
    parts: tuple[Any, ...] = ()
    if is_dataclass(value):
        parts = tuple(getattr(value, field.name) for field in fields(value))
    elif isinstance(value, tuple | list):
        parts = tuple(value)
    return {text: made for part in parts for text, made in described_objects(part).items()}


def recorded(content: Any, field: str) -> Any:
    """Returns what a description says: the text itself, or a `Recorded`.

    Args:
        content: of JSON.
        field: where it stands, for the message.

    Raises:
        ValueError: it is no description.
    """
    if isinstance(content, str):
        return content
    if not (isinstance(content, dict) and content.keys() == {"kind", "name", "settings"}):
        raise ValueError(f"expected {field} as kind, name and settings, got {shown(content)}")
    try:
        settings = description_text(content["settings"])
    except RecursionError:
        settings = ""
    if not isinstance(content["settings"], dict) or not 0 < len(settings) <= MAX_SETTINGS:
        raise ValueError(f"expected short settings of {field}, got {shown(content['settings'])}")
    return Recorded(kind=content["kind"], name=content["name"], settings=settings)


def check_described(made: object, field: str, protocol: type) -> None:
    """Checks that a field holds an object of a protocol, a record of one, or None.

    Raises:
        ValueError: it holds something else, or an object without a proper name.
    """
    value = getattr(made, field)
    for each in value if isinstance(value, tuple) else (value,):
        if each is None or isinstance(each, Recorded):
            continue
        if not isinstance(each, protocol) or isinstance(each, type):
            raise ValueError(
                f"expected {type(made).__name__}.{field} as {protocol.__name__}, got {shown(each)}"
            )
        check_names(each, "name")
        description(each)


def _settings(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        raise ValueError(f"expected a dataclass of plain settings, got {shown(value)}")
    return {
        field.name: _setting(getattr(value, field.name), field.name)
        for field in fields(value)
        if field.name != "name" and not is_default(field, getattr(value, field.name))
    }


def _setting(value: Any, field: str) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Enum):
        return _setting(value.value, field)
    if isinstance(value, (tuple, list)):
        return [_setting(part, field) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _setting(part, field) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8)
        return {"array": f"{value.dtype} {list(value.shape)} {digest.hexdigest()}"}
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **_settings(value)}
    raise ValueError(f"expected setting {field} as a plain value or an array, got {shown(value)}")
