"""Fields of dataclasses: safe names, numbers that no report explodes on, and defaults.

Names must be safe in paths, tables and pages.
"""

import re
from dataclasses import MISSING, Field
from numbers import Real
from typing import Any

import numpy as np

# also a folder's name and a command's argument
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
# Sums of a seed and a number still fit into 64 bits with a sign.
MAX_SEED = 2**62
MAX_CLASSES = 10_000
# Of a batch: ROC curves over single inputs take memory for the square of it.
MAX_POINTS = 5_000
MAX_PARAMETER_POINTS = 10_000
MAX_DRAWS = 10**7
MAX_SIGMA = 1_000.0
# Of a grid, as of sigmas.
MAX_LENGTH = 100
MAX_NETWORKS = 1_000
MAX_CELLS = 10_000
MAX_CONTROL_PAIRS = 10**5
# Pairs times points of each.
MAX_CONTROL_VALUES = 10**7


def check_names(made: object, *fields: str) -> None:
    """Checks that fields hold names; None passes.

    A name has letters, digits, `.`, `_` and `-`, and does not begin with a dot.

    Raises:
        ValueError: a field holds something else.
    """
    for field in fields:
        value = getattr(made, field)
        if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
            raise ValueError(
                f"expected {_field_name(made, field)} of at most 100 letters, digits and . _ -, "
                "not "
                "beginning with a dot, "
                f"got {shown(value)}"
            )


def check_ranges(made: object, **limits: tuple[int | float, int | float]) -> None:
    """Checks that fields hold numbers within limits, or short grids of them; None passes.

    Raises:
        ValueError: a number lies outside, a grid is too long, or a field holds something else.
    """
    for field, (least, most) in limits.items():
        value = getattr(made, field)
        values = value if isinstance(value, tuple | list) else () if value is None else (value,)
        if len(values) > MAX_LENGTH:
            raise ValueError(
                f"expected {_field_name(made, field)} of at most {MAX_LENGTH} values, got "
                f"{len(values)}"
            )
        for number in values:
            if not (isinstance(number, Real) and least <= float(number) <= most):
                raise ValueError(
                    f"expected {_field_name(made, field)} from {least:g} to {most:g}, got "
                    f"{shown(number)}"
                )


def check_choice(made: object, field: str, choices: tuple[str, ...]) -> None:
    """Checks that a field holds one of some words, or None."""
    value = getattr(made, field)
    if value is not None and value not in choices:
        raise ValueError(
            f"expected {_field_name(made, field)} out of {', '.join(choices)}, got {shown(value)}"
        )


def has_default(field: Field[Any]) -> bool:
    """Checks whether a field has a default."""
    return field.default is not MISSING or field.default_factory is not MISSING


def is_default(field: Field[Any], value: Any) -> bool:
    """Checks whether a field's value is its default."""
    if not has_default(field) or isinstance(value, np.ndarray):
        return False
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return bool(default == value)


def shown(value: Any) -> str:
    """Returns a value as a message quotes it: short, without control characters.

    However large or deep it is.
    """
    try:
        text = repr(value)
    # nested beyond Python's depth; an integer of thousands of digits
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__} that is too deep or too long to be shown"
    return text if len(text) <= 80 else f"{text[:77]}..."


def named(value: Any) -> str:
    """Returns a name or a number as it is, anything else as `shown` does."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else shown(value)


def _field_name(made: object, field: str) -> str:
    return f"{type(made).__name__}.{field}"


def kind_of(made: Any) -> str:
    """Returns the short name of a class, or of that of an instance: words joined by hyphens.

    >>> class TopScore: ...
    >>> kind_of(TopScore)
    'top-score'
    """
    kind = made if isinstance(made, type) else type(made)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", kind.__name__).lower()
