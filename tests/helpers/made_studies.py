"""Study folders with records that no one trained for: small, whole, and made in a moment."""

import json

import numpy as np
import pandas as pd

from wobbliness.runtime.files import sealed
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.record import Record, provenance, write_record
from wobbliness.study.running.ownership import take_ownership
from wobbliness.study.specs import MeasureSpec, NetworkSpec

CLEAN = NetworkSpec(
    dataset="digits",
    architecture="small_cnn",
    epochs=3,
    batch_size=32,
    learning_rate=1e-3,
    threat=None,
    trigger=None,
    seed=0,
)


def recipe(**fields):
    """One clean network and the two measurements of C1 and C2."""
    settings = {
        "draws_grid": (10, 250),
        "draws_sigmas": (0.1, 0.3),
        "parameter_sigmas": (0.1, 0.3),
        "sigmas": (0.1,),
    }
    return Recipe(
        **(
            {"name": "made", "seed": 0, "parameter_networks": (CLEAN,), "parameter_points": 4}
            | settings
            | fields
        )
    )


def make_study(out, **fields):
    """A folder of `recipe` in which every cell is recorded."""
    made = recipe(**fields)
    take_ownership(out, made)
    for cell in plan(made):
        results, table = _measured(cell.spec) if isinstance(cell.spec, MeasureSpec) else _trained()
        record = Record(spec=cell.spec, results=results, provenance=provenance(1.0, 1), table=table)
        write_record(out / "records", cell, record, recipe=made)
    return out


def edit_study_file(out, **fields):
    """Writes fields into a study's file with a valid checksum; a field of ... is left out."""
    path = out / "study.json"
    content = json.loads(path.read_text()) | fields
    path.write_text(
        json.dumps(sealed({name: value for name, value in content.items() if value is not ...}))
    )


def edit_record(out, kind, **fields):
    """Writes results into the first record of a kind, checksum and all."""
    path = min((out / "records").glob(f"{kind}-*.json"))
    content = json.loads(path.read_text())
    content["results"] |= fields
    path.write_text(json.dumps(sealed(content)))
    return path


def snapshot(*folders):
    """Every file below some folders, with its content and time; links as what they say."""
    return {
        str(path): path.readlink()
        if path.is_symlink()
        else (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def _trained():
    losses = {"losses": [2.0, 1.0, 0.5]}
    return losses | {
        "num_poisoned": 0,
        "clean_accuracy": 0.9,
        "backdoor_accuracy": None,
    }, pd.DataFrame()


def _measured(spec):
    rng = np.random.default_rng(0)
    rows = [
        {
            "point": point,
            "label": point % 3,
            "sigma": sigma,
            "draws": draws,
            "top_score": 0.5,
            "candidate": -1,
        }
        | {
            f"votes_{index}": count
            for index, count in enumerate(rng.multinomial(draws, [0.2, 0.3, 0.5]))
        }
        for draws in spec.draws
        for sigma in spec.sigmas
        for point in range(spec.num_points)
    ]
    accuracies = {
        "accuracy_on_attacker_labels": None,
        "accuracy_on_clean_labels": 0.9,
        "attacker_labels_by_class": None,
    }
    return accuracies, pd.DataFrame(rows)
