"""Trains a network, clean or poisoned."""

import json

import pandas as pd

from wobbliness.study.cells.base import Context, Outcome, spec_file
from wobbliness.study.identity import written
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import save_network
from wobbliness.study.training.train import train_network


def run(spec: NetworkSpec, context: Context) -> Outcome:
    """Trains the network and writes its weights."""
    data = load_data(spec.dataset)
    trained = train_network(
        spec,
        data,
        device=context.place.torch_device,
        progress=context.progress,
        checkpoint=context.checkpoint,
    )
    header = {
        "architecture": spec.architecture,
        "image_shape": json.dumps(data.train.images.shape[1:]),
        "num_classes": str(data.train.num_classes),
        "spec": json.dumps(written(spec), sort_keys=True),
    }
    # weights first, the record afterwards: a record without its weights would count as done
    save_network(trained.network, spec_file(context.out, spec), header)
    results = {
        "num_classes": data.train.num_classes,
        "clean_accuracy": trained.clean_accuracy,
        "backdoor_accuracy": trained.backdoor_accuracy,
        "num_poisoned": len(trained.poisoned_indices),
        "losses": trained.losses.tolist(),
        "precision": trained.precision,
    }
    return Outcome(
        results=results, table=pd.DataFrame({"poisoned_index": trained.poisoned_indices})
    )
