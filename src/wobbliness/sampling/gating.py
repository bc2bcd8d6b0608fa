"""Perturbations of the network as perturbations of rows: an image's values, then its gates.

A classifier of such rows has its gates as further inputs of its graph (`classifiers.gated`), so
that all that holds of images holds of rows: keys, blocks, threads and checks are those of any other
measurement.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.classifiers.gated import GateableClassifier
from wobbliness.perturbations.base import Perturbation, Stream, num_draws_of
from wobbliness.perturbations.network.gated_nodes import NetworkPerturbation
from wobbliness.sampling.plan import Images, Plan, spread_images


@dataclass(frozen=True)
class GatedCopies:
    """A perturbation of the network as one of rows.

    Attributes:
        made: writes the gates.
        num_values: of an image, in front of the gates.
    """

    made: NetworkPerturbation
    num_values: int

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return self.made.name

    @property
    def num_draws(self) -> int | None:
        """The number of draws that there are; None where there is no end."""
        return num_draws_of(self.made)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, " R"],
        draws: int,
        out: Float32[np.ndarray, "B R"],
    ) -> None:
        """Writes rows of the image as it is, and the gates of the next draws."""
        out[:, : self.num_values] = image[: self.num_values]
        self.made.copies(stream, image[self.num_values :], draws, out[:, self.num_values :])


class GatedImages:
    """Rows of images with gates of 1, made when they are asked for: gates may be many."""

    def __init__(self, images: Images, num_gates: int) -> None:
        self._images, self._num_gates = images, num_gates

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        """Returns a row `(R,)`, rows `(B, R)` of a slice, or the images of several places."""
        if isinstance(index, np.ndarray):
            return GatedImages(self._images[index], self._num_gates)
        images = np.asarray(self._images[index], dtype=np.float32)
        if not isinstance(index, slice):
            return self._rows(images[None])[0]
        return self._rows(images)

    def _rows(self, images: Float32[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B R"]:
        gates = np.ones((len(images), self._num_gates), np.float32)
        return np.concatenate([images.reshape(len(images), -1), gates], axis=1)


def plans_of(plan: Plan) -> tuple[Plan, ...]:
    """Splits a plan: the perturbations of the input in one, each one of the network in its own.

    Raises:
        ValueError: the classifier is no torch module on the CPU or ONNX file, or its graph has not
            the nodes that are perturbed.
    """
    of_network = [made for made in plan.perturbations if isinstance(made, NetworkPerturbation)]
    if not of_network:
        return (plan,)
    others = tuple(made for made in plan.perturbations if not isinstance(made, NetworkPerturbation))
    parts = [_of_input(plan, others)] if others else []
    return (*parts, *(_of_rows(plan, made) for made in of_network))


def _of_input(plan: Plan, perturbations: tuple[Perturbation, ...]) -> Plan:
    own = replace(plan, perturbations=perturbations)
    # No further than the longest of these goes.
    last = max(own.span_of(row).stop for row in range(len(perturbations)))
    return replace(own, span=range(plan.span.start, last))


def _of_rows(plan: Plan, made: NetworkPerturbation) -> Plan:
    if not isinstance(plan.classifier, GateableClassifier):
        raise ValueError(
            f"expected a torch module on the CPU or an ONNX file for {made.name}, which perturbs "
            f"the network, got {type(plan.classifier).__name__}"
        )
    try:
        gated = plan.classifier.gated(made.nodes, spread_images(plan))
    except ValueError as error:
        raise ValueError(f"{error}, for {made.name}") from error
    images = GatedImages(plan.images, gated.num_gates)
    own = _of_input(plan, (GatedCopies(made, plan.images[0].size),))
    return replace(own, classifier=gated.classifier, images=images)
