"""One perturbation of each family at a usual level, for `wobbliness bench --families`."""

import numpy as np
from torch import nn

import wobbliness.perturbations as families
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.mixing.overlays import Overlays

NUM_OVERLAYS = 50
AMPLIFIED_LAYERS = 2


def every_family(shape: tuple[int, ...]) -> tuple[Perturbation, ...]:
    """Returns a perturbation of each family that takes pictures.

    Args:
        shape: of a picture, channels first.
    """
    overlays = overlays_of(shape, NUM_OVERLAYS)
    return (
        families.Gaussian(0.15),
        families.Uniform(0.15),
        families.Laplace(0.15),
        families.SaltAndPepper(0.1),
        families.KeepFeature(0.8),
        families.Flow(0.1),
        families.BoxNoise(0.3),
        families.BoxMix(overlays),
        families.KeepBox(overlays),
        families.CellMix(overlays),
        families.Superpose(overlays),
        families.Occlude(0.5),
        families.Scale(3, 5, 7, 9, 11),
        families.Contrast(0.75, 0.5, 0.4, 0.3, 0.15),
        families.Blur(0.5, 1, 1.5, 2, 3),
        families.Affine(0.1, 15, 0.1),
        families.Elastic(10),
        families.Corrupt("zoom-blur"),
    )


def families_of(
    network: nn.Module, shape: tuple[int, ...], device: str = "cpu"
) -> tuple[Perturbation, ...]:
    """Returns those of `every_family`, and on the CPU those of networks where it has nodes."""
    of_network = (families.Amplify(AMPLIFIED_LAYERS), families.Dropout(0.2))
    has_nodes = device == "cpu" and has_batch_norms(network)
    return (*every_family(shape), *(of_network if has_nodes else ()))


def has_batch_norms(network: nn.Module) -> bool:
    """Checks for batch normalisations; of the benchmark's networks those have residual sums, too.

    The graph would tell more, but takes seconds to make.
    """
    return any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def overlays_of(shape: tuple[int, ...], number: int) -> Overlays:
    """Returns random images to mix others with."""
    # Another seed than that of the timed images: none of them is mixed with itself.
    return Overlays(np.random.default_rng(1).random((number, *shape), dtype=np.float32))
