"""What is done to an input before the classifier sees it, with draws that are keyed.

Every family is a class of a file of its own, found by its name: `from wobbliness.perturbations
import BoxMix`. `wobbliness perturbations` lists them with their sources.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    found = {} if name.startswith("_") else _families()
    if name not in found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_families()})


def _families() -> dict[str, type[Any]]:
    from wobbliness.perturbations.find import perturbation_classes, training_classes

    return perturbation_classes() | training_classes()
