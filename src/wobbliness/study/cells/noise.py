"""Finds the level of a family of perturbations, and measures three batches of a network at it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wobbliness.classifiers.open import open_classifier
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.sampling.matching import DRAWS, ShiftNotReached, changed_share, matched_level
from wobbliness.sampling.measure import measure
from wobbliness.sampling.votes import Votes
from wobbliness.study.cells.base import Context, Outcome, trained_network, vote_columns
from wobbliness.study.specs import NoiseSpec
from wobbliness.study.specs.noise import BATCHES
from wobbliness.study.training.data import ImageData, load_data


@dataclass(frozen=True, kw_only=True, eq=False)
class _Points:
    """Test points by their number, none of them in two places."""

    matched_on: np.ndarray
    overlays: np.ndarray
    clean: np.ndarray
    attacked: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """Returns the points of the batches, one batch after another."""
        return np.concatenate([self.clean, self.attacked, self.attacked])


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """Perturbation at the level that was found, and the share of labels that it changes."""

    perturbation: Perturbation
    level: float | None
    is_matched: bool
    changed: float


def run(spec: NoiseSpec, context: Context) -> Outcome:
    """Matches the level on clean points, and measures others of all three batches."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    classifier = open_classifier(network, autocast=context.place.autocast)
    points, images = _points(spec, data), data.test.images
    # The level is chosen on points that are not measured, so that it is not fitted to them.
    found = _matched(spec, classifier, images[points.matched_on], Overlays(images[points.overlays]))
    # The same points twice: the two batches differ in the trigger alone.
    active, inactive = (attack.apply(images[points.attacked]) for attack in spec.attacks)
    votes = measure(
        classifier,
        np.concatenate([images[points.clean], active, inactive]),
        found.perturbation,
        spec.draws,
        spec.seed,
        workers=1,
        keep_clean=True,
        progress=context.progress,
    )
    results = {
        "level": found.level,
        "is_matched": found.is_matched,
        "changed": found.changed,
        "draws": votes.draws,
    }
    return Outcome(results=results, table=_table(points.measured, data.test.labels, votes))


def _points(spec: NoiseSpec, data: ImageData) -> _Points:
    """Draws the test points of all parts.

    Raises:
        ValueError: the test split has too few points.
    """
    labels, threat = data.test.labels, spec.network.threat
    # One permutation that is cut into parts: they cannot overlap.
    order = np.random.default_rng(np.random.SeedSequence(spec.seed)).permutation(len(labels))
    sizes = np.cumsum([spec.num_images, spec.num_images, spec.num_points])
    matched_on, overlays, clean, rest = np.split(order, sizes)
    attacked = rest if threat is None else rest[threat.is_attacked(labels[rest])]
    if len(attacked) < spec.num_points:
        raise ValueError(
            f"expected at most {len(attacked)} test points to put a trigger on, got "
            f"{spec.num_points}"
        )
    return _Points(
        matched_on=matched_on,
        overlays=overlays,
        clean=clean,
        attacked=attacked[: spec.num_points],
    )


def _matched(spec: NoiseSpec, classifier: Any, clean: np.ndarray, overlays: Overlays) -> _Matched:
    settings: dict[str, Any] = {"seed": spec.seed, "workers": 1}

    # A ladder has a rung for each draw, and matching makes another number of draws.
    def family(level: float, draws: int = DRAWS) -> Perturbation:
        return spec.noise.at(level, overlays=overlays, draws=draws)

    most = spec.noise.most
    # Taken as it is; the share of labels that it changes is recorded all the same.
    if most is None:
        level, is_matched = None, False
        changed = changed_share(family(0.0), classifier, clean, **settings)
    else:
        try:
            found = matched_level(
                family, classifier, clean, shift=spec.shift, most=most, **settings
            )
            level, is_matched, changed = found.level, True, found.changed
        except ShiftNotReached as error:
            # measured all the same: at the highest level it changes as many as it can
            level, is_matched, changed = error.most, False, error.changed
    return _Matched(
        perturbation=family(level or 0.0, spec.draws),
        level=level,
        is_matched=is_matched,
        changed=changed,
    )


def _table(points: np.ndarray, labels: np.ndarray, votes: Votes) -> pd.DataFrame:
    keys = {
        "point": points,
        "label": labels[points],
        # In the order in which the batches were put together, all of one size.
        "batch": np.repeat(np.arange(len(BATCHES)), len(points) // len(BATCHES)),
        "clean_label": votes.clean_label,
    }
    counts = vote_columns(votes)
    return pd.DataFrame({**keys, **counts})
