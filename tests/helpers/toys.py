"""A perturbation, an attack and a detector that the library does not know, and a study of them."""

from dataclasses import dataclass

import numpy as np

from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.base import Access, Judges
from wobbliness.perturbations.base import KeyStream
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.study.recipes import Recipe
from wobbliness.study.specs import NetworkSpec


@dataclass(frozen=True)
class Negative:
    """Replaces the whole image by its negative in a share of the copies."""

    share: float = 0.2

    @property
    def name(self):
        return f"negative-{self.share:g}"

    def copies(self, stream, image, draws, out):
        def source():
            return KeyStream(
                stream.seed, stream.key, 4, first_draw=stream.first, scratch=stream.scratch
            )

        bits = stream.source("negative", source).take(draws)
        is_negative = bits[:, :4].copy().view("<u4")[:, 0] < self.share * 2**32
        out[:] = image
        out[is_negative] = 1 - image


@dataclass(frozen=True)
class Bar:
    """A white bar at the left edge."""

    width: int = 1

    @property
    def name(self):
        return f"bar-{self.width}"

    def apply(self, images):
        stamped = images.copy()
        stamped[..., : self.width] = 1
        return stamped


@dataclass(frozen=True)
class LeftEdge:
    """How bright the left edge is."""

    name: str = "left-edge"
    access: Access = Access.LABELS
    judges: Judges = Judges.INPUTS

    def fit(self, classifier, clean):  # noqa: ARG002
        return FittedLeftEdge(float(np.asarray(clean)[..., 0].mean()))


@dataclass(frozen=True)
class FittedLeftEdge:
    usual: float

    def scores(self, images):
        images = np.asarray(images)
        return np.abs(images[..., 0].reshape(len(images), -1).mean(axis=1) - self.usual)


def study(seed):
    """A clean network and one that is poisoned with the bar."""
    base = {
        "dataset": "digits",
        "architecture": "small_cnn",
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "seed": seed,
    }
    return Recipe(
        name="toys",
        seed=seed,
        detection_networks=(
            NetworkSpec(**base, threat=None, trigger=None),
            NetworkSpec(**base, threat=t1(5), trigger=Bar()),
        ),
        detection_points=20,
        sigmas=(0.15,),
        draws=50,
        control_pairs=10,
        control_points=10,
        perturbations=(Negative(0.1), Gaussian(0.15)),
        detectors=(LeftEdge(),),
    )
