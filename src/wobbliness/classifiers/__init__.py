"""Classifiers: anything that predicts a class for each image of a batch."""

from wobbliness.classifiers.base import Classifier
from wobbliness.classifiers.open import open_classifier

__all__ = ["Classifier", "open_classifier"]
