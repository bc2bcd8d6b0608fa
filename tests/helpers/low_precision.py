"""A linear classifier with a twin of a known error, and calls small enough for tests."""

from contextlib import contextmanager
from copy import copy

import numpy as np

from wobbliness.classifiers.base import ScoredClassifier, Twin
from wobbliness.classifiers.compile import processor
from wobbliness.classifiers.execution import Execution
from wobbliness.sampling.counting import low_precision

NUM_VALUES, NUM_CLASSES = 6, 4


class Linear(ScoredClassifier):
    """Scores of a row are a matrix product, the same in any block.

    Its twin adds an error that depends on the row alone, at most `error`; a spoilt twin predicts
    the worst class for a share of the rows.
    """

    num_classes, thread_safe, image_shape, keeps_network = NUM_CLASSES, True, None, False

    def __init__(self, *, error, cost=0.3, closeness=1.0):
        rng = np.random.default_rng(0)
        self._weights = closeness * rng.normal(size=(NUM_VALUES, NUM_CLASSES))
        self._directions = 1e3 * rng.normal(size=(NUM_VALUES, NUM_CLASSES))
        self._error, self._cost, self._is_twin, self.spoilt_share = error, cost, False, 0.0

    def answers(self, images, block_size):  # noqa: ARG002
        rows = images.reshape(len(images), -1).astype(np.float64)
        scores = (rows[:, :, None] * self._weights).sum(axis=1)
        if not self._is_twin:
            return scores
        angles = (rows[:, :, None] * self._directions).sum(axis=1)
        scores += self._error * np.sin(angles)
        is_spoilt = np.sin(angles[:, 0] * 7) ** 2 < np.sin(np.pi / 2 * self.spoilt_share) ** 2
        return np.where(is_spoilt[:, None], -scores, scores)

    def classify(self, images, block_size):
        return self.labels_of(self.answers(images, block_size), len(images))

    @contextmanager
    def session(self, examples):  # noqa: ARG002
        yield Execution(backend="onnxruntime", values_per_image=2 * NUM_VALUES)

    def twin(self, images):  # noqa: ARG002
        made = copy(self)
        made._is_twin = True
        return Twin(classifier=made, relative_cost=self._cost)


def allow_small_calls(monkeypatch, *, max_changed=0.02, audit_every=20):
    """Takes the processor for one with dot products, and allows more changed votes.

    Calls of some thousand copies are then enough to calibrate, and to audit, low precision.
    """
    has_dot_products(monkeypatch)
    monkeypatch.setattr(low_precision, "MAX_CHANGED", max_changed)
    monkeypatch.setattr(low_precision, "AUDIT_EVERY", audit_every)


def has_dot_products(monkeypatch, *, is_there=True):
    monkeypatch.setattr(processor, "has_int8_dot_products", lambda: is_there)


def spoil_after_calibration(monkeypatch, share):
    """Has each twin predict the worst class for a share of the copies, once it is calibrated."""
    run = low_precision._Calibration.run

    def spoilt(calibration, plan, prepared, twin):
        found = run(calibration, plan, prepared, twin)
        twin.classifier.spoilt_share = share
        return found

    monkeypatch.setattr(low_precision._Calibration, "run", spoilt)
