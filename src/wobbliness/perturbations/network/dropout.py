"""Dropout at the residual sums, the perturbation of PSBD."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share
from wobbliness.perturbations.network.gated_nodes import GatedNodes, NodeKind

# Of a gate: half a word, as a network has many gates; rates are rounded to multiples of 2^-16.
GATE_BITS = 16


@dataclass(frozen=True)
class Dropout:
    """Each value of each residual sum becomes 0 at a rate, else it is divided by 1 - rate.

    PSBD (Li et al. 2025) subtracts the mean probability of the clean prediction over 3 draws
    (`readouts.retained_confidence`) from that without dropout (`readouts.clean_confidence`). It
    chooses the rate by the share of clean labels that change, as `matched` does.

    >>> Dropout(0.3).name
    'dropout-0.3'

    Attributes:
        rate: probability that a value becomes 0, from 0 to 1; at 1 all do.

    Raises:
        ValueError: rate is out of range.
    """

    rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", checked_level(self.rate, "a rate", at_most=1.0))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"dropout-{shown_level(self.rate)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"{shown_share(self.rate)} of the values inside of the network are dropped"

    @property
    def nodes(self) -> GatedNodes:
        """All residual sums, each value by itself."""
        return GatedNodes(kind=NodeKind.RESIDUAL_SUM, has_gate_for_each_value=True)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes gates of 0 and 1 / (1 - rate); 16 random bits of each decide."""
        # Two gates share a word.
        words = stream.words("dropout", -(-image.size // 2), draws)
        # In one byte order, so that draws are the same on every machine.
        bits = words.view("<u2")[:, : image.size].reshape(draws, *image.shape)
        limit = round(self.rate * 2**GATE_BITS)
        # Divided by the share that is kept of the rounded rate: the mean of a gate is 1 exactly.
        kept = 2**GATE_BITS / (2**GATE_BITS - limit) if limit < 2**GATE_BITS else 0.0
        # A comparison is 0 or 1, so one product writes both kinds of gates.
        np.multiply(bits >= limit, np.float32(kept), out=out)
