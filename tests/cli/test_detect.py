"""`wobbliness detect`: any detector by its name or from a file, with calibrated p-values."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from wobbliness.cli import main as cli
from wobbliness.detectors.detect import detect
from wobbliness.runtime.user_files import load_object

DETECTORS = """
from dataclasses import dataclass

import numpy as np

from wobbliness.detectors.base import Access, Judges, name_by_settings


@dataclass(frozen=True)
class Bright:
    \"\"\"Mean pixel of an image, of the batch, or of the clean images.\"\"\"

    judges: Judges = Judges.INPUTS
    access = Access.LABELS
    name = "bright"

    def fit(self, classifier, clean):
        return FittedBright(self, float(clean.mean()))


@dataclass(frozen=True)
class FittedBright:
    detector: Bright
    clean_mean: float

    def scores(self, images):
        means = images.reshape(len(images), -1).mean(axis=1)
        if self.detector.judges is Judges.MODELS:
            return np.array([self.clean_mean])
        return means[:1] * 0 + means.mean() if self.detector.judges is Judges.BATCHES else means


@dataclass(frozen=True)
class Wrong(Bright):
    def fit(self, classifier, clean):
        class Fitted:
            def scores(self, images):
                return np.full(len(images) + 1, np.nan)

        return Fitted()


@dataclass(frozen=True)
class Unfinished:
    level: float


batches, models = Bright(Judges.BATCHES), Bright(Judges.MODELS)
number = 3
"""


def by_first_pixel(images):
    return (np.asarray(images)[:, 0, 0, 0] > 0.5).astype(np.int64)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Clean images, suspect ones of which the last two are brighter, a model, and detectors."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "clean.npy", rng.random((80, 1, 4, 4), np.float32) / 2)
    suspect = rng.random((10, 1, 4, 4), np.float32) / 2
    suspect[-2:] += 0.5
    np.save(tmp_path / "inbox.npy", suspect)
    (tmp_path / "mine.py").write_text(DETECTORS)
    (tmp_path / "by_first_pixel.py").write_text(
        "def model(images):\n    return (images[:, 0, 0, 0] > 0.25).astype(int)\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, capsys, *options):
    arguments = ["detect", "by_first_pixel:model", "inbox.npy", "--clean", "clean.npy", *options]
    monkeypatch.setattr(sys, "argv", ["wobbliness", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0, *capsys.readouterr()


def test_a_detector_of_a_file_scores_each_image(folder, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "--detector", "mine.py:Bright", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["detector"], found["judges"], found["class_scores"]) == ("bright", "inputs", None)
    assert (found["num_fit"], found["num_calibration"]) == (40, 40)
    suspect = np.load(folder / "inbox.npy")
    scores = [row["score"] for row in found["rows"]]
    np.testing.assert_allclose(scores, suspect.mean(axis=(1, 2, 3)), rtol=1e-6)
    pvalues = np.array([row["pvalue"] for row in found["rows"]])
    np.testing.assert_allclose(pvalues[-2:], 1 / 41)
    assert pvalues[:-2].min() > 1 / 41, "control"
    assert [row["name"] for row in found["rows"]] == [str(number) for number in range(10)]


def test_the_table_holds_what_is_printed(folder, monkeypatch, capsys):
    options = ("--detector", "mine.py:Bright", "--out", "scores.csv")
    code, out, _ = run(monkeypatch, capsys, *options)
    table = pd.read_csv(folder / "scores.csv")
    assert code == 0
    assert list(table.columns) == ["input", "score", "pvalue", "name"]
    assert out.count("\n") == 1 + len(table) + 1
    assert "bright judges inputs; fitted on 40 clean images, p-values by 40 clean scores" in out


def test_batches_and_models_have_one_row(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "--detector", "mine.py:batches", "--json")
    found = json.loads(out)
    assert found["num_calibration"] == 4, "batches of ten images of the forty"
    assert [(row["name"], row["pvalue"]) for row in found["rows"]] == [("inbox.npy", 1 / 5)]
    _, out, _ = run(monkeypatch, capsys, "--detector", "mine.py:models", "--json")
    found = json.loads(out)
    assert (found["num_fit"], found["num_calibration"]) == (80, 0)
    assert [(row["name"], row["pvalue"]) for row in found["rows"]] == [
        ("by_first_pixel:model", None)
    ]


def test_a_detector_of_the_package_by_its_name(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--detector", "smoothness")
    assert code == 0
    assert "smoothness judges inputs; fitted on 40 clean images" in out


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("no-such", "expected a detector out of .*top-score.*, got 'no-such'"),
        ("top-score", "expected a classifier that gives scores"),
        ("neural-cleanse", "expected a torch network, whose gradients neural-cleanse needs, got"),
        ("missing.py:Mine", "expected a Python file, got missing.py"),
        ("mine.py:missing", "expected missing in mine.py"),
        ("mine.py:number", "expected a detector, with name, access, judges and fit, got int"),
        ("mine.py:Unfinished", "expected a detector with a default for each setting, got mine.py"),
        ("mine.py:Wrong", r"expected scores \(10,\) of bright, .* got NaN of shape \(11,\)"),
    ],
)
def test_wrong_detectors_get_one_line(monkeypatch, capsys, detector, message):
    code, out, err = run(monkeypatch, capsys, "--detector", detector)
    assert (code, out, err.count("\n")) == (cli.EXIT_BAD_INPUT, "", 1)
    assert re.search(message, err), err


def test_clean_images_are_flagged_at_the_stated_rate(folder):
    """Split-conformal p-values of clean images are uniform, for any detector."""
    rng = np.random.default_rng(1)
    detector = load_object(f"{folder / 'mine.py'}:Bright")()
    shares = []
    for seed in range(20):
        clean, fresh = rng.random((2, 200, 1, 2, 2), np.float32)
        found = detect(detector, by_first_pixel, fresh, clean, seed=seed)
        shares.append((found.pvalue <= 0.1).mean())
    # 20 times 200 inputs, each time calibrated on 100
    error = np.sqrt(0.1 * 0.9 * (1 / 100 + 1 / 200) / 20)
    assert abs(np.mean(shares) - 0.1) < 4 * error


def test_too_few_clean_images_are_refused(folder):
    detector = load_object(f"{folder / 'mine.py'}:Bright")()
    images = np.random.default_rng(0).random((3, 1, 2, 2), np.float32)
    with pytest.raises(ValueError, match="expected at least 4 clean images, got 3"):
        detect(detector, by_first_pixel, images, images)
