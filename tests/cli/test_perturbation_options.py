"""`--perturbation` and the list of perturbations on the command line."""

import json
import sys

import numpy as np
import pytest
from model_files import linear_model

import wobbliness
from wobbliness.cli import main as cli
from wobbliness.perturbations import BoxMix, Scale
from wobbliness.perturbations.find import perturbation_kinds, training_kinds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A linear graph, images and overlays; the working folder."""
    rng = np.random.default_rng(0)
    linear_model(tmp_path / "model.onnx", rng.normal(size=(64, 4)))
    for name, number in (("images", 5), ("clean", 9)):
        np.save(tmp_path / f"{name}.npy", rng.random((number, 1, 8, 8), dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0, *capsys.readouterr()


def test_a_measurement_under_several_is_the_librarys(folder, monkeypatch, capsys):
    code, out, err = run(
        monkeypatch,
        capsys,
        *("measure", "model.onnx", "images.npy", "--sigma", 0.1, "--draws", 30, "--json"),
        *("--perturbation", "scale:3,5,7", "--perturbation", "box-mix:clean.npy,0.3,0.6"),
    )
    assert (code, err) == (0, "")
    overlays, images = (np.load(folder / f"{name}.npy") for name in ("clean", "images"))
    made = [0.1, Scale(3, 5, 7), BoxMix(overlays, 0.3, 0.6)]
    expected = wobbliness.sweep("model.onnx", images, made, 30)
    found = json.loads(out)["measurements"]
    assert [row["perturbation"] for row in found] == [v.perturbation for v in expected.votes]
    assert [row["draws"] for row in found] == [30, 3, 30]
    for row, votes in zip(found, expected.votes, strict=True):
        assert row["counts"] == votes.counts.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain:3", "expected a perturbation out of affine"),
        ("uniform:-1", "expected a standard deviation of at least 0, got -1"),
        ("superpose:none.npy", "none.npy"),
        ("label-flip:0.1", "measure it by wobbliness.sampling.trainings.measure_trainings"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_one_gets_one_line(monkeypatch, capsys, text, message):
    code, out, err = run(
        monkeypatch, capsys, "measure", "model.onnx", "images.npy", "--perturbation", text
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_the_list_names_every_family_with_its_settings(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "perturbations")
    assert code == 0
    assert "box-mix:OVERLAYS,smallest=0.36,largest=0.82" in out.splitlines()
    assert "scale:FACTOR,..." in out.splitlines()
    code, out, _ = run(monkeypatch, capsys, "perturbations", "--json")
    rows = json.loads(out)
    kinds = {*perturbation_kinds(), *training_kinds()} - {"custom"}
    assert {row["kind"] for row in rows} == kinds
    (flips,) = (row for row in rows if row["kind"] == "label-flip")
    assert flips["usage"] == "LabelFlip(SHARE)"
    assert "Rosenfeld" in flips["source"]
    assert all(row["summary"].endswith(".") for row in rows)
