"""`--precision`: what the commands hand on, and what they say of it."""

import json

import low_precision as low
import numpy as np
import pytest
from command_line import run
from model_files import linear_model

from wobbliness.detectors.guards.files.guard_files import SETTINGS_FILE
from wobbliness.sampling.counting import low_precision
from wobbliness.sampling.counting.low_precision import CHECKED, FLOAT32, NO_DOT_PRODUCTS

WITHOUT = FLOAT32.format(NO_DOT_PRODUCTS)


@pytest.fixture
def folder(tmp_path, images):
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(tmp_path / "images.npy", images)
    return tmp_path


@pytest.fixture
def arguments(folder):
    return folder / "model.onnx", folder / "images.npy"


def test_measure_says_why_it_is_float32(monkeypatch, capsys, arguments):
    low.has_dot_products(monkeypatch, is_there=False)
    settings = ("--sigma", 0.1, "--draws", 20)
    code, out, _ = run(
        monkeypatch, capsys, "measure", *arguments, *settings, "--precision", "checked"
    )
    assert code == 0
    assert f"; precision {WITHOUT}" in out
    assert "changed votes" not in out
    # without the option nothing is said of it
    _, plain, _ = run(monkeypatch, capsys, "measure", *arguments, *settings)
    assert "precision" not in plain


def test_measure_says_what_the_audit_found(monkeypatch, capsys, arguments):
    low.allow_small_calls(monkeypatch)
    monkeypatch.setattr(low_precision, "MAX_COST", 9.0)
    settings = ("--sigma", 0.1, "--draws", 100, "--precision", "checked")
    monkeypatch.setattr("wobbliness.classifiers.compile.quantised.relative_cost", lambda _: 0.3)
    code, out, _ = run(monkeypatch, capsys, "measure", *arguments, *settings)
    assert code == 0
    assert CHECKED in out
    assert "changed votes at sigma 0.1: " in out
    assert "that were audited)" in out
    _, out, _ = run(monkeypatch, capsys, "measure", *arguments, *settings, "--json")
    (found,) = json.loads(out)["measurements"]
    assert found["executions"][0]["precision"] == CHECKED
    assert 0 < found["changed_votes"]["num_audited"] < found["changed_votes"]["num_low"]
    assert found["changed_votes"]["share"] <= found["changed_votes"]["upper_bound"]


def test_json_in_float32_has_no_new_fields(monkeypatch, capsys, arguments):
    _, out, _ = run(monkeypatch, capsys, "measure", *arguments, "--sigma", 0.1, "--json")
    (found,) = json.loads(out)["measurements"]
    assert "changed_votes" not in found
    assert "precision" not in found["executions"][0]


def test_a_cluster_is_float32_alone(monkeypatch, capsys, arguments):
    pytest.importorskip("ray")
    code, _, error = run(
        monkeypatch,
        capsys,
        "measure",
        *arguments,
        *("--sigma", 0.1, "--precision", "checked", "--engine", "ray"),
    )
    assert code == 2
    assert "expected float32 on Ray, got the precision checked" in error


def test_a_guard_keeps_the_precision_and_judging_may_choose_another(
    monkeypatch, capsys, arguments, folder
):
    low.has_dot_products(monkeypatch, is_there=False)
    model, images = arguments
    guard = folder / "guard"
    settings = ("--sigma", 0.1, "--draws", 20, "--false-positive-rate", 0.2)
    fit = ("guard", "fit", model, images, "--out", guard, *settings)
    assert run(monkeypatch, capsys, *fit, "--precision", "checked")[0] == 0
    assert json.loads((guard / SETTINGS_FILE).read_text())["precision"] == "checked"
    judge = ("guard", "judge", guard, model, images)
    _, out, _ = run(monkeypatch, capsys, *judge)
    assert f"precision {WITHOUT}" in out
    _, out, _ = run(monkeypatch, capsys, *judge, "--json")
    assert json.loads(out)["precision"] == WITHOUT
    _, out, _ = run(monkeypatch, capsys, *judge, "--precision", "float32")
    assert "precision" not in out


def test_the_test_of_a_batch_says_it(monkeypatch, capsys, arguments):
    low.has_dot_products(monkeypatch, is_there=False)
    model, images = arguments
    command = ("test", model, "--clean", images, "--suspect", images, "--sigma", 0.1)
    command = (*command, "--draws", 20)
    _, out, _ = run(monkeypatch, capsys, *command, "--precision", "checked")
    assert f"precision {WITHOUT}" in out
    _, out, _ = run(monkeypatch, capsys, *command, "--json")
    assert "precision" not in json.loads(out)
