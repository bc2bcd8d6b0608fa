"""Amplified batch normalisation, the perturbation of IBD-PSC."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_count, checked_level, shown_level
from wobbliness.perturbations.network.gated_nodes import GatedNodes, NodeKind

MAX_LAYERS, MAX_MEMBERS = 10_000, 1_000
MAX_FACTOR = 1e6


@dataclass(frozen=True)
class Amplify:
    """Draw j multiplies scale and shift of the last layers + j batch normalisations by a factor.

    IBD-PSC (Hou et al. 2024) takes the mean probability of the clean prediction over 5 such
    networks (`readouts.retained_confidence`) at a factor of 1.5. Its first number of layers is the
    smallest at which more than 60 % of clean images are misclassified.

    >>> Amplify(3).name, Amplify(3).num_draws
    ('amplify-3-5-1.5', 5)

    Attributes:
        layers: number of amplified batch normalisations of draw 0, counted from the network's end.
        members: number of draws, each with one layer more than the one before.
        factor: of scale and shift, and so of the layer's output; at least 0.

    Raises:
        ValueError: a setting is out of range.
    """

    layers: int
    members: int = 5
    factor: float = 1.5

    def __post_init__(self) -> None:
        checked = {
            "layers": checked_count(self.layers, "layers", at_most=MAX_LAYERS),
            "members": checked_count(self.members, "members", at_most=MAX_MEMBERS),
            "factor": checked_level(self.factor, "a factor", at_most=MAX_FACTOR),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"amplify-{self.layers}-{self.members}-{shown_level(self.factor)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"the last layers of the network are amplified by {self.factor:g}"

    @property
    def num_draws(self) -> int:
        """The number of members."""
        return self.members

    @property
    def nodes(self) -> GatedNodes:
        """The batch normalisations of the last member, which has the most."""
        return GatedNodes(kind=NodeKind.BATCH_NORMALISATION, last=self.layers + self.members - 1)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the gates of the next members, the factor at the amplified layers and else 1."""
        # In place of an image come ones, a gate for each layer.
        out[:] = image
        # factor * (scale * x + shift) is the layer's output times the factor.
        for row, member in enumerate(range(stream.first, stream.first + draws)):
            out[row, -(self.layers + member) :] *= np.float32(self.factor)
