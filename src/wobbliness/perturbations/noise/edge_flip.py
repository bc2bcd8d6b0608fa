"""Flipped edges of a graph."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EdgeFlip:
    """Each edge of a graph is flipped with a probability: removed if it is there, else added.

    The noise of certificates for graphs (Jia, Wang, Cao and Gong 2020): that of `KeepFeature` with
    two levels on the pairs of nodes, `kept_features_l0_radius(lower, 1 - share, 2)` edges. Inputs
    are adjacency matrices of zeros and ones, `(n, n)` or `(1, n, n)`, without direction: what is
    above the diagonal is read, and copies are symmetric. The diagonal stays.

    >>> EdgeFlip(0.1).name
    'edge-flip-0.1'

    Attributes:
        share: probability of a flip, from 0 to 1.

    Raises:
        ValueError: share is out of range; an input is no square matrix.
    """

    share: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", checked_level(self.share, "a share", at_most=1.0))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"edge-flip-{shown_level(self.share)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"{shown_share(self.share)} of its pairs of nodes gain or lose their edge"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the graph with its flipped edges; one random word of each pair decides."""
        num_nodes = _checked_nodes(image)
        first, second = np.triu_indices(num_nodes, k=1)
        words = stream.words("edge-flip", len(first), draws)
        # Compared as 64-bit integers: of share 1 the limit is 2^32.
        is_flipped = words < np.uint64(round(self.share * 2**32))
        out[:] = image
        # A view of each graph; both entries of a pair are set, so that it stays symmetric.
        graphs = out.reshape(draws, num_nodes, num_nodes)
        # |a - f| is 1 - a where the pair is flipped, else a.
        edges = np.abs(graphs[:, first, second] - is_flipped)
        graphs[:, first, second] = edges
        graphs[:, second, first] = edges

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        num_nodes = images.shape[-1]
        first, second = np.triu_indices(num_nodes, k=1)
        words = draws.words("edge-flip", (len(first),))
        copies = images.clone()
        graphs = copies.view(-1, num_nodes, num_nodes)
        edges = (graphs[:, first, second] - (words < round(self.share * 2**32)).float()).abs()
        # Both triangles, so that the graph stays undirected.
        graphs[:, first, second] = edges
        graphs[:, second, first] = edges
        return copies


def _checked_nodes(image: Float32[np.ndarray, "..."]) -> int:
    """Returns the number of nodes of a graph."""
    sides = image.shape[-2:]
    if len(sides) < 2 or sides[0] != sides[1] or sides[0] < 2 or image.size != sides[0] ** 2:
        raise ValueError(
            "expected adjacency matrices (n, n) for a perturbation of the kind edge-flip, "
            f"got inputs of shape {image.shape}"
        )
    return int(sides[0])
