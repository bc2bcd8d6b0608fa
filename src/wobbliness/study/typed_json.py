"""Dataclasses from the plain values of `asdict`, each value of the type that its field states."""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wobbliness.runtime.field_limits import shown
from wobbliness.study.recorded import description_text, recorded

Target = TypeVar("Target")
MAX_NUMBER = 2.0**63


def from_json(
    dataclass_type: type[Target], content: Any, *, objects: Mapping[str, Any] | None = None
) -> Target:
    """Returns a dataclass from JSON; lists become tuples, objects dataclasses.

    >>> from wobbliness.study.recipes import Resources
    >>> from_json(Resources, {"cpus": 2.0, "memory_gib": None})
    Resources(cpus=2.0, gpus=0.0, memory_gib=None)

    Args:
        dataclass_type: what to make.
        content: of JSON.
        objects: attacks, perturbations and detectors by the text of their descriptions, to be put
            in where these stand; others become `Recorded`.

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    kinds = _kinds(dataclass_type)  # type: ignore[arg-type]  # a class has a hash
    if not isinstance(content, dict) or not content.keys() <= kinds.keys():
        raise ValueError(
            f"expected the fields {', '.join(kinds)} of {dataclass_type.__name__}, got "
            f"{shown(content)}"
        )
    values = {
        name: _value(kinds[name], value, f"{dataclass_type.__name__}.{name}", objects or {})
        for name, value in content.items()
    }
    try:
        return dataclass_type(**values)
    except TypeError as error:  # a field is missing
        raise ValueError(f"expected a whole {dataclass_type.__name__}, got {error}") from error


@cache  # annotations are texts, which are evaluated again each time
def _kinds(dataclass_type: type) -> Mapping[str, Any]:
    """Returns the type of each field of a dataclass."""
    hints = get_type_hints(dataclass_type)
    return {field.name: hints[field.name] for field in fields(dataclass_type)}


def _value(kind: Any, value: Any, name: str, objects: Mapping[str, Any]) -> Any:
    # `X | None` and `X | Y`: the first type that fits
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value, name, objects)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], part, name, objects) for part in value)
    if getattr(kind, "_is_protocol", False):  # an attack, a perturbation or a detector
        if not isinstance(value, str | dict):
            raise ValueError(f"expected {name} of type {kind.__name__}, got {shown(value)}")
        found = recorded(value, name)  # which also bounds it
        return objects.get(description_text(value), found)
    if is_dataclass(kind):
        return from_json(kind, value, objects=objects)  # type: ignore[arg-type]  # a class here
    if not _IS_OF.get(kind, lambda _: False)(value):
        raise ValueError(
            f"expected {name} of type {getattr(kind, '__name__', kind)}, got {shown(value)}"
        )
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, name: str, objects: Mapping[str, Any]) -> Any:
    errors = []
    for kind in kinds:
        try:
            return _value(kind, value, name, objects)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -MAX_NUMBER <= value < MAX_NUMBER
    )


_IS_OF: dict[Any, Callable[[Any], bool]] = {
    types.NoneType: lambda value: value is None,
    bool: lambda value: isinstance(value, bool),
    float: _is_number,
    int: lambda value: _is_number(value) and isinstance(value, int),
    str: lambda value: isinstance(value, str),
}
