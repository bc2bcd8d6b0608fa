"""The choice of a table's columns of pictures and labels, by their types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

Labels = tuple[Int[np.ndarray, " N"] | None, tuple[str, ...] | None]
"""Class of each image and names of the classes, where they are known."""

Features = Mapping[str, Any]
"""The type of each column as the hub writes it.

For example `{"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [...]}}`.
"""

ARRAY = "Array"
"""The `_type` of a column of nested lists of numbers, whatever the hub's libraries call it."""

_DEFAULTS = {"image": ("image", "images", "pixel_values"), "label": ("label", "labels")}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns to read, the class names if the type has them, and whether images are lists."""

    image: str
    label: str | None
    class_names: tuple[str, ...] | None
    holds_arrays: bool = False

    @property
    def names(self) -> list[str]:
        """Returns the names of the columns."""
        return [self.image] if self.label is None else [self.image, self.label]


def find_columns(
    features: Features, name: str, *, column: str | None, label_column: str | None
) -> Columns:
    """Finds the column of pictures and the one of classes.

    Either is as named, else the only one of that type, else the one called `image` or `label`.

    Args:
        features: type of each column.
        name: of the table, for messages.
        column: the pictures', if named.
        label_column: the labels', if named.

    Raises:
        ValueError: a named column does not exist, there is no column of pictures, or several that
            might be meant.
    """
    _check_named((column, label_column), features, name)
    # Encoded pictures go before lists of numbers, which may be anything.
    pictures = _of_type(features, "Image")
    image = column or _only(pictures or _of_type(features, ARRAY), "image", name)
    if image is None:
        raise ValueError(
            f"expected a column of pictures in {name}, got {', '.join(features) or 'none'}"
        )
    # Likewise classes with names go before whole numbers.
    labels = _of_type(features, "ClassLabel") or _whole_numbers(features)
    label = label_column or _only(labels, "label", name)
    class_names = _field(features[label], "names") if label else None
    return Columns(
        image=image,
        label=label,
        class_names=tuple(class_names) if class_names else None,
        holds_arrays=_field(features[image], "_type") == ARRAY,
    )


def _check_named(named: Sequence[str | None], features: Features, name: str) -> None:
    for wanted in named:
        if wanted is not None and wanted not in features:
            raise ValueError(
                f"expected column {wanted} in {name}, got {', '.join(features) or 'none'}"
            )


def labels_from(values: Sequence[Any], columns: Columns, name: str) -> Labels:
    """Reads labels and class names from a column's values.

    Integers stay as they are; strings are numbered in alphabetical order.

    No labels where all values are missing, as in test splits whose classes are kept back.

    Raises:
        ValueError: some are missing, or they are neither integers nor strings.
    """
    # Test splits whose classes are kept back have a column of nothing.
    if columns.label is None or all(value is None for value in values):
        return None, columns.class_names
    if all(isinstance(value, str) for value in values):
        # Numbered in the order of the alphabet, as class folders are.
        class_names, labels = np.unique(np.asarray(values), return_inverse=True)
        return labels.astype(np.int64), tuple(class_names.tolist())
    strange = next((value for value in values if not _is_label(value)), None)
    if not all(map(_is_label, values)):
        raise ValueError(
            f"expected an integer label in each row of {name}, got {strange!r} in column "
            f"{columns.label}"
        )
    return np.asarray(values, dtype=np.int64), columns.class_names


def _is_label(value: Any) -> bool:
    # A boolean is an integer to Python, and no class; a larger one fits no array.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _only(candidates: list[str], kind: str, name: str) -> str | None:
    # The only one of its type, else the one with a usual name.
    chosen = (
        candidates
        if len(candidates) == 1
        else [found for found in candidates if found in _DEFAULTS[kind]]
    )
    if candidates and len(chosen) != 1:
        option = "--column" if kind == "image" else "--label-column"
        raise ValueError(
            f"expected one {kind} column in {name}, got {', '.join(candidates)}; name one "
            f"({option})"
        )
    return chosen[0] if chosen else None


def _of_type(features: Features, kind: str) -> list[str]:
    return [name for name, feature in features.items() if _field(feature, "_type") == kind]


def _whole_numbers(features: Features) -> list[str]:
    """Returns the integer columns with the name of labels, for tables whose types say no more."""
    return [
        name for name in _DEFAULTS["label"] if "int" in str(_field(features.get(name), "dtype"))
    ]


def _field(feature: Any, field: str) -> Any:
    return feature.get(field) if isinstance(feature, Mapping) else None
