"""Warnings of a guard about its clean inputs, on networks of the digits: each with its control."""

import json
import shutil

import numpy as np
import pytest
import torch
from command_line import run
from digits_networks import planted_and_clean
from guard_folders import change_settings
from model_files import linear_model, save_onnx

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.guards.files.guard_files import SETTINGS_FILE
from wobbliness.detectors.guards.fit_warnings import CleanVotes

TARGET = 1
FEW, MODES, MILD = "few clean inputs to compare with", "more than one mode", "under mild noise"


@pytest.fixture(scope="module")
def networks(trained):
    """A network with a planted checkerboard, and a clean one."""
    return [each.eval() for each in planted_and_clean(trained, t1(TARGET), "checkerboard")]


@pytest.fixture(scope="module")
def clean(digits):
    return digits.test.images[:400], digits.test.labels[:400]


def said(guard, text):
    return [line for line in guard.warnings_ if text in line]


def fitted(network, images, labels=None, draws=15):
    return wobbliness.ProfileGuard(network, draws=draws).fit(images, labels)


def test_nothing_is_said_of_clean_inputs_and_much_of_inverted_ones(networks, clean):
    images, labels = clean
    for network in networks:
        assert not said(fitted(network, images, labels), MODES)
        assert not said(fitted(network, images, labels), MILD)
        assert not said(fitted(network, images, labels), "without noise the model gives")
    inverted = fitted(networks[1], 1 - images, labels)
    assert said(inverted, "the class that they are labelled with")
    assert not said(fitted(networks[1], 1 - images), "labelled with"), "control: no labels"
    strings = fitted(networks[1], 1 - images, labels.astype(str))
    assert not said(strings, "labelled with"), "no classes of the model"


def test_contaminated_clean_inputs_have_two_modes(networks, clean):
    images, labels = clean
    rows = np.flatnonzero(labels != TARGET)[:140]
    contaminated = images.copy()
    contaminated[rows] = wobbliness.trigger("checkerboard").apply(images[rows])
    assert said(fitted(networks[0], contaminated, draws=25), MODES)
    assert not said(fitted(networks[1], contaminated, draws=25), MODES), "the trigger does nothing"
    assert not said(fitted(networks[0], images, draws=25), MODES)


@pytest.mark.parametrize("kind", ["ProfileGuard", "SmoothnessGuard"])
def test_too_little_contrast_is_said(networks, clean, kind):
    images = clean[0][:200]
    pale = (0.45 + 0.04 * images).astype(np.float32)
    # what makes up for it inside of the network makes the noise as much larger
    network = torch.nn.Sequential(Stretched(), networks[1]).eval()
    guards = [getattr(wobbliness, kind)(made, draws=15) for made in (network, networks[1])]
    assert said(guards[0].fit(pale), MILD)
    assert not said(guards[1].fit(images), MILD), "control"


class Stretched(torch.nn.Module):
    """Undoes the loss of contrast."""

    def forward(self, images):
        return (images - 0.45) / 0.04


def test_a_rare_class_is_named_with_its_number():
    label = np.repeat([0, 1, 2, 3], [30, 3, 0, 12])
    votes = {"num_classes": 5, "agreement": None, "kept": np.empty((0, 45))}
    (line,) = CleanVotes(label=label, num_reference=45, **votes).warnings()
    assert line == (
        "few clean inputs to compare with are predicted as class 1: 3; 10 of each class are advised"
    )
    (line,) = CleanVotes(label=label, num_reference=42, **votes).warnings()
    assert "class 1: 3, class 3: 9;" in line, "those that calibrate are compared with nothing"
    (line,) = CleanVotes(label=np.arange(45) % 9, num_reference=45, **votes).warnings()
    assert "and 4 more;" in line
    enough = np.repeat([0, 4], [30, 15])
    assert CleanVotes(label=enough, num_reference=45, **votes).warnings() == (), "control"


@pytest.mark.parametrize("kind", ["ProfileGuard", "SmoothnessGuard"])
def test_few_of_a_class_are_said_by_both_guards(networks, clean, kind):
    images, labels = clean
    settings = {"draws": 5, "false_positive_rate": 0.1}
    rare = np.r_[np.flatnonzero(labels != 4), np.flatnonzero(labels == 4)[:4]]
    few, enough = (
        said(getattr(wobbliness, kind)(networks[1], **settings).fit(images[rows]), "class 4: ")
        for rows in (rare, np.arange(len(images)))
    )
    assert (len(few), enough) == (1, [])


@pytest.fixture
def folder(tmp_path, monkeypatch, clean):
    """A linear graph and some digits; the working folder."""
    monkeypatch.chdir(tmp_path)
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save("few.npy", clean[0][:40])
    np.save("many.npy", clean[0][:300])
    np.save("inbox.npy", clean[0][300:320])
    return tmp_path


@pytest.mark.parametrize("kind", ["profile", "smoothness"])
def test_it_is_printed_kept_and_on_the_page(monkeypatch, capsys, folder, kind):
    fit = ["guard", "fit", "model.onnx", "few.npy", "--out", "guard", "--draws", 6]
    fit += ["--guard", kind, "--false-positive-rate", 0.1]
    code, out, err = run(monkeypatch, capsys, *fit, "--json")
    (line,) = json.loads(out)["warnings"]
    assert (code, err) == (0, f"warning: {line}\n")
    assert line.startswith(FEW)
    content = json.loads((folder / "guard" / SETTINGS_FILE).read_text())
    assert content["warnings"] == [line]
    classifier = wobbliness.open_classifier("model.onnx")
    loaded = wobbliness.load_guard("guard", classifier)
    assert loaded.warnings_ == (line,)
    wobbliness.save_guard(loaded, "again")
    assert (folder / "again" / SETTINGS_FILE).read_bytes() == (
        folder / "guard" / SETTINGS_FILE
    ).read_bytes()
    judge = ["guard", "judge", "guard", "model.onnx", "inbox.npy", "--report", "page.html"]
    assert run(monkeypatch, capsys, *judge)[0] == 0
    assert f"was fitted on: {line}" in (folder / "page.html").read_text()
    change_settings(folder / "guard", warnings=...)
    assert wobbliness.load_guard("guard", classifier).warnings_ == (), "a folder of before"
    assert run(monkeypatch, capsys, *judge)[0] == 0
    assert "was fitted on: " not in (folder / "page.html").read_text()
    shutil.rmtree("guard")
    fit[3] = "many.npy"
    code, out, err = run(monkeypatch, capsys, *fit, "--json")
    assert (code, err, json.loads(out)["warnings"]) == (0, "", []), "control"
    assert "warnings" not in json.loads((folder / "guard" / SETTINGS_FILE).read_text())


@pytest.mark.parametrize("damage", ["odd", [3], ["x"] * 99, ["x" * 10**5], {"a": "b"}])
def test_warnings_of_a_stranger_are_checked(folder, damage):
    classifier = wobbliness.open_classifier("model.onnx")
    guard = wobbliness.SmoothnessGuard(classifier, sigmas=(0.1,), draws=5)
    guard.false_positive_rate = 0.1
    wobbliness.save_guard(guard.fit(np.load("few.npy")), "guard")
    change_settings(folder / "guard", warnings=["\x1b[2J"])
    assert wobbliness.load_guard("guard", classifier).warnings_ == (r"\x1b[2J",)
    change_settings(folder / "guard", warnings=damage)
    with pytest.raises(
        ValueError, match=r"^expected a whole guard in guard, got .*warnings that are"
    ):
        wobbliness.load_guard("guard", classifier)


@pytest.mark.usefixtures("folder")
def test_what_was_said_before_the_work_is_said_once(monkeypatch, capsys, clean, networks):
    images, labels = clean
    save_onnx(networks[1], "network.onnx", torch.from_numpy(images[:2]))
    np.savez("inverted.npz", images=1 - images, labels=labels)
    np.savez("right.npz", images=images, labels=labels)
    fit = ("guard", "fit", "network.onnx", "inverted.npz", "--out", "guard", "--draws", 5)
    code, out, err = run(monkeypatch, capsys, *fit, "--guard", "smoothness")
    assert (code, (out + err).count("labelled with")) == (0, 1)
    kept = wobbliness.load_guard("guard", wobbliness.open_classifier("network.onnx")).warnings_
    assert any("labelled with" in line for line in kept)
    fit = (*fit[:3], "right.npz", *fit[4:])
    code, out, err = run(monkeypatch, capsys, *fit, "--guard", "smoothness")
    assert (code, "labelled with" in out + err) == (0, False), "control"
