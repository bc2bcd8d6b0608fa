"""Scores clean and triggered points by a detector that was fitted on other clean points."""

import numpy as np
import pandas as pd

from wobbliness.study.cells.base import Context, Outcome, clean_and_triggered, trained_network
from wobbliness.study.specs import DetectSpec
from wobbliness.study.training.data import load_data


def run(spec: DetectSpec, context: Context) -> Outcome:
    """Fits the detector, which opens the network as it needs, and scores the points."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    points = clean_and_triggered(spec, data)
    fitted = spec.detector.fit(network, points.to_fit)
    context.progress(1, 3)
    clean = fitted.scores(points.clean)
    context.progress(2, 3)
    triggered = fitted.scores(points.triggered)
    context.progress(3, 3)
    is_triggered = np.repeat([False, True], [len(clean), len(triggered)])
    scores = np.concatenate([clean, triggered])
    return Outcome(results={}, table=pd.DataFrame({"is_triggered": is_triggered, "score": scores}))
