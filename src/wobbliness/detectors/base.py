"""The protocol of a detector: what it needs of a classifier, what it judges, and its scores.

Importing this module loads no torch: recipes name detectors, and reading a study needs none.
"""

from dataclasses import fields
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.field_limits import is_default, kind_of


class Access(Enum):
    """Access to a classifier that a detector needs, each with all that precede it."""

    LABELS = "labels"
    SCORES = "scores"
    GRADIENTS = "gradients"
    WEIGHTS = "weights"
    TRAINING_DATA = "training data"


class Judges(Enum):
    """Subject of one score of a detector.

    Whatever it is, `FittedDetector.scores` takes images and returns scores in one dimension, so
    that a protocol of many detectors is one loop: scores of what carries a backdoor are pooled and
    compared with pooled scores of what carries none (AUROC, rate at a threshold). Only what a call
    is repeated over differs: nothing, batches, or networks.

    Attributes:
        INPUTS: `(N,)`, each of its input alone.
        BATCHES: `(1,)`, of all the images together.
        MODELS: `(1,)`, of the network, judged by `fit`: the same for all images. One score, not one
            for each class, since a network is one sample; which class a backdoor leads to is
            another question, which `ClassScores` answers.
        TRAINING_SETS: `(N,)`, each of one training image, relative to all the others: the images
            are those that the network was trained on.
    """

    INPUTS = "inputs"
    BATCHES = "batches"
    MODELS = "models"
    TRAINING_SETS = "training sets"


@runtime_checkable
class FittedDetector(Protocol):
    """A detector that has seen a classifier and clean images."""

    def scores(self, images: Any) -> Float[np.ndarray, " S"]:
        """Computes scores, higher where more suspicious.

        The same images give the same scores, and other ones change no score of an input. The
        number of scores is that of `Judges`.

        Args:
            images: `(N, ...)` in [0, 1], array or tensor.
        """
        ...


@runtime_checkable
class ClassScores(Protocol):
    """A fitted detector of models that also tells which class a backdoor leads to."""

    @property
    def class_scores(self) -> Float[np.ndarray, " K"]:
        """Scores of the classes as targets of a backdoor, `(K,)`; the highest is the suspect."""
        ...


@runtime_checkable
class Detector(Protocol):
    """A method that raises the alarm: at inputs, batches, models or training images.

    A frozen dataclass whose fields are its settings, plain values (numbers, strings, perturbations,
    tuples of them), and so its identity in records: equal settings are equal objects and equal
    names. It imports torch inside its methods, if at all.

    Attributes:
        name: stable; goes into records and tables, such as `smoothness-draws-50`.
        access: what it needs of the classifier.
        judges: what one of its scores is about.
    """

    @property
    def name(self) -> str:
        """The name in records and tables."""
        ...

    @property
    def access(self) -> Access:
        """The access to the classifier that it needs."""
        ...

    @property
    def judges(self) -> Judges:
        """The subject of one of its scores."""
        ...

    def fit(self, classifier: Any, clean: Any) -> FittedDetector:
        """Learns how clean images look to a classifier.

        Args:
            classifier: as for `wobbliness.measure`, or opened.
            clean: `(N, ...)` images in [0, 1] known to be clean, array or tensor.

        Raises:
            ValueError: the classifier does not give the access that is needed, or the images are
                too few.
        """
        ...


def name_by_settings(detector: Any) -> str:
    """Returns the kind of a detector, followed by each setting that differs from its default.

    So a setting that is added later, with a default, renames no record.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class TopScore:
    ...     num_images: int = 5
    >>> name_by_settings(TopScore()), name_by_settings(TopScore(7))
    ('top-score', 'top-score-num-images-7')
    """
    settings = [
        f"{field.name.replace('_', '-')}-{_text(value)}"
        for field in fields(detector)
        if not is_default(field, value := getattr(detector, field.name))
    ]
    return "-".join([kind_of(detector), *settings])


def _text(value: Any) -> str:
    """Returns a setting as a part of a name; all digits of a number, to tell it from others.

    A perturbation has a name of its own.
    """
    if isinstance(value, Perturbation):
        return value.name
    if isinstance(value, tuple | list):
        return "-".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
