"""Identity of an object in records: values that outlive fields added later.

The identity of a frozen dataclass is the plain values of its fields, without those that were added
after schema 3 and have their default. So a field that is added with a default renames no cell, and
a record without it reads as the default.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from wobbliness.runtime.field_limits import has_default, is_default
from wobbliness.study.recorded import PLAIN, description, is_described

IDENTITY_SCHEMA = 3
"""Part of every name; the schema of the files may grow, this may not."""

FIELDS_KEPT_AT_DEFAULT: Mapping[str, frozenset[str]] = {
    "MeasureSpec": frozenset({"crafted", "form", "per_class"}),
    "Universal": frozenset({"target_class", "fooling_rate", "num_images"}),
    "Cleanse": frozenset({"num_images", "restarts", "max_steps", "num_points"}),
    "Recipe": frozenset(
        {
            "parameter_networks",
            "parameter_points",
            "draws_grid",
            "draws_sigmas",
            "parameter_sigmas",
            "effect_networks",
            "effect_points",
            "inactive_trigger",
            "strength_networks",
            "class_networks",
            "class_points",
            "detection_networks",
            "detection_points",
            "universals",
            "cleanse",
            "response_levels",
            "draws",
            "own_points",
            "control_pairs",
            "control_points",
        }
    ),
}
"""Fields of schema 3 that have a default and count nonetheless, by class.

Frozen: a new field is never added here.
"""


def identity(instance: Any) -> dict[str, Any]:
    """Returns the plain values that identify a dataclass, and the dataclasses inside it.

    Args:
        instance: an instance of a frozen dataclass, which may hold others, and tuples of them.
    """
    kept = _fields_kept_at_default(type(instance))  # type: ignore[arg-type]  # it has a hash
    return {
        field.name: _plain(value, identity)
        for field in fields(instance)
        if not is_default(field, value := getattr(instance, field.name)) or field.name in kept
    }


def required_fields(kind: type) -> tuple[str, ...]:
    """Returns the fields that every written object has.

    Another field that is missing has its default.
    """
    kept = _fields_kept_at_default(kind)
    return tuple(
        field.name for field in fields(kind) if field.name in kept or not has_default(field)
    )


@cache
def _fields_kept_at_default(kind: type) -> frozenset[str]:
    return frozenset().union(
        *(FIELDS_KEPT_AT_DEFAULT.get(base.__name__, frozenset()) for base in kind.__mro__)
    )


def written(instance: Any) -> dict[str, Any]:
    """Returns the plain values of all fields, as files hold them.

    Args:
        instance: as for `identity`.
    """
    return {
        field.name: _plain(getattr(instance, field.name), written) for field in fields(instance)
    }


def _plain(value: Any, fields_of: Callable[[Any], dict[str, Any]]) -> Any:
    """Returns a value as JSON has it, a dataclass by those of its fields that are asked for."""
    if isinstance(value, PLAIN):  # most are
        return value
    if is_described(value):
        return description(value)
    if is_dataclass(value) and not isinstance(value, type):
        return fields_of(value)
    # JSON has lists alone: a tuple and a list of the same values are the same identity
    return [_plain(part, fields_of) for part in value] if isinstance(value, list | tuple) else value
