"""The detectors of this package by their kind: the folder is the list.

The kind `top-score` is the class `TopScore` of the file `top_score.py`, so that one detector is
found without loading the others.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import wobbliness.detectors
from wobbliness.runtime.field_limits import kind_of


def detector_kinds() -> tuple[str, ...]:
    """Returns the kinds of all detectors of the folder, sorted; loads all of its files."""
    names = sorted(module.name for module in iter_modules(wobbliness.detectors.__path__))
    return tuple(name.replace("_", "-") for name in names if _class_in(name) is not None)


def detector_of_kind(kind: str) -> type[Any]:
    """Returns the class of a detector of this package.

    >>> detector_of_kind("top-score")().name
    'top-score'

    Raises:
        ValueError: there is no detector of that kind.
    """
    name = kind.replace("-", "_")
    names = {module.name for module in iter_modules(wobbliness.detectors.__path__)}
    found = _class_in(name) if name in names else None
    if found is None or kind_of(found) != kind:
        raise ValueError(f"expected a detector out of {', '.join(detector_kinds())}, got {kind!r}")
    return found


def _class_in(module: str) -> type[Any] | None:
    """Returns the class of a file that has the file's own name and the shape of a detector."""
    loaded = import_module(f"{wobbliness.detectors.__name__}.{module}")
    own: list[Any] = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type) and kind_of(value).replace("-", "_") == module
    ]
    return next(
        (value for value in own if hasattr(value, "fit") and hasattr(value, "judges")), None
    )
