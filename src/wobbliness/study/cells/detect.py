"""Scores clean and triggered points by a detector that was fitted on other clean points."""

import numpy as np
import pandas as pd

from wobbliness.classifiers.open import open_classifier
from wobbliness.study.cells.base import Context, Outcome, clean_and_triggered, trained_network
from wobbliness.study.specs import DetectSpec
from wobbliness.study.training.data import load_data


def run(spec: DetectSpec, context: Context) -> Outcome:
    """Fits the detector and scores the points.

    A detector of networks is handed the network itself, others a classifier.
    """
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    points = clean_and_triggered(spec, data)
    needs_network = spec.detector.access.value not in ("labels", "scores")
    classifier = network if needs_network else open_classifier(network)
    fitted = spec.detector.fit(classifier, points.to_fit)
    context.progress(1, 3)
    clean = fitted.scores(points.clean)
    context.progress(2, 3)
    triggered = fitted.scores(points.triggered)
    context.progress(3, 3)
    is_triggered = np.repeat([False, True], [len(clean), len(triggered)])
    scores = np.concatenate([clean, triggered])
    return Outcome(results={}, table=pd.DataFrame({"is_triggered": is_triggered, "score": scores}))
