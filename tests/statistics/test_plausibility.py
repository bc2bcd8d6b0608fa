"""Warnings of implausible predictions on clean images; poor models get none."""

import json

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper
from scipy import stats

from wobbliness.statistics.plausibility import implausible_answers


def answers(num_right, num_images, num_classes):
    """Returns labels and predictions, `num_right` of them right, the wrong ones spread evenly."""
    given = np.arange(num_images) % num_classes
    predicted = (given + 1 + np.arange(num_images) // num_classes % (num_classes - 1)) % num_classes
    predicted[:num_right] = given[:num_right]
    return predicted, given


@pytest.mark.parametrize("num_images", [24, 40, 100, 1000, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.07, 0.1, 0.2, 0.38])
def test_a_wrong_range_is_warned_of(num_images, share):
    predicted, given = answers(int(share * num_images), num_images, 10)
    assert len(implausible_answers(predicted, given, 10)) == 1


@pytest.mark.parametrize("num_images", [1, 2, 10, 24, 40, 100, 1000, 10_000])
@pytest.mark.parametrize(
    ("share", "num_classes"), [(0.6, 10), (0.6, 100), (0.7, 2), (0.9, 10), (1.0, 10), (0.97, 2)]
)
def test_poor_networks_are_not_accused(num_images, share, num_classes):
    predicted, given = answers(round(share * num_images), num_images, num_classes)
    assert implausible_answers(predicted, given, num_classes) == []


@pytest.mark.parametrize(("accuracy", "num_classes"), [(0.6, 10), (0.6, 100), (0.7, 2)])
def test_false_alarms_by_chance_are_rare(accuracy, num_classes):
    """Exact, from the binomial distribution of right answers: at most 4 % at any sample size."""
    for num_images in (5, 10, 20, 30, 50, 100, 300, 1000):
        numbers = np.arange(num_images + 1)
        warned = [
            bool(implausible_answers(*answers(number, num_images, num_classes), num_classes))
            for number in numbers
        ]
        assert stats.binom.pmf(numbers, num_images, accuracy)[warned].sum() < 0.04, num_images


@pytest.mark.parametrize(("accuracy", "num_classes"), [(0.4, 100), (0.35, 200), (0.3, 1000)])
def test_many_classes_are_harder(accuracy, num_classes):
    right = implausible_answers(*answers(int(accuracy * 1000), 1000, num_classes), num_classes)
    chance = implausible_answers(*answers(1000 // num_classes, 1000, num_classes), num_classes)
    assert (len(right), len(chance)) == (0, 1)


def test_one_class_for_all():
    given, same = np.arange(40) % 4, np.zeros(40, np.int64)
    assert len(implausible_answers(same, None, 4)) == 1
    assert "unless all are of that class" in implausible_answers(same, None, 4)[0]
    assert len(implausible_answers(same, given, 4)) == 2, (
        "that all get one class, and a poor accuracy"
    )
    assert implausible_answers(same, same, 4) == [], "and they are of that class"
    assert implausible_answers(same[:19], None, 4) == [], "too few to tell"
    assert implausible_answers(same, None, 2) == [], (
        "of two classes, one may be that of all clean images"
    )
    nearly = same.copy()
    nearly[:3] = 1
    assert implausible_answers(nearly, None, 4) == []
    nearly[0] = 0
    assert len(implausible_answers(nearly, None, 4)) == 1


def threshold_model(path, scale):
    """Class 0, 1 or 2 by the first pixel in steps of a third, for pixels up to `scale`."""
    weights = np.array([[0.0, 1.0, 2.0]], np.float32) / scale
    bias = np.array([0.0, -1 / 3, -1.0], np.float32)
    first = np.zeros((64, 1), np.float32)
    first[0] = 1
    names = {"first": first, "weights": weights, "bias": bias}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "first"], ["pixel"]),
            helper.make_node("MatMul", ["pixel", "weights"], ["sloped"]),
            helper.make_node("Add", ["sloped", "bias"], ["scores"]),
        ],
        "threshold",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())
            for name, value in names.items()
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).random((120, 1, 8, 8), np.float32)
    labels = np.floor(images[:, 0, 0, 0] * 3).astype(np.int64)
    np.savez("clean.npz", images=images, labels=labels)
    np.save("unlabelled.npy", images)
    threshold_model("right.onnx", 1)
    threshold_model("wrong.onnx", 255)
    return tmp_path


COMMANDS = {
    "measure": ("measure", "{model}", "{clean}", "--sigma", "0.1", "--draws", "5"),
    "test": (
        "test",
        "{model}",
        "--clean",
        "{clean}",
        "--suspect",
        "unlabelled.npy",
        "--sigma",
        "0.1",
        "--draws",
        "5",
    ),
    "scan": ("scan", "{model}", "{clean}", "--trigger", "dot", "--sigma", "0.1", "--draws", "5"),
    "fit": (
        "guard",
        "fit",
        "{model}",
        "{clean}",
        "--out",
        "guard",
        "--sigma",
        "0.1",
        "--draws",
        "5",
    ),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("clean", ["clean.npz", "unlabelled.npy"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_first(monkeypatch, capsys, command, clean):
    if (command, clean) == ("fit", "unlabelled.npy"):
        pytest.skip("one class for all that is equally smooth is refused for that")
    arguments = [part.format(model="wrong.onnx", clean=clean) for part in COMMANDS[command]]
    code, out, err = run(monkeypatch, capsys, *arguments)
    first = out.splitlines()[:1] if command != "fit" or code == 0 else [out.strip().splitlines()[0]]
    assert first[0].startswith("warning: without noise the model gives ")
    assert all(option in first[0] for option in ("--input-range", "--mean", "--std", "--layout"))
    code, out, err = run(monkeypatch, capsys, *arguments, "--json")
    assert err.startswith("warning: without noise ")
    if code == 0:
        assert [f"warning: {line}" for line in json.loads(out)["warnings"]] == err.splitlines()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("clean", ["clean.npz", "unlabelled.npy"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_warns_of_the_right_model(monkeypatch, capsys, command, clean):
    arguments = [part.format(model="right.onnx", clean=clean) for part in COMMANDS[command]]
    code, out, err = run(monkeypatch, capsys, *arguments, "--json")
    assert (code, err, json.loads(out)["warnings"]) == (0, "", [])


def test_pages_and_judgements_say_it(monkeypatch, capsys, folder):
    run(
        monkeypatch,
        capsys,
        *[part.format(model="wrong.onnx", clean="clean.npz") for part in COMMANDS["test"]],
        "--report",
        "page.html",
    )
    assert "<strong>Warning:</strong> without noise" in (folder / "page.html").read_text()
    run(
        monkeypatch,
        capsys,
        *[part.format(model="wrong.onnx", clean="clean.npz") for part in COMMANDS["scan"]],
        "--out",
        "scan",
    )
    assert (
        "<strong>Warning:</strong> without noise" in (folder / "scan" / "report.html").read_text()
    )
    run(
        monkeypatch,
        capsys,
        *[part.format(model="right.onnx", clean="clean.npz") for part in COMMANDS["test"]],
        "--report",
        "page.html",
    )
    assert "<strong>Warning:</strong>" not in (folder / "page.html").read_text()
    run(
        monkeypatch,
        capsys,
        *[part.format(model="right.onnx", clean="clean.npz") for part in COMMANDS["fit"]],
    )
    code, out, _ = run(monkeypatch, capsys, "guard", "judge", "guard", "wrong.onnx", "clean.npz")
    assert (code, out.startswith("warning: without noise")) == (0, True)
    code, out, _ = run(
        monkeypatch, capsys, "guard", "judge", "guard", "wrong.onnx", "unlabelled.npy"
    )
    assert (code, "without noise" in out) == (0, False), (
        "inputs in question may all be of one class"
    )
