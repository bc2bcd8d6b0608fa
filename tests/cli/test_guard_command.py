"""`wobbliness guard` by default: the profile guard, for every kind of input that it can judge."""

import json
import shutil

import numpy as np
import pytest
import torch
from command_line import run
from model_files import save_onnx

import wobbliness
from wobbliness.perturbations import Columns

CALLABLES = """
import numpy as np


def first(inputs):
    return np.asarray(inputs).reshape(len(inputs), -1)[:, :3].argmax(axis=1)


def constant(inputs):
    return np.full(len(inputs), 2)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Classifiers of rows in [0, 1] and of rows of any values, and such rows."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    linear, norm = torch.nn.Linear(12, 3).eval(), torch.nn.BatchNorm1d(12).eval()
    with torch.no_grad():  # the largest of three columns, as `first`
        linear.weight.copy_(torch.eye(3, 12))
        linear.bias.zero_()
    norm.running_mean.fill_(43)
    save_onnx(linear, folder / "unit.onnx", torch.rand(2, 12))
    scaled = torch.nn.Sequential(norm, linear)
    save_onnx(scaled, folder / "any.onnx", torch.rand(2, 12))
    for name, number in (("clean", 120), ("few", 40), ("fewer", 30), ("inbox", 20)):
        rows = rng.random((number, 12), np.float32)
        np.save(folder / f"unit_{name}.npy", rows)
        np.save(folder / f"any_{name}.npy", 40 + 7 * rows)
        np.save(folder / f"flat_{name}.npy", rows.reshape(number, 1, 1, 12))
    (folder / "mine.py").write_text(CALLABLES)
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy of these files; the working folder."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(model, clean, *options):
    return ("guard", "fit", model, clean, "--out", "guard", "--draws", 12, *options)


def judge(model, inputs, *options):
    return ("guard", "judge", "guard", model, inputs, *options)


KINDS = {
    "rows": ("unit.onnx", "unit", ()),
    "pictures of one row": ("mine:first", "flat", ("--num-classes", 3)),
    "a callable of no stated number of classes": ("mine:first", "unit", ()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("folder")
def test_the_default_is_the_librarys_profile(monkeypatch, capsys, kind):
    model, inputs, options = KINDS[kind]
    code, out, err = run(
        monkeypatch, capsys, *fit(model, f"{inputs}_clean.npy", *options), "--json"
    )
    assert (code, err) == (0, "")
    num_classes = options[1] if options else None
    classifier = wobbliness.open_classifier(_first if "mine" in model else model)
    guard = wobbliness.ProfileGuard(classifier, draws=12, num_classes=num_classes)
    guard.fit(np.load(f"{inputs}_clean.npy"))
    assert json.loads(out)["perturbations"] == [made.name for made in guard.perturbations_]
    expected = guard.judge(np.load(f"{inputs}_inbox.npy"))
    code, out, _ = run(
        monkeypatch, capsys, *judge(model, f"{inputs}_inbox.npy", *options, "--json")
    )
    assert code == 0
    assert [row["pvalue"] for row in json.loads(out)["inputs"]] == expected.pvalue.tolist()


def _first(inputs):
    return np.asarray(inputs).reshape(len(inputs), -1)[:, :3].argmax(axis=1)


@pytest.mark.usefixtures("folder")
def test_rows_of_any_values_are_judged_by_columns(monkeypatch, capsys):
    columns = ("--perturbation", "columns:2")
    code, _, err = run(monkeypatch, capsys, *fit("any.onnx", "any_clean.npy", *columns))
    assert (code, err) == (0, "")
    guard = wobbliness.ProfileGuard("any.onnx", perturbations=[Columns(2)], draws=12)
    expected = guard.fit(np.load("any_clean.npy")).judge(np.load("any_inbox.npy"))
    code, out, err = run(monkeypatch, capsys, *judge("any.onnx", "any_inbox.npy", "--json"))
    assert (code, err) == (0, "")
    assert [row["pvalue"] for row in json.loads(out)["inputs"]] == expected.pvalue.tolist()
    code, out, err = run(monkeypatch, capsys, *fit("any.onnx", "any_clean.npy"))
    assert (code, out, err.count("\n")) == (2, "", 1), "control: by the default profile"
    assert "got values from 40" in err


UNSUITED = {
    "too few, enough for smoothness": (
        ("unit.onnx", "unit_few.npy"),
        "at least 46 clean inputs for a false-positive rate of 0.05, got 40 samples; with --guard "
        "smoothness 37 do",
    ),
    "one class alone": (
        ("mine:constant", "unit_clean.npy", "--num-classes", 3),
        "at least 2 predicted classes, got class 2 alone; with --guard smoothness 37 do",
    ),
    "too few for either": (("unit.onnx", "unit_fewer.npy"), "got 30 samples\n"),
    "scores, which smoothness does not read": (
        ("unit.onnx", "unit_few.npy", "--scores", "logits"),
        "got 40 samples\n",
    ),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_clean_inputs_that_do_not_do_get_one_line_with_the_number(
    monkeypatch, capsys, folder, name
):
    arguments, said = UNSUITED[name]
    code, out, err = run(monkeypatch, capsys, *fit(*arguments))
    assert (code, err.count("\n"), "warning" in out) == (2, 1, "alone" in said)
    assert said in err
    assert not (folder / "guard").exists()
    does = "--guard smoothness" in said
    code, *_ = run(monkeypatch, capsys, *fit(*arguments), "--guard", "smoothness")
    assert (code == 0) == does, "the line tells the truth"


@pytest.mark.usefixtures("folder")
def test_inputs_that_are_mixed_with_are_named(monkeypatch, capsys):
    assert run(monkeypatch, capsys, *fit("unit.onnx", "unit_clean.npy"))[0] == 0
    guard = wobbliness.load_guard("guard", wobbliness.open_classifier("unit.onnx"))
    mixed = guard.perturbations_[0].overlays.images[:2]
    np.save("both.npy", np.concatenate([np.load("unit_inbox.npy"), mixed]))
    code, out, err = run(monkeypatch, capsys, *judge("unit.onnx", "both.npy"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "got 20, 21 (2 of 22): leave them out" in err
    assert run(monkeypatch, capsys, *judge("unit.onnx", "unit_inbox.npy"))[0] == 0, "control"
