"""Plausibility of a model's clean predictions: too low an accuracy, or one class for all images.

Either tells of a model that is shown images in another form than it was trained on.
"""

import math

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike
from scipy import special

MIN_SAME_CLASS_IMAGES = 20
SAME_CLASS_SHARE = 0.95
MIN_CLASSES = 3  # of two classes, all clean images may well be of one
EASY_CLASSES = 10  # up to as many, a network that works gets more than half of the images right
WARNING_RATE = 0.02  # at most, of samples from a network that is poor but works

ABOUT_ANSWERS = "without noise the model gives "  # as both warnings begin
ADVICE = (
    "is the range of its pixels another (--input-range), does it want a mean and std (--mean, "
    "--std), channels last (--layout), "
    "or is its order of the classes another than that of the labels?"
)


def implausible_answers(
    predicted: Int[np.ndarray, " N"],
    given: ArrayLike | None = None,
    num_classes: int | None = None,
) -> list[str]:
    """Warns where clean predictions are hardly better than chance, or are all the same.

    Accuracy is too low where it is below `0.45 + 0.3 / K` and, by the exact binomial test, also
    significantly (at 0.02) below `0.6 + 0.2 / K`: a wrong range of pixels leaves 0.1 to 0.4 of K =
    10 classes right, poor training 0.6. Of more than ten classes honest networks get fewer right,
    so both limits are lower by the square root of `10 / K`.

    >>> implausible_answers(np.array([0, 1, 2, 3] * 10), np.array([0, 1, 2, 3] * 10), num_classes=4)
    []
    >>> len(implausible_answers(np.zeros(40, int), np.array([0, 1, 2, 3] * 10), num_classes=4))
    2

    Args:
        predicted: the classes that the model predicts without noise.
        given: the classes that the source of the images states; None where it states none.
        num_classes: K; by default as many as are seen.

    Returns:
        A sentence for each of the two that holds.
    """
    labels = None if given is None else np.asarray(given)
    seen = 1 + max(int(predicted.max()), 0 if labels is None else int(labels.max()))
    classes = max(2, num_classes or seen)
    return [
        *_accuracy_warnings(predicted, labels, classes),
        *_one_class_warnings(predicted, labels, classes),
    ]


def _accuracy_warnings(
    predicted: Int[np.ndarray, " N"], labels: np.ndarray | None, num_classes: int
) -> list[str]:
    if labels is None:
        return []
    num_right, accuracy = int((predicted == labels).sum()), float((predicted == labels).mean())
    # Honest networks get fewer right of many classes: limits fall as sqrt(10 / K).
    share = min(1.0, math.sqrt(EASY_CLASSES / num_classes))
    # Exact binomial lower tail of so few right answers.
    is_rare = special.bdtr(num_right, len(labels), share * (0.6 + 0.2 / num_classes)) < WARNING_RATE
    if accuracy >= share * (0.45 + 0.3 / num_classes) or not is_rare:
        return []
    return [
        f"{ABOUT_ANSWERS}{num_right} of {len(labels)} clean images the class that "
        f"they are labelled with ({accuracy:.0%}; chance is {1 / num_classes:.1%}), so what "
        f"follows may say nothing: {ADVICE}"
    ]


def _one_class_warnings(
    predicted: Int[np.ndarray, " N"], labels: np.ndarray | None, num_classes: int
) -> list[str]:
    counts = np.bincount(predicted)
    num_same = int(counts.max())
    is_same = len(predicted) >= MIN_SAME_CLASS_IMAGES and num_same >= SAME_CLASS_SHARE * len(
        predicted
    )
    # One class for all is a fault only where the images are known to be, or may be, of several.
    num_possible = num_classes if labels is None else len(np.unique(labels))
    if not is_same or num_possible < MIN_CLASSES:
        return []
    unless = "unless all are of that class, " if labels is None else ""
    return [
        f"{ABOUT_ANSWERS}{num_same} of {len(predicted)} clean images one class, "
        f"{counts.argmax()}: {unless}{ADVICE}"
    ]
