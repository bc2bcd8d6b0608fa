"""Measures clean and triggered points at each sigma of a ladder of Gaussian noise."""

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
from wobbliness.study.specs import LadderSpec
from wobbliness.study.training.data import Split, load_data


def run(spec: LadderSpec, context: Context) -> Outcome:
    """Measures all points at every sigma, from the same standard-normal draws."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    points = clean_and_triggered(spec, data)
    # Common random numbers: a difference between two sigmas is no difference between draws.
    found = sweep(
        open_classifier(network, autocast=context.place.autocast),
        np.concatenate([points.clean, points.triggered]),
        spec.sigmas,
        draws=spec.draws,
        seed=spec.seed,
        workers=1,
        progress=context.progress,
    )
    keys = _keys(points, data.test)
    frames = [_rows(keys, votes) for votes in found.votes]
    return Outcome(results={}, table=pd.concat(frames, ignore_index=True))


def _keys(points: Points, test: Split) -> pd.DataFrame:
    indices = np.concatenate([points.clean_indices, points.triggered_indices])
    sizes = [len(points.clean), len(points.triggered)]
    # Of clean points nothing was changed: both norms are 0.
    change = points.triggered - test.images[points.triggered_indices]
    # In float64, since squares of many small changes are summed.
    change = np.abs(change.reshape(len(change), -1)).astype(np.float64)
    none = np.zeros(sizes[0])
    return pd.DataFrame(
        {
            "point": indices,
            "label": test.labels[indices],
            "is_triggered": np.repeat([False, True], sizes),
            "l2": np.concatenate([none, np.sqrt((change**2).sum(axis=1))]),
            "contrast": np.concatenate([none, change.max(axis=1)]),
        }
    )


def _rows(keys: pd.DataFrame, votes: Votes) -> pd.DataFrame:
    columns = vote_columns(votes)
    return keys.assign(sigma=votes.sigma, **columns)
