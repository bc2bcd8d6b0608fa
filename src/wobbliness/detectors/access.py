"""Access of a detector to a classifier: its scores, or its network."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Shaped

from wobbliness.classifiers import Classifier, open_classifier
from wobbliness.classifiers.base import ScoredClassifier, WhiteBox, as_array
from wobbliness.classifiers.execution import default_block_size
from wobbliness.detectors.base import Access, Detector
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.plan import EXAMPLES

if TYPE_CHECKING:
    import torch


def open_for(detector: Detector, classifier: Any, images: Any) -> Classifier:
    """Opens a classifier, and checks that it gives the access that a detector needs.

    Args:
        detector: whose `access` is checked.
        classifier: as for `open_classifier`, or opened.
        images: some of those that it will be asked about: a callable gets tensors if they are one.

    Raises:
        ValueError: it gives labels where scores are needed, or is no torch network where gradients
            or weights are.
    """
    opened = open_classifier(classifier, as_tensor=hasattr(images, "detach"))
    if detector.access is Access.SCORES:
        class_scores(opened, images[:2])
    elif detector.access is not Access.LABELS:
        _check_has_network(opened, detector)
    return opened


def class_scores(
    classifier: Classifier, images: Any, *, are_probabilities: bool = False
) -> Float[np.ndarray, "N K"]:
    """Returns the scores of an opened classifier before a class is chosen, `(N, K)`.

    One score s of class 1 becomes two: 0 and s - threshold, or 1 - s and s of a probability.

    Raises:
        ValueError: it gives labels, or one score for two classes without a threshold.
    """
    array = checked_images(images, with_channels_first=False).astype(np.float32, copy=False)
    answers = getattr(classifier, "answers", None)
    if answers is None:
        raise _no_scores(classifier, "labels")
    with classifier.session(array[:EXAMPLES]) as execution:
        values = execution.values_per_image or 2 * array[0].size
        size = execution.block_size or default_block_size(len(array), values)
        scores = as_array(answers(array, size))
    # axes of length 1 do not count: (N, K, 1, 1) are scores
    scores = scores.reshape(len(array), -1)
    if scores.shape[1] < 2:
        scores = _two_scores(classifier, scores, are_probabilities=are_probabilities)
    return scores.astype(np.float64)


def _two_scores(
    classifier: Classifier, scores: Shaped[np.ndarray, "N 1"], *, are_probabilities: bool
) -> Float[np.ndarray, "N 2"]:
    """Returns the scores of both classes: as `TwoClasses` gives them, or their probabilities."""
    if not isinstance(classifier, ScoredClassifier) or not np.issubdtype(scores.dtype, np.floating):
        raise _no_scores(classifier, "one number for each image")
    # Without a threshold this refuses them, and says what to give.
    classifier.labels_of(scores, len(scores))
    if are_probabilities:
        return np.hstack([1 - scores, scores])
    above = scores - classifier.class_threshold
    return np.hstack([np.zeros_like(above), above])


def network_of(classifier: Classifier) -> "torch.nn.Module | None":
    """Returns the torch network behind an opened classifier, on the CPU or CUDA; None if none."""
    import torch

    module = classifier.module if isinstance(classifier, WhiteBox) else None
    if not isinstance(module, torch.nn.Module):
        return None
    places = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    # Parts on several devices, or on another accelerator, are moved together to the CPU.
    can_stay = all(place.type in ("cpu", "cuda") for place in places) and len(places) <= 1
    return module if can_stay else copy.deepcopy(module).cpu()


def scoring_network(
    classifier: Classifier, examples: Float32[np.ndarray, "B ..."]
) -> "torch.nn.Module":
    """Returns the torch network behind an opened classifier, wrapped so that it gives logits alone.

    Args:
        classifier: opened.
        examples: a few images, to see what the network gives.

    Raises:
        ValueError: there is no network, or it refuses the images.
    """
    from wobbliness.classifiers.torch_module import TorchClassifier

    network = network_of(classifier)
    if network is None:
        raise ValueError(f"expected a torch network, got {type(classifier).__name__}")
    # on an accelerator the module itself is differentiated
    return (
        classifier.scoring_module(examples) if isinstance(classifier, TorchClassifier) else network
    )


def _check_has_network(classifier: Classifier, detector: Detector) -> None:
    if network_of(classifier) is None:
        raise ValueError(
            f"expected a torch network, whose {detector.access.value} {detector.name} needs, got "
            f"{type(classifier).__name__}"
        )


def _no_scores(classifier: Classifier, found: str) -> ValueError:
    return ValueError(
        f"expected a classifier that gives scores (B, K), got {found} of "
        f"{type(classifier).__name__}"
    )
