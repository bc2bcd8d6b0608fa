"""Response of a network to images of noise alone (Erichson et al., SDM 2021, arXiv 2008.00123)."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.study.cells.base import Context, Outcome, trained_network
from wobbliness.study.specs import ResponseSpec
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import logits_of

MIN_CONFIDENT_SCORE = 0.95  # top softmax score of a confident answer to noise alone


def run(spec: ResponseSpec, context: Context) -> Outcome:
    """Shows the network images of noise alone."""
    network, data = trained_network(context, spec.network), load_data(spec.network.dataset)
    return Outcome(results={}, table=_response(network, data.test.images.shape[1:], spec))


def _response(network: nn.Module, image_shape: tuple[int, ...], spec: ResponseSpec) -> pd.DataFrame:
    """Computes one row per noise level.

    Share of confident answers, mean top softmax score, entropy of the predicted classes in nats.
    The share of confident answers over the level is Erichson et al.'s titration curve.
    """
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed))
    # the same noise, scaled, at every level: levels differ by nothing else
    noise = rng.standard_normal((spec.num_images, *image_shape), dtype=np.float32)
    rows = []
    for level in spec.levels:
        scores = torch.softmax(logits_of(network, noise * np.float32(level)), dim=1).numpy()
        votes = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
        top = scores.max(axis=1)
        rows.append(
            {
                "level": level,
                "confident_share": float((top >= MIN_CONFIDENT_SCORE).mean()),
                "mean_top_score": float(top.mean()),
                "entropy_of_classes": float(plug_in_entropy(votes[None])[0]),
            }
        )
    return pd.DataFrame(rows)
