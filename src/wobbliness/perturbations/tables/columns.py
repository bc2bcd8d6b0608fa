"""Noise for tables: each kind of column is perturbed in its own way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import MAX_EXACT_INTEGER, InputValues, Stream
from wobbliness.perturbations.levels import checked_level, digest_of, shown_level, shown_share
from wobbliness.perturbations.noise.gaussian import standard_normal

# A column and what is declared of it: lowest and highest integer (None for any), or categories.
Range: TypeAlias = tuple[float, float]
Integers: TypeAlias = tuple[tuple[int, Range | None], ...]
Categories: TypeAlias = tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Columns:
    """Rows of a table: noise for numbers, rounded noise for integers, other values for categories.

    Numeric columns get noise from N(0, (sigma * scale)^2), each in units of its own scale, not
    clipped: Gaussian noise (Eq. 1) after standardisation. Integer columns get the same, rounded and
    clipped to their declared range. A category is replaced with probability `share`, all other
    categories of its column being equally likely, as `KeepFeature` does (Lee et al. 2019). Values
    need not lie in [0, 1].

    >>> made = Columns(0.3, scale=(1.5, 4.0, 1.0), integers={1: (0, 120)}, categories={2: 4})
    >>> made.name, made.categories
    ('columns-0.3-share-0.1-8bb82138', ((2, (0.0, 1.0, 2.0, 3.0)),))

    Attributes:
        sigma: standard deviation of the noise, in units of the scale of a column.
        scale: standard deviation of each column `(d,)`, such as `train.std(axis=0)`, or one number
            for all; of no effect on categories.
        integers: columns of integers, `{column: (lowest, highest)}`, or column numbers alone where
            any integer goes.
        categories: `{column: K}` for the values 0 to K - 1, or `{column: (value, ...)}`.
        share: probability that a category is replaced, from 0 to 1.

    Raises:
        ValueError: a setting is out of range; a column is declared twice, or is not there; an input
            is no row of a table, or has a value that its column's declaration excludes.
    """

    sigma: float
    scale: Any = 1.0
    integers: Any = ()
    categories: Any = ()
    share: float = 0.1

    input_values = InputValues.ANY

    def __post_init__(self) -> None:
        for field, value in (
            ("sigma", checked_level(self.sigma, "a sigma")),
            ("scale", _checked_scale(self.scale)),
            ("integers", _checked_integers(self.integers)),
            ("categories", _checked_categories(self.categories)),
            ("share", checked_level(self.share, "a share", at_most=1.0)),
        ):
            object.__setattr__(self, field, value)
        columns = [column for column, _ in (*self.integers, *self.categories)]
        if len(set(columns)) < len(columns):
            raise ValueError(f"expected each column declared once, got {sorted(columns)}")

    @property
    def name(self) -> str:
        """The name in records and tables; it ends with a digest of the columns' declarations."""
        declared = digest_of((self.scale, self.integers, self.categories))
        return f"columns-{shown_level(self.sigma)}-share-{shown_level(self.share)}-{declared}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        noise = f"noise of standard deviation {self.sigma:g} is added to its numbers"
        return f"{noise}, and {shown_share(self.share)} of its categories are replaced"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes row + sigma * scale * z, then the integers and categories over it."""
        self._check(image)
        normal = standard_normal(stream, image.shape, draws)
        # One scale, or one for each column, which broadcasts over the draws.
        np.multiply(normal, np.float32(self.sigma) * np.float32(self.scale), out=out)
        out += image
        for column, limits in self.integers:
            # Rounded, then clipped: the limits are integers themselves.
            np.rint(out[:, column], out=out[:, column])
            if limits is not None:
                np.clip(out[:, column], *limits, out=out[:, column])
        if self.categories:
            self._write_categories(stream, image, draws, out)

    def _write_categories(
        self, stream: Stream, image: np.ndarray, draws: int, out: np.ndarray
    ) -> None:
        # A word for each of these columns: those below the limit replace.
        words = stream.words("category", len(self.categories), draws).astype(np.int64)
        limit = round(self.share * 2**32)
        for place, (column, values) in enumerate(self.categories):
            word, grid = words[:, place], np.array(values, np.float32)
            # Rows are checked before, and categories are distinct: exactly one is equal.
            own = int(np.flatnonzero(grid == image[column])[0])
            # Rank of the new value among the others, each of (almost) equal weight.
            rank = word * (len(grid) - 1) // max(1, limit)
            # Ranks skip the value itself: those from its own on are moved up by one.
            new = np.where(word < limit, rank + (rank >= own), own)
            out[:, column] = grid[new]

    def _check(self, row: np.ndarray) -> None:
        """Raises ValueError where a row is not as declared."""
        if row.ndim != 1:
            raise ValueError(
                "expected rows (d,) of a table for a perturbation of the kind columns, got inputs "
                f"of shape {row.shape}"
            )
        if isinstance(self.scale, tuple) and len(self.scale) != row.size:
            raise ValueError(
                f"expected a scale for each of {row.size} columns, got {len(self.scale)}"
            )
        last = max([column for column, _ in (*self.integers, *self.categories)], default=0)
        if last >= row.size:
            raise ValueError(f"expected columns from 0 to {row.size - 1}, got {last}")
        for column, limits in self.integers:
            _check_integer(row[column], column, limits)
        for column, values in self.categories:
            # NaN equals no category, and is refused, too.
            if row[column] not in values:
                raise ValueError(
                    f"expected one of {len(values)} declared categories in column {column}, got "
                    f"{row[column]:g}"
                )


def _check_integer(value: np.float32, column: int, limits: Range | None) -> None:
    low, high = limits or (-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER)
    # NaN is unlike itself, infinity out of range: both are refused.
    if value != np.rint(value) or not low <= value <= high:
        raise ValueError(
            f"expected integers from {low:.0f} to {high:.0f} in column {column}, got {value:g}"
        )


def _checked_scale(given: Any) -> float | tuple[float, ...]:
    """Returns one number, or one for each column."""
    if np.ndim(given) == 0:
        return checked_level(given, "a scale")
    if np.ndim(given) != 1:
        raise ValueError(f"expected a scale (d,), got one of shape {np.shape(given)}")
    return tuple(checked_level(value, "a scale") for value in given)


def _items(given: Any, name: str) -> list[tuple[int, Any]]:
    """Returns columns with their declarations, sorted by column."""
    pairs = given.items() if isinstance(given, Mapping) else given
    if not isinstance(pairs, Iterable) or isinstance(pairs, str):
        raise ValueError(f"expected {name} by column, such as {{2: ...}}, got {given!r}")
    # A column alone, as integers may have it, declares nothing more.
    items = [pair if isinstance(pair, tuple) else (pair, None) for pair in pairs]
    for column, *_ in items:
        # bool is an int in Python: True would be taken for column 1.
        if not isinstance(column, int | np.integer) or isinstance(column, bool) or column < 0:
            raise ValueError(f"expected the number of a column, from 0, got {column!r}")
    # Sorted: declarations in another order are the same perturbation, with the same digest.
    return sorted(((int(column), declared) for column, declared in items), key=lambda item: item[0])


def _checked_integers(given: Any) -> Integers:
    return tuple(
        (column, None if limits is None else _checked_range(column, limits))
        for column, limits in _items(given, "integers")
    )


def _checked_range(column: int, limits: Any) -> Range:
    values = _exact_values(column, limits)
    if len(values) != 2 or values[0] >= values[1] or any(value % 1 for value in values):
        raise ValueError(
            f"expected the lowest and highest integer of column {column}, got {limits!r}"
        )
    return values[0], values[1]


def _checked_categories(given: Any) -> Categories:
    found = []
    for column, declared in _items(given, "categories"):
        is_number = isinstance(declared, int | np.integer) and not isinstance(declared, bool)
        values = _exact_values(column, range(declared) if is_number else declared)
        # Too few values, or one of them twice.
        if len(set(values)) < max(2, len(values)):
            raise ValueError(
                f"expected at least 2 distinct categories of column {column}, got {declared!r}"
            )
        found.append((column, values))
    return tuple(found)


def _exact_values(column: int, values: Any) -> tuple[float, ...]:
    """Returns values that float32, the type of copies, holds exactly."""
    try:
        exact = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"expected numbers for column {column}, got {values!r}") from None
    # Inputs are float32: a category that is rounded there would equal none of them.
    if not all(float(np.float32(value)) == value for value in exact):
        raise ValueError(
            f"expected values of column {column} that float32 holds exactly, as small integers, "
            f"got {values!r}"
        )
    return exact
