"""A training that is stopped anywhere and gone on with ends in the same bits."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from wobbliness.study.records.integrity import remove_stale_checkpoints
from wobbliness.study.specs import NetworkSpec, SmoothAdv
from wobbliness.study.training import checkpoints
from wobbliness.study.training.checkpoints import Checkpoint, _checksum
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.train import train_network

SPEC = NetworkSpec(
    dataset="digits",
    architecture="small_cnn",
    epochs=3,
    batch_size=32,
    learning_rate=3e-3,
    threat=None,
    trigger=None,
    seed=0,
)
IDENTITY = {"spec": dataclasses.asdict(SPEC), "torch": torch.__version__}
STEPS_PER_EPOCH = 4


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def few(digits):
    train = Split(
        images=digits.train.images[:120], labels=digits.train.labels[:120], num_classes=10
    )
    test = Split(images=digits.test.images[:50], labels=digits.test.labels[:50], num_classes=10)
    return ImageData(name=digits.name, train=train, test=test)


def stop_after(num_steps):
    """Stops as a kill does while a step is under way: before the state after it is saved."""

    def progress(done, _total):
        if done == num_steps:
            raise Stopped

    return progress


def train_with_stops(data, path, stops, spec=SPEC):
    for num_steps in stops:
        with pytest.raises(Stopped):
            train_network(
                spec,
                data,
                progress=stop_after(num_steps),
                checkpoint=Checkpoint(path, IDENTITY, pytest.fail),
            )
        assert path.exists()
    begun = []
    checkpoint = Checkpoint(path, IDENTITY, pytest.fail)
    trained = train_network(
        spec, data, progress=lambda done, _: begun.append(done), checkpoint=checkpoint
    )
    return trained, begun[0], checkpoint


@pytest.mark.parametrize("architecture", ["small_cnn", "large_cnn", "resnet18_width16"])
@pytest.mark.parametrize("stops", [(2,), (STEPS_PER_EPOCH + 1,), (3, 7, 12)])
def test_a_training_gone_on_with_is_equal_to_the_bit(few, tmp_path, architecture, stops):
    spec = dataclasses.replace(SPEC, architecture=architecture)
    whole = train_network(spec, few)
    resumed, begun, checkpoint = train_with_stops(few, tmp_path / "a.safetensors", stops, spec)
    assert begun == stops[-1] - 1, "it went on and did not begin anew"
    assert resumed.losses.tolist() == whole.losses.tolist()
    assert (resumed.clean_accuracy, resumed.precision) == (whole.clean_accuracy, whole.precision)
    weights, others = resumed.network.state_dict(), whole.network.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert checkpoint.seconds_before > 0
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("architecture", ["small_cnn", "resnet18_width16"])
def test_a_smoothed_training_gone_on_with_is_equal_to_the_bit(few, tmp_path, architecture):
    """Noise and bound are those of the step and the epoch, wherever the training was stopped."""
    smoothing = SmoothAdv(sigma=0.2, epsilon=0.5, copies=2, warm_up_epochs=3)
    spec = dataclasses.replace(SPEC, architecture=architecture, smoothing=smoothing)
    whole = train_network(spec, few)
    resumed, begun, _ = train_with_stops(few, tmp_path / "a.safetensors", (3, 6), spec)
    assert begun == 5
    weights, others = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in others)
    plain = train_network(dataclasses.replace(spec, smoothing=None), few).losses
    assert plain.tolist() != whole.losses.tolist(), "control"


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "emptied": lambda path: path.write_bytes(b""),
    "one bit flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-5] + bytes([path.read_bytes()[-5] ^ 4]) + path.read_bytes()[-4:]
    ),
    "a pickle": lambda path: torch.save({"weights": torch.zeros(1)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used_and_says_so(few, tmp_path, damage):
    path, notices, begun = tmp_path / "a.safetensors", [], []
    with pytest.raises(Stopped):
        train_network(
            SPEC, few, progress=stop_after(6), checkpoint=Checkpoint(path, IDENTITY, pytest.fail)
        )
    DAMAGES[damage](path)
    checkpoint = Checkpoint(path, IDENTITY, notices.append)
    trained = train_network(
        SPEC, few, progress=lambda done, _: begun.append(done), checkpoint=checkpoint
    )
    assert begun[0] == 0
    assert [line.split(":")[0] for line in notices] == [
        "checkpoints/a.safetensors is not used, the training begins anew"
    ]
    assert "\n" not in notices[0]
    assert trained.losses.tolist() == train_network(SPEC, few).losses.tolist()


def test_a_checkpoint_of_other_libraries_is_not_used(few, tmp_path):
    path, notices = tmp_path / "a.safetensors", []
    with pytest.raises(Stopped):
        train_network(
            SPEC, few, progress=stop_after(6), checkpoint=Checkpoint(path, IDENTITY, pytest.fail)
        )
    assert Checkpoint(path, IDENTITY | {"torch": "1.0"}, notices.append).load() is None
    assert "other libraries" in notices[0]
    assert Checkpoint(path, IDENTITY, pytest.fail).load() is not None


def test_checkpoints_are_rare(few, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 30.0)
    train_network(
        SPEC, few, checkpoint=Checkpoint(tmp_path / "a.safetensors", IDENTITY, pytest.fail)
    )
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_a_recorded_training_is_removed(tmp_path):
    for folder, name in (
        ("checkpoints", "a.safetensors"),
        ("checkpoints", "b.safetensors"),
        ("records", "a.json"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(np.zeros(1).tobytes())
    remove_stale_checkpoints(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["b.safetensors"]


@pytest.mark.parametrize(
    "facts",
    ["[]", "null", "{}", "[" * 10_000, json.dumps({"identity": IDENTITY, "seconds": 10**400})],
)
def test_facts_that_are_none_are_not_used(tmp_path, facts):
    path, notices, tensors = tmp_path / "a.safetensors", [], {"weights": torch.zeros(1)}
    path.write_bytes(save(tensors, {"facts": facts, "checksum": _checksum(tensors, facts)}))
    assert Checkpoint(path, IDENTITY, notices.append).load() is None
    assert [line.split(":")[0] for line in notices] == [
        "checkpoints/a.safetensors is not used, the training begins anew"
    ]
