"""Profiles: the perturbations that a ProfileGuard reads, made from clean images to mix with."""

from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.mixing.box_mix import BoxMix
from wobbliness.perturbations.mixing.cell_mix import CellMix
from wobbliness.perturbations.mixing.keep_box import KeepBox
from wobbliness.perturbations.mixing.overlays import MIN_OVERLAYS, Overlays
from wobbliness.perturbations.mixing.superpose import Superpose
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.perturbations.noise.keep_feature import KeepFeature

# A picture has channels, height and width.
PICTURE_AXES = 3


def default_profile(overlays: Overlays, draws: int) -> tuple[Perturbation, ...]:
    """Returns seven perturbations of pictures, or five of other inputs.

    A local trigger outlives what a box or cells of another image cover, a global one what is
    superposed; noise tells where other votes go.

    Args:
        overlays: clean images, neither fitted nor judged.
        draws: under each perturbation; superposition takes an overlay for each.
    """
    # As many as there are draws: a fixed set, the same for all inputs.
    few = Overlays(overlays.images[: max(draws, MIN_OVERLAYS)])
    mixed = (Superpose(few), Superpose(few, mix="sum"))
    noise = (Gaussian(0.2), Gaussian(0.4))
    if overlays.images.ndim <= PICTURE_AXES:
        return (*mixed, KeepFeature(0.7), *noise)
    return (BoxMix(overlays), *mixed, KeepBox(overlays), CellMix(overlays), *noise)
