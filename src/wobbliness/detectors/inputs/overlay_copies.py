"""Detection of overlays among the inputs that are mixed with them.

An input that is an overlay, too, is mixed with itself: its votes change less than those of others
of its kind, and clean inputs are no longer like new ones.
"""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from wobbliness.detectors.inputs.distinct_inputs import content_keys
from wobbliness.perturbations.mixing.overlays import Overlays


def overlays_of(perturbation: Any) -> tuple[Overlays, ...]:
    """Returns the overlays among a perturbation's settings, at any depth; none of a sigma."""
    if isinstance(perturbation, Overlays):
        return (perturbation,)
    if not is_dataclass(perturbation):
        return ()
    # A perturbation may wrap another one, which has the overlays.
    values = (getattr(perturbation, field.name) for field in fields(perturbation))
    return tuple(overlays for value in values for overlays in overlays_of(value))


def overlay_rows(perturbations: Iterable[Any], images: np.ndarray) -> Int[np.ndarray, " R"]:
    """Returns the rows of images that are overlays, or have the grey levels of one.

    Args:
        perturbations: or sigmas, which have no overlays.
        images: `(N, ...)` in [0, 1].
    """
    mixed = [content_keys(each.images) for made in perturbations for each in overlays_of(made)]
    if not mixed:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(content_keys(images), np.concatenate(mixed)))


def require_overlays_apart(perturbations: Iterable[Any], images: np.ndarray, what: str) -> None:
    """Checks that no overlay is an input, or has the grey levels of one.

    Args:
        perturbations: or sigmas, which have no overlays.
        images: `(N, ...)` in [0, 1].
        what: the inputs are, for messages: `clean inputs`.

    Raises:
        ValueError: some overlays are among the inputs.
    """
    for perturbation in perturbations:
        for overlays in overlays_of(perturbation):
            num_copies = int(np.isin(content_keys(overlays.images), content_keys(images)).sum())
            if num_copies:
                raise ValueError(
                    f"expected overlays that are not among the {what}, got {num_copies} of the "
                    f"{len(overlays)} of {perturbation.name} that are"
                )
