"""Profiles: the perturbations that a ProfileGuard reads, made from clean images to mix with.

Where the votes of a mixture go depends on the image that was mixed in: votes for a class that is
neither the input's nor the overlay's are rare. So overlays stand in groups of like classes, and the
votes of each group are compared with clean ones of the same group.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from wobbliness.perturbations.base import Perturbation, num_draws_of
from wobbliness.perturbations.mixing.box_mix import BoxMix
from wobbliness.perturbations.mixing.overlays import MIN_OVERLAYS, Overlays
from wobbliness.perturbations.mixing.superpose import Superpose
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.perturbations.noise.keep_feature import KeepFeature
from wobbliness.perturbations.pictures.affine import Affine

# A picture has channels, height and width.
PICTURE_AXES, MIN_SIDE = 3, 2
# Groups of overlays; of more classes each group would hold many, and say little.
MOST_GROUPS, MOST_CLASSES = 10, 100


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfilePart:
    """One perturbation of a profile; where it mixes, a perturbation for each group of overlays.

    Attributes:
        whole: the perturbation with all overlays.
        draws: of all groups together, but for a remainder.
        num_groups: into which the overlays are cut, in their order.
    """

    whole: Perturbation
    draws: int
    num_groups: int = 1

    @cached_property
    def levels(self) -> tuple[Perturbation, ...]:
        """The perturbation of each group of overlays, or the whole one."""
        if self.num_groups == 1:
            return (self.whole,)
        made: Any = self.whole
        groups = np.array_split(made.overlays.images, self.num_groups)
        return tuple(replace(made, overlays=Overlays(group)) for group in groups)

    @property
    def draws_each(self) -> int:
        """The number of draws of each level that has so many."""
        return self.draws // self.num_groups

    def draws_of(self, level: Perturbation) -> int:
        """Returns the number of draws of one of the levels."""
        most = num_draws_of(level)
        return self.draws_each if most is None else min(self.draws_each, most)


def parts_of(perturbations: Iterable[Perturbation], draws: int) -> tuple[ProfilePart, ...]:
    """Returns a part for each perturbation, overlays in one group."""
    return tuple(ProfilePart(whole=each, draws=draws) for each in perturbations)


def default_profile(
    overlays: Overlays, label: Int[np.ndarray, " M"], draws: int, num_classes: int
) -> tuple[ProfilePart, ...]:
    """Returns five perturbations.

    A trigger outlives what is superposed, and a local one what a box of another image covers; noise
    and small shifts and turns break a trigger sooner than what the input shows.

    Args:
        overlays: clean images, neither fitted nor judged.
        label: their predictions.
        draws: under each perturbation.
        num_classes: K.
    """
    # Images of one class beside each other, so that groups are of one class or of few.
    ordered = Overlays(overlays.images[np.argsort(label, kind="stable")])
    num_groups = _num_groups(len(ordered), draws, num_classes)
    sizes = overlays.images.shape[2:]
    # A row of pixels has no boxes, and no turns.
    is_picture = len(sizes) == PICTURE_AXES - 1 and min(sizes) >= MIN_SIDE
    mixed = (Superpose(ordered), BoxMix(ordered)) if is_picture else (Superpose(ordered),)
    others = (Affine(0.1, 15, 0.1),) if is_picture else (KeepFeature(0.7), Gaussian(0.4))
    return (
        *(ProfilePart(whole=each, draws=draws, num_groups=num_groups) for each in mixed),
        *parts_of((Gaussian(0.1), Gaussian(0.2), *others), draws),
    )


def _num_groups(num_overlays: int, draws: int, num_classes: int) -> int:
    if num_classes > MOST_CLASSES:
        return 1
    return min(MOST_GROUPS, draws, num_overlays // MIN_OVERLAYS)
