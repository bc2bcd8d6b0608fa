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
from wobbliness.perturbations.base import Perturbation, not_of_inputs
from wobbliness.runtime.field_limits import kind_of


def perturbation_classes() -> dict[str, type[Any]]:
    """Returns the classes of all families of inputs by their names, sorted; loads their files."""
    return _classes_with("copies")


def training_classes() -> dict[str, type[Any]]:
    """Returns the classes of all families of training sets by their names, sorted."""
    return _classes_with("training_labels")


def perturbation_kinds() -> dict[str, type[Any]]:
    """Returns the classes by their kinds, such as `box-mix`, as commands take them."""
    return {kind_of(of): of for of in perturbation_classes().values()}


def training_kinds() -> dict[str, type[Any]]:
    """Returns the classes of training sets by their kinds, such as `label-flip`."""
    return {kind_of(of): of for of in training_classes().values()}


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
    if kind in training_kinds():
        raise ValueError(not_of_inputs(kind))
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


@cache
def _classes_with(method: str) -> dict[str, type[Any]]:
    """Returns the classes of the folders that have a method, by their names, sorted."""
    package = wobbliness.perturbations
    modules = (
        import_module(module.name)
        for module in walk_packages(package.__path__, f"{package.__name__}.")
        if not module.ispkg
    )
    found = [_class_of(module, method) for module in modules]
    return {of.__name__: of for of in sorted(filter(None, found), key=lambda of: of.__name__)}


def _class_of(module: Any, method: str) -> type[Any] | None:
    """Returns the class of a file that has the file's own name and the method."""
    name = Path(module.__file__).stem.replace("_", "-")
    return next(
        (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and is_dataclass(value)
            and value.__module__ == module.__name__
            and kind_of(value) == name
            and hasattr(value, method)
        ),
        None,
    )
