"""Dataclasses from the plain values of `asdict`, each value of the type that its field states."""

import types
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wobbliness.runtime.field_limits import shown

Target = TypeVar("Target")
MAX_NUMBER = 2.0**63


def from_json(dataclass_type: type[Target], content: Any) -> Target:
    """Returns a dataclass from JSON; lists become tuples, objects dataclasses.

    >>> from wobbliness.study.recipes import Resources
    >>> from_json(Resources, {"cpus": 2.0, "memory_gib": None})
    Resources(cpus=2.0, gpus=0.0, memory_gib=None)

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    kinds = get_type_hints(dataclass_type)
    if not isinstance(content, dict) or not content.keys() <= kinds.keys():
        raise ValueError(
            f"expected the fields {', '.join(kinds)} of {dataclass_type.__name__}, got "
            f"{shown(content)}"
        )
    values = {
        name: _value(kinds[name], value, f"{dataclass_type.__name__}.{name}")
        for name, value in content.items()
    }
    try:
        return dataclass_type(**values)
    except TypeError as error:  # a field is missing
        raise ValueError(f"expected a whole {dataclass_type.__name__}, got {error}") from error


def _value(kind: Any, value: Any, name: str) -> Any:
    # `X | None` and `X | Y`: the first type that fits
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value, name)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], part, name) for part in value)
    if is_dataclass(kind):
        return from_json(kind, value)  # type: ignore[arg-type]  # kind is a class here
    if not _IS_OF.get(kind, lambda _: False)(value):
        raise ValueError(
            f"expected {name} of type {getattr(kind, '__name__', kind)}, got {shown(value)}"
        )
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    errors = []
    for kind in kinds:
        try:
            return _value(kind, value, name)
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
