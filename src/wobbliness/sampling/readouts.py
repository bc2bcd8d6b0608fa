"""Readouts: one number for each image, from the votes under any perturbation.

Every input-level detector of the field is a perturbation, a readout and a reference. All readouts
are computed after the measurement from what it keeps for each image: counts, the clean prediction
and, where asked for, sums of the class probabilities.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from wobbliness.sampling.score_sums import ScoreSums
from wobbliness.sampling.votes import Votes


def wobbliness(votes: Votes) -> Float[np.ndarray, " N"]:
    """Computes W, the entropy of the votes (Eq. 3), `(N,)` nats.

    Triggered inputs have a low W under small noise (Grosse et al.). Under `Superpose` it is the
    statistic of STRIP with labels in place of scores.
    """
    return votes.wobbliness


def agreement(votes: Votes) -> Float[np.ndarray, " N"]:
    """Computes the share of the votes for the clean prediction, `(N,)`.

    The statistic of SCALE-UP (Guo et al. 2023) under `Scale`, where a high one is suspicious.

    Raises:
        ValueError: the clean predictions are not known.
    """
    label = _clean_label(votes)
    # Counts may lack the highest classes, which no copy got.
    inside = np.minimum(label, votes.counts.shape[1] - 1)
    own = np.take_along_axis(votes.counts, inside[:, None], axis=1)[:, 0]
    # A class that no copy got may lie beyond the columns.
    return np.asarray(np.where(label == inside, own, 0) / votes.draws)


def flips(ladder: Sequence[Votes]) -> Int[np.ndarray, " N"]:
    """Counts the rungs of a ladder at which most copies have another label than the image itself.

    The statistic of BBCaL-like defences under rising noise: both few and many are suspicious.

    Args:
        ladder: votes of the same images at several levels, such as `sweep.votes`.

    Raises:
        ValueError: the ladder is empty or of different images, or the clean predictions are not
            known.
    """
    return np.asarray(_flipped(ladder).sum(axis=0))


def breaking_severity(ladder: Sequence[Votes]) -> Int[np.ndarray, " N"]:
    """Returns the first rung, from 1, at which most copies have another label than the image.

    One more than there are rungs where none has. TeCo (Liu et al. 2023) takes the standard
    deviation over corruptions; a high one is suspicious.

    Args:
        ladder: votes of the same images at rising levels.

    Raises:
        ValueError: as `flips`.
    """
    flipped = _flipped(ladder)
    # A last rung at which all have flipped: argmax finds the first one.
    with_end = np.concatenate([flipped, np.ones_like(flipped[:1])])
    return np.asarray(with_end.argmax(axis=0) + 1)


def mean_entropy(votes: Votes) -> Float[np.ndarray, " N"]:
    """Computes the mean entropy of the class probabilities of the copies, `(N,)` nats.

    The statistic of STRIP (Gao et al. 2019) under `Superpose`, where a low one is suspicious.

    Raises:
        ValueError: the votes were measured without `scores`.
    """
    return np.asarray(_sums(votes).entropies / votes.draws)


def retained_confidence(votes: Votes) -> Float[np.ndarray, " N"]:
    """Computes the mean probability of the clean prediction over the copies, `(N,)`.

    A high one is suspicious, as in IBD-PSC (Hou et al. 2024). PSBD (Li et al. 2025) subtracts it
    from `clean_confidence`.

    Raises:
        ValueError: as `mean_entropy`.
    """
    sums = _sums(votes)
    return _of_label(sums.probabilities, sums) / votes.draws


def clean_confidence(votes: Votes) -> Float[np.ndarray, " N"]:
    """Returns the probability of the clean prediction without a perturbation, `(N,)`.

    Raises:
        ValueError: as `mean_entropy`.
    """
    sums = _sums(votes)
    return _of_label(_clean(sums), sums)


def output_variance(votes: Votes) -> Float[np.ndarray, " N"]:
    """Computes the variance of the class probabilities over the copies, summed over the classes.

    At small noise it is sigma^2 times the squared Frobenius norm of the Jacobian (Novak et al.
    2018).

    Raises:
        ValueError: as `mean_entropy`.
    """
    sums = _sums(votes)
    mean = sums.probabilities / votes.draws
    return np.asarray(np.maximum(sums.squares / votes.draws - mean**2, 0).sum(axis=1))


def _flipped(ladder: Sequence[Votes]) -> Bool[np.ndarray, "L N"]:
    if not ladder or any(not np.array_equal(ladder[0].keys, votes.keys) for votes in ladder):
        raise ValueError("expected votes of the same images at each level, at least at one")
    return np.stack([votes.label != _clean_label(votes) for votes in ladder])


def _clean_label(votes: Votes) -> Int[np.ndarray, " N"]:
    if votes.clean_label is None:
        raise ValueError(
            "expected votes with the clean predictions, got none; measure with keep_clean=True"
        )
    return votes.clean_label


def _sums(votes: Votes) -> ScoreSums:
    if votes.scores is None:
        raise ValueError(
            "expected votes with sums of scores, got votes of labels alone; measure with "
            "scores='logits' or scores='probabilities'"
        )
    return votes.scores


def _clean(sums: ScoreSums) -> Float[np.ndarray, "N K"]:
    assert sums.clean is not None  # sums of whole measurements have it
    return sums.clean


def _of_label(values: Float[np.ndarray, "N K"], sums: ScoreSums) -> Float[np.ndarray, " N"]:
    label = _clean(sums).argmax(axis=1)
    return np.asarray(np.take_along_axis(values, label[:, None], axis=1)[:, 0])
