"""Choice of clean images to mix with, in a test of batches that chooses sigma on clean images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from wobbliness.detectors.guards.profiles import PICTURE_AXES
from wobbliness.detectors.inputs.clean_parts import MOST_OVERLAYS, OVERLAY_SHARE
from wobbliness.detectors.inputs.distinct_inputs import content_keys, host_array
from wobbliness.perturbations.mixing.box_mix import BoxMix
from wobbliness.perturbations.mixing.overlays import MIN_OVERLAYS


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedImages:
    """Box mix with a part of the clean images.

    Attributes:
        box_mix: the perturbation.
        is_overlay: `(N,)` clean images that it mixes with.
    """

    box_mix: BoxMix
    is_overlay: Bool[np.ndarray, " N"]

    @property
    def num_overlays(self) -> int:
        """The number of images that are mixed with."""
        return int(self.is_overlay.sum())


def mix_with_some(
    clean: Any, suspect: Any, candidates: Int[np.ndarray, " C"], seed: int
) -> MixedImages | None:
    """Chooses images to mix with: a fifth of the clean ones, at most a hundred.

    None of them is a suspect input, which would be mixed with itself.

    Args:
        clean: `(N, ...)` clean inputs, all different.
        suspect: `(M, ...)` suspect ones.
        candidates: clean inputs to choose from.
        seed: of the choice.

    Returns:
        None where inputs are no pictures of at least 2 x 2 pixels, or fewer than two are left.
    """
    images, others = host_array(clean), host_array(suspect)
    if images.ndim != PICTURE_AXES + 1 or min(images.shape[2:]) < 2:
        return None
    is_apart = ~np.isin(content_keys(images[candidates]), content_keys(others))
    most = min(MOST_OVERLAYS, int(OVERLAY_SHARE * len(images)))
    # Another stream than that which chose the candidates, by the same seed.
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    chosen = rng.permutation(candidates[is_apart])[:most]
    if len(chosen) < MIN_OVERLAYS:
        return None
    is_overlay = np.isin(np.arange(len(images)), chosen)
    return MixedImages(box_mix=BoxMix(images[is_overlay]), is_overlay=is_overlay)
