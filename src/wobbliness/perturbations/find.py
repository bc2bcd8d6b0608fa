"""The perturbations of this package by their names: the folders are the list.

The kind `box-mix` is the class `BoxMix` of the file `box_mix.py`.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import wobbliness.perturbations
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.field_limits import kind_of


@cache
def perturbation_classes() -> dict[str, type[Any]]:
    """Returns the classes of all families by their names, sorted; loads all of their files."""
    package = wobbliness.perturbations
    modules = (
        import_module(module.name)
        for module in walk_packages(package.__path__, f"{package.__name__}.")
        if not module.ispkg
    )
    found = {own.__name__: own for module in modules if (own := _class_of(module)) is not None}
    return dict(sorted(found.items()))


def perturbation_kinds() -> dict[str, type[Any]]:
    """Returns the classes by their kinds, such as `box-mix`, as commands take them."""
    return {kind_of(of): of for of in perturbation_classes().values()}


def perturbation_from_text(text: str, read_images: Callable[[str], Any]) -> Perturbation:
    """Makes a perturbation of `KIND:VALUE,...`, the values in the order of its settings.

    >>> perturbation_from_text("scale:3,5,7", read_images=list).name
    'scale-3-5-7'
    >>> perturbation_from_text("keep-feature:0.9,levels=2", read_images=list).name
    'keep-feature-0.9-levels-2'

    Args:
        text: a setting may also be said by its name, `NAME=VALUE`.
        read_images: reads the file that stands in place of overlays.

    Raises:
        ValueError: an unknown kind, or settings that it does not take.
    """
    kind, _, values = text.partition(":")
    kinds = perturbation_kinds()
    if kind not in kinds:
        raise ValueError(f"expected a perturbation out of {', '.join(kinds)}, got {kind!r}")
    of = kinds[kind]
    given = [value for value in values.split(",") if value]
    # Values in their order first, as a call in Python has them.
    positional = [_value(value) for value in given if "=" not in value]
    named = {
        name: _value(value)
        for name, _, value in (each.partition("=") for each in given if "=" in each)
    }
    # The first value of a family with overlays is a file of images.
    if "overlays" in inspect.signature(of).parameters and positional:
        positional[0] = read_images(str(positional[0]))
    try:
        made: Perturbation = of(*positional, **named)
    except TypeError:
        settings = str(inspect.signature(of)).partition(" ->")[0]
        raise ValueError(f"expected {kind} with settings {settings}, got {text!r}") from None
    return made


def _value(text: str) -> int | float | str:
    for of in (int, float):
        try:
            return of(text)
        except ValueError:
            continue
    return text


def _class_of(module: Any) -> type[Any] | None:
    """Returns the class of a file that has the file's own name and is a perturbation."""
    name = Path(module.__file__).stem.replace("_", "-")
    return next(
        (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and is_dataclass(value)
            and value.__module__ == module.__name__
            and kind_of(value) == name
            and hasattr(value, "copies")
        ),
        None,
    )
