"""Measures the votes of clean and triggered points under perturbations of any kind."""

import numpy as np
import pandas as pd

from wobbliness.classifiers.open import open_classifier
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.votes import Votes
from wobbliness.study.cells.base import (
    Context,
    Outcome,
    Points,
    clean_and_triggered,
    trained_network,
    vote_columns,
)
from wobbliness.study.specs import PerturbSpec
from wobbliness.study.training.data import load_data


def run(spec: PerturbSpec, context: Context) -> Outcome:
    """Measures all points under each perturbation, with the same keys."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    points = clean_and_triggered(spec, data)
    found = sweep(
        open_classifier(network, autocast=context.place.autocast),
        np.concatenate([points.clean, points.triggered]),
        spec.perturbations,
        draws=spec.draws,
        seed=spec.seed,
        workers=1,
        progress=context.progress,
    )
    keys = _keys(points, data.test.labels)
    frames = [_rows(keys, place, votes) for place, votes in enumerate(found.votes)]
    return Outcome(results={}, table=pd.concat(frames, ignore_index=True))


def _keys(points: Points, labels: np.ndarray) -> pd.DataFrame:
    indices = np.concatenate([points.clean_indices, points.triggered_indices])
    sizes = [len(points.clean), len(points.triggered)]
    return pd.DataFrame(
        {
            "point": indices,
            "label": labels[indices],
            "is_triggered": np.repeat([False, True], sizes),
        }
    )


def _rows(keys: pd.DataFrame, place: int, votes: Votes) -> pd.DataFrame:
    columns = vote_columns(votes)
    return keys.assign(perturbation=place, **columns)
