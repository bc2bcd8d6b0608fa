"""Checks and texts of a perturbation's settings."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

# Of a digest in a name.
DIGEST_BYTES = 4


def checked_level(
    value: Any, name: str, *, at_least: float = 0.0, at_most: float = math.inf
) -> float:
    """Returns a setting as a float.

    Raises:
        ValueError: it is no finite number, or out of range.
    """
    try:
        level = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected {name} as a number, got {value!r}") from None
    # NaN fails both comparisons
    if not at_least <= level <= at_most or math.isinf(level):
        limits = (
            f"from {at_least:g} to {at_most:g}"
            if at_most < math.inf
            else (f"of at least {at_least:g}")
        )
        raise ValueError(f"expected {name} {limits}, got {level:g}")
    return level


def checked_levels(
    values: Sequence[Any], name: str, *, at_least: float = 0.0, at_most: float = math.inf
) -> tuple[float, ...]:
    """Returns the rungs of a ladder as floats.

    Raises:
        ValueError: there is none, one is out of range, or two are equal.
    """
    levels = tuple(
        checked_level(value, name, at_least=at_least, at_most=at_most) for value in values
    )
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(f"expected distinct values of {name}, at least one, got {levels}")
    return levels


def checked_count(value: Any, name: str, *, at_most: int) -> int:
    """Returns a setting as a whole number of at least 1.

    Raises:
        ValueError: it is no whole number, or out of range.
    """
    count = checked_level(value, name, at_least=1, at_most=at_most)
    if count != int(count):
        raise ValueError(f"expected {name} as a whole number, got {count:g}")
    return int(count)


def shown_level(value: float) -> str:
    """Returns a number with all of its digits, since names tell levels apart.

    >>> shown_level(0.1), shown_level(3.0)
    ('0.1', '3')
    """
    # repr is the shortest text that is read as the same float again.
    return repr(float(value)).removesuffix(".0")


def shown_share(least: float, most: float | None = None) -> str:
    """Returns a share, or a range of shares, for people.

    >>> shown_share(0.7), shown_share(0.1296, 0.6724), shown_share(0.002), shown_share(0.997)
    ('70 %', '13 to 67 %', '0.2 %', '99.7 %')
    """
    ends = dict.fromkeys((least, least if most is None else most))
    # Near 0 and 1 a decimal is kept: 0 or 100 % would be another share.
    shown = (f"{100 * end:.{int(0 < end < 0.01 or 0.99 < end < 1)}f}" for end in ends)
    return f"{' to '.join(shown)} %"


def shown_range(levels: Sequence[float]) -> str:
    """Returns the smallest and the largest level, for people.

    >>> shown_range((3, 5, 7)), shown_range((0.5,))
    ('3 to 7', '0.5')
    """
    ends = dict.fromkeys((min(levels), max(levels)))
    return " to ".join(f"{end:g}" for end in ends)


def digest_of(settings: object) -> str:
    """Returns a hexadecimal digest of settings that are too long for a name.

    >>> digest_of((1.0, 2.0)) == digest_of((1.0, 2.5))
    False

    Args:
        settings: numbers, texts and tuples of them, which Python writes alike on every machine.
    """
    return hashlib.blake2b(repr(settings).encode(), digest_size=DIGEST_BYTES).hexdigest()
