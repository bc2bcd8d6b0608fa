"""Specs of all kinds of cells, each in the file of its kind.

The folder is the list: a kind is known by its file's name.
"""

import re
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from wobbliness.study.specs.base import (
    READ_SCHEMAS,
    SCHEMA_VERSION,
    Cell,
    Results,
    Spec,
    cell_name,
)
from wobbliness.study.specs.cleanse import CleanseSpec
from wobbliness.study.specs.detect import DetectSpec
from wobbliness.study.specs.ladder import LadderSpec
from wobbliness.study.specs.measure import MeasureSpec
from wobbliness.study.specs.noise import NoiseSpec
from wobbliness.study.specs.perturb import PerturbSpec
from wobbliness.study.specs.response import ResponseSpec
from wobbliness.study.specs.smooth_adv import SmoothAdv
from wobbliness.study.specs.train import NetworkSpec
from wobbliness.study.specs.universal import UniversalSpec

__all__ = [
    "READ_SCHEMAS",
    "SCHEMA_VERSION",
    "Cell",
    "CleanseSpec",
    "DetectSpec",
    "LadderSpec",
    "MeasureSpec",
    "NetworkSpec",
    "NoiseSpec",
    "PerturbSpec",
    "ResponseSpec",
    "Results",
    "SmoothAdv",
    "Spec",
    "UniversalSpec",
    "cell_name",
    "is_cell_name",
    "spec_types",
]

_CELL_NAME = re.compile(r"([a-z_]+)-[0-9a-f]{16}")


@cache
def spec_types() -> dict[str, Any]:
    """Returns the spec of each kind of cell, by the kind's name."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    specs = [module.SPEC for module in modules if hasattr(module, "SPEC")]
    return {spec.kind: spec for spec in specs}


def is_cell_name(text: str) -> bool:
    """Checks whether a text is a name that `cell_name` gives, of a kind that is known."""
    found = _CELL_NAME.fullmatch(text)
    return found is not None and found[1] in spec_types()
