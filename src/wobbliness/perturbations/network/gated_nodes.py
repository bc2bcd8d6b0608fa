"""The nodes of a network that a perturbation multiplies by gates, and the protocol of such ones."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from wobbliness.perturbations.base import Perturbation


class NodeKind(Enum):
    """A kind of node, in the words of messages."""

    BATCH_NORMALISATION = "batch normalisation"
    RESIDUAL_SUM = "residual sum"


@dataclass(frozen=True, kw_only=True)
class GatedNodes:
    """A choice of nodes, in the order in which the network computes them.

    Attributes:
        kind: of the nodes.
        last: number of them, counted from the network's end; None for all.
        has_gate_for_each_value: whether each value of a node has a gate of its own; else the node
            has one gate.
    """

    kind: NodeKind
    last: int | None = None
    has_gate_for_each_value: bool = False


@runtime_checkable
class NetworkPerturbation(Perturbation, Protocol):
    """A perturbation that multiplies values inside of the network, and leaves images as they are.

    Its `copies` is given the gates of all nodes, `(G,)` ones, in place of an image, and writes
    those of the next draws. A network whose gates are 1 is the network itself.

    Attributes:
        nodes: where the gates are.
    """

    @property
    def nodes(self) -> GatedNodes:
        """The nodes that it multiplies."""
        ...
