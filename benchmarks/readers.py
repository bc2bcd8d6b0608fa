"""Every reader of files, with a few valid files for each.

The files are made at run time; benchmarks/fuzz_readers.py damages them.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from damages import Reader, Sample, with_png_checksums
from PIL import Image
from safetensors.torch import load, save, save_file

import wobbliness
from wobbliness.attacks.patch import trigger_from_png
from wobbliness.detectors.guards.files.guard_files import ARRAYS_FILE, SETTINGS_FILE, _digest
from wobbliness.images import read_images
from wobbliness.runtime.files import checksum, sealed
from wobbliness.study.cells.cleanse import load_candidates
from wobbliness.study.cells.universal import load_universal
from wobbliness.study.plan import FORMS, plan
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.failures import Failure, read_failure, write_failure
from wobbliness.study.records.record import Record, read_recipe, read_record, write_record
from wobbliness.study.running.ownership import take_ownership
from wobbliness.study.specs import MeasureSpec
from wobbliness.study.training.checkpoints import Checkpoint, _checksum
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.saved_networks import load_network

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from model_files import linear_model, save_exported, save_vit
from picture_files import COLOUR, GREY, png, save_with_features, table
from small_study import small

FACTORY = "readers:make_module"
IDENTITY = {"torch": "2", "spec": {"seed": 0}}
CELLS = {cell.kind: cell for cell in plan(small())}
MEASURED = CELLS["measure"].name


def make_module() -> torch.nn.Module:
    """What the weights of the reader `safetensors weights` belong to."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def _only(folder: Path) -> Path:
    return next(folder.iterdir())


def _with_checksums_of_pngs(sample: Sample) -> Sample:
    return {name: with_png_checksums(content) for name, content in sample.items()}


def _make_npy(folder: Path, number: int) -> None:
    np.save(folder / "x.npy", (GREY[None], _random(2, 1, 4, 4))[number])


def _make_npz(folder: Path, number: int) -> None:
    (np.savez, np.savez_compressed)[number](
        folder / "x.npz", images=GREY[None], labels=np.zeros(1, np.int64)
    )


def _make_png(folder: Path, number: int) -> None:
    content = (
        png(GREY),
        png(COLOUR),
        png(COLOUR, "P"),
        png(Image.fromarray(COLOUR).convert("RGBA")),
    )[number]
    (folder / "x.png").write_bytes(content)


def _make_picture(form: str) -> Callable[[Path, int], object]:
    return lambda folder, number: Image.fromarray((COLOUR, GREY)[number]).save(folder / f"x.{form}")


def _make_table(folder: Path, number: int) -> None:
    cells = [{"bytes": png(COLOUR), "path": f"{row}.png"} for row in range(3)]
    if number:
        save_with_features(folder / "x.parquet", cells, label=[0, 1, 0])
    else:
        table(folder / "x.parquet", [png(GREY)] * 3, label=["a", "b", "a"])


def _make_onnx(folder: Path, number: int) -> None:
    if number == 0:
        linear_model(folder / "x.onnx", _random(64, 3))
        return
    helper, weights = onnx.helper, _random(2, 1, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("x", [None, 1, 8, 8]), ("y", [None, 2]))
    ]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [onnx.numpy_helper.from_array(weights, "w")]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "x.onnx",
    )


def _make_exported(folder: Path, number: int) -> None:
    parts = [torch.nn.Flatten(), torch.nn.Linear(64, 3)]
    if number:
        parts = [
            torch.nn.Conv2d(1, 2, 3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(72, 3),
        ]
    save_exported(torch.nn.Sequential(*parts).eval(), folder / "x.pt2", torch.rand(2, 1, 8, 8))


def _make_network(folder: Path, number: int) -> None:
    network = build_network(("small_cnn", "resnet18_width16")[number], (1, 8, 8), 3, seed=0)
    header = {
        "architecture": ("small_cnn", "resnet18_width16")[number],
        "image_shape": "[1, 8, 8]",
        "num_classes": "3",
    }
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "x.safetensors", header)


def _make_guard(folder: Path, number: int) -> None:
    guard = wobbliness.SmoothnessGuard(
        _brightness, sigmas=(0.1, 0.3)[: 2 - number], draws=10, false_positive_rate=0.1
    )
    wobbliness.save_guard(guard.fit(_random(60, 1, 4, 4)), folder)


def _brightness(images: Any) -> Any:
    return (np.asarray(images).mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def _repaired_guard(sample: Sample) -> Sample:
    return sample | {
        SETTINGS_FILE: _with_values(sample[SETTINGS_FILE], arrays=_digest(sample[ARRAYS_FILE]))
    }


def _with_values(content: bytes, **values: Any) -> bytes:
    try:
        return json.dumps(json.loads(content) | values).encode()
    except (ValueError, TypeError, RecursionError):  # no object any more
        return content


def _resealed(content: bytes) -> bytes:
    try:
        return json.dumps(sealed(json.loads(content))).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return content


def _repaired_record(sample: Sample) -> Sample:
    files = {"table": checksum(sample[f"{MEASURED}.parquet"]), "weights": None}
    return sample | {
        f"{MEASURED}.json": _resealed(_with_values(sample[f"{MEASURED}.json"], files=files))
    }


def _resealed_all(sample: Sample) -> Sample:
    return {
        name: _resealed(content) if name.endswith(".json") else content
        for name, content in sample.items()
    }


def _trained() -> tuple[dict[str, Any], pd.DataFrame]:
    return {
        "losses": [0.5],
        "num_poisoned": 0,
        "clean_accuracy": 0.9,
        "backdoor_accuracy": None,
    }, pd.DataFrame()


def _measured(spec: MeasureSpec, number: int) -> tuple[dict[str, Any], pd.DataFrame]:
    rows = [
        {
            "point": point,
            "label": 0,
            "sigma": sigma,
            "draws": draws,
            "top_score": 0.5,
            "candidate": -1,
        }
        | {"votes_0": draws - number, "votes_1": number}
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


def _write_records(folder: Path, number: int, kinds: tuple[str, ...]) -> None:
    for cell in (CELLS[kind] for kind in kinds):
        results, rows = (
            _measured(cell.spec, number) if isinstance(cell.spec, MeasureSpec) else _trained()
        )
        record = Record(
            spec=cell.spec, results=results, provenance={"duration_seconds": 1.0}, table=rows
        )
        write_record(folder, cell, record, recipe=small(), weights="0" * 64 if number else None)


def _make_study(folder: Path, number: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        take_ownership(Path(made) / "study", small(number))
        shutil.copy(Path(made) / "study" / "study.json", folder)


def _make_packed(folder: Path, number: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        take_ownership(Path(made) / "study", small(number))
        _write_records(
            Path(made) / "study" / "records",
            number,
            ("train", "measure") if number == 0 else ("measure",),
        )
        pack_study(Path(made) / "study", folder)


def _unpack(folder: Path) -> None:
    out = folder.parent / "unpacked"
    unpack_study(folder, out)
    shutil.rmtree(out)


def _make_failure(folder: Path, number: int) -> None:
    write_failure(
        folder, Failure(cell="train-0", message=f"RuntimeError: {number}", details="", attempt="0")
    )


def _make_checkpoint(folder: Path, number: int) -> None:
    tensors = {"weights": torch.ones(4, 3), "order": torch.zeros(16, dtype=torch.uint8)}
    facts = json.dumps({"epoch": number, "identity": IDENTITY, "seconds": 3.5})
    (folder / "x.safetensors").write_bytes(
        save(tensors, {"facts": facts, "checksum": _checksum(tensors, facts)})
    )


def _repaired_checkpoint(sample: Sample) -> Sample:
    content = sample["x.safetensors"]
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"]["checksum"] = _checksum(
            load(content), header["__metadata__"]["facts"]
        )
    except Exception:  # damaged beyond repair
        return sample
    text = json.dumps(header).encode()
    return {"x.safetensors": len(text).to_bytes(8, "little") + text + content[8 + length :]}


def _read_checkpoint(folder: Path) -> None:
    notices: list[str] = []
    if Checkpoint(_only(folder), IDENTITY, notices.append).load() is None:
        raise ValueError(notices[0])


def _read_failure(folder: Path) -> None:
    if read_failure(folder, "train-0") is None:
        raise ValueError("expected a failure, got none that can be read")


def _make_universal(folder: Path, number: int) -> None:
    facts = {
        "norm": 2.0,
        "bound": 1.5,
        "num_fooled": 8,
        "num_images": 10,
        "num_passes": 2,
        "reached": True,
    }
    facts |= {"target_class": (None, 1)[number]}
    save_file(
        {"values": torch.from_numpy(_random(1, 4, 4))},
        folder / "x.safetensors",
        {"facts": json.dumps(facts)},
    )


def _make_candidates(folder: Path, number: int) -> None:
    arrays = {
        f"{FORMS[0]}.{k}.{part}": torch.from_numpy(_random(*shape))
        for k in range(number + 1)
        for part, shape in CANDIDATE.items()
    }
    save_file(arrays, folder / "x.safetensors", {"num_classes": "2"})


CANDIDATE = {"mask": (4, 4), "pattern": (1, 4, 4)}
READERS = {
    "npy": Reader(make=_make_npy, read=lambda folder: read_images(_only(folder))),
    "npz": Reader(make=_make_npz, read=lambda folder: read_images(_only(folder))),
    "png": Reader(
        make=_make_png,
        read=lambda folder: read_images(_only(folder)),
        num_samples=4,
        repaired=_with_checksums_of_pngs,
    ),
    "jpeg": Reader(make=_make_picture("jpg"), read=lambda folder: read_images(_only(folder))),
    "webp": Reader(make=_make_picture("webp"), read=lambda folder: read_images(_only(folder))),
    "parquet table": Reader(make=_make_table, read=lambda folder: read_images(_only(folder))),
    "trigger png": Reader(
        make=_make_png,
        read=lambda folder: trigger_from_png(_only(folder)),
        num_samples=4,
        repaired=_with_checksums_of_pngs,
    ),
    "onnx": Reader(make=_make_onnx, read=lambda folder: wobbliness.open_classifier(_only(folder))),
    "exported program": Reader(
        make=_make_exported, read=lambda folder: wobbliness.open_classifier(_only(folder))
    ),
    "safetensors weights": Reader(
        make=lambda folder, _: save_file(make_module().state_dict(), folder / "x.safetensors"),
        read=lambda folder: wobbliness.open_classifier(_only(folder), factory=FACTORY),
        num_samples=1,
    ),
    "hub folder": Reader(
        make=lambda folder, _: save_vit(folder), read=wobbliness.open_classifier, num_samples=1
    ),
    "study network": Reader(make=_make_network, read=lambda folder: load_network(_only(folder))),
    "guard": Reader(
        make=_make_guard,
        read=lambda folder: wobbliness.load_guard(folder, _brightness),
        repaired=_repaired_guard,
    ),
    "record": Reader(
        make=lambda folder, number: _write_records(folder, number, ("measure",)),
        read=lambda folder: read_record(folder, MEASURED),
        repaired=_repaired_record,
    ),
    "study file": Reader(
        make=_make_study, read=lambda folder: plan(read_recipe(folder)), repaired=_resealed_all
    ),
    "packed study": Reader(make=_make_packed, read=_unpack, repaired=_resealed_all),
    "failure": Reader(make=_make_failure, read=_read_failure, repaired=_resealed_all),
    "checkpoint": Reader(
        make=_make_checkpoint, read=_read_checkpoint, repaired=_repaired_checkpoint
    ),
    "universal perturbation": Reader(
        make=_make_universal, read=lambda folder: load_universal(_only(folder))
    ),
    "candidates": Reader(
        make=_make_candidates, read=lambda folder: load_candidates(_only(folder), FORMS[0])
    ),
}
