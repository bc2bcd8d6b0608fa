"""A profile guard on disk and on the command line: equal verdicts, damaged files refused."""

import json
import os
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from command_line import run
from guard_folders import change_arrays, change_settings
from markupsafe import escape
from model_files import linear_model
from safetensors.numpy import load_file

import wobbliness
from wobbliness.detectors.guards.files.guard_files import ARRAYS_FILE, SETTINGS_FILE
from wobbliness.perturbations import BoxMix, Custom, Gaussian, Scale

SETTINGS = {"draws": 6, "false_positive_rate": 0.1, "seed": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits):
    """A model, clean inputs and others, and a guard of the default profile with its folder."""
    folder = tmp_path_factory.mktemp("profile")
    linear_model(folder / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(folder / "clean.npy", digits.test.images[:80])
    np.save(folder / "images.npy", digits.test.images[80:120])
    guard = wobbliness.ProfileGuard(wobbliness.open_classifier(folder / "model.onnx"), **SETTINGS)
    wobbliness.save_guard(guard.fit(digits.test.images[:80]), folder / "guard")
    return folder, guard


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy of these files; the working folder."""
    shutil.copytree(files[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def guard(files):
    return files[1]


def require_same(loaded, guard, images):
    """Checks that two guards give the same bytes of everything."""
    for found, expected in zip(
        (loaded.judge(images), loaded.judge_quickly(images)),
        (guard.judge(images), guard.judge_quickly(images)),
        strict=True,
    ):
        assert found.frame().equals(expected.frame())
    for name in ("score", "pvalue", "placed", "expected"):
        one, two = (getattr(made.judge(images), name) for made in (loaded, guard))
        assert one.tobytes() == two.tobytes(), name
    assert loaded.offset_ == guard.offset_
    assert loaded.get_params() == guard.get_params()
    assert loaded.perturbations_ == guard.perturbations_


def test_a_loaded_guard_gives_the_same_bytes(guard, folder):
    images = np.load("images.npy")
    loaded = wobbliness.load_guard(folder / "guard", guard.classifier)
    assert loaded.perturbations is None
    require_same(loaded, guard, images)
    assert guard.judge_quickly(images).draws.min() < guard.judge_quickly(images).most_draws
    wobbliness.save_guard(loaded, folder / "again")
    for name in (SETTINGS_FILE, ARRAYS_FILE):
        assert (folder / "again" / name).read_bytes() == (folder / "guard" / name).read_bytes()
    content = json.loads((folder / "guard" / SETTINGS_FILE).read_text())
    assert (content["guard"], content["is_default_profile"]) == ("profile", True)
    overlays = load_file(folder / "guard" / ARRAYS_FILE)["overlays_0"]
    clean = {image.tobytes() for image in np.load("clean.npy")}
    assert {image.tobytes() for image in overlays} < clean, "a part of the clean inputs"
    other = wobbliness.ProfileGuard(guard.classifier, **SETTINGS | {"seed": 4})
    found = other.fit(np.load("clean.npy")).judge(images).score
    assert found.tobytes() != guard.judge(images).score.tobytes(), "control"


def test_a_profile_of_few_draws_has_one_stage(guard, folder):
    clean, images = np.load("clean.npy"), np.load("images.npy")
    settings = SETTINGS | {"draws": 20}
    made = wobbliness.ProfileGuard(guard.classifier, perturbations=(Scale(3, 5),), **settings)
    wobbliness.save_guard(made.fit(clean), folder / "few")
    loaded = wobbliness.load_guard(folder / "few", guard.classifier)
    assert len(loaded.stages_) == 1
    require_same(loaded, made, images)


GIVEN = {
    "of sigmas and perturbations": {"scores": "logits"},
    "of probabilities": {"scores": "probabilities"},
    "of a declared number of classes": {"num_classes": 4},
    "of one draw": {"draws": 1},
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_it_was_given_is_kept(name, guard, folder):
    clean = np.load("clean.npy")
    given = (0.1, BoxMix(clean[:20]), Gaussian(0.4), Scale(3, 5))
    classifier = guard.classifier
    if "num_classes" in GIVEN[name]:
        classifier = lambda images: images.reshape(len(images), -1)[:, :4].argmax(axis=1)  # noqa: E731
    elif GIVEN[name].get("scores") == "probabilities":
        classifier = lambda images: _softmax(images.reshape(len(images), -1)[:, :4])  # noqa: E731
    settings = SETTINGS | {"perturbations": given} | GIVEN[name]
    made = wobbliness.ProfileGuard(classifier, **settings).fit(clean[20:])
    wobbliness.save_guard(made, folder / "given")
    loaded = wobbliness.load_guard(folder / "given", classifier)
    assert len(loaded.stages_) == (1 if made.draws == 1 else 2)
    assert loaded.perturbations == (0.1, given[1], 0.4, given[3])
    loaded.perturbations = given  # a sigma and its noise are the same
    require_same(loaded, made, np.load("images.npy"))


def _softmax(scores):
    shares = np.exp(scores.astype(np.float32))
    return shares / shares.sum(axis=1, keepdims=True)


def test_code_of_ones_own_cannot_be_kept(guard, folder):
    mine = Custom(lambda image, _: image, name="mine")
    made = wobbliness.ProfileGuard(guard.classifier, perturbations=(0.3, mine), **SETTINGS)
    made.fit(np.load("clean.npy"))
    with pytest.raises(ValueError, match=r"^expected perturbations of this package, .* got mine$"):
        wobbliness.save_guard(made, folder / "mine")
    assert not (folder / "mine").exists()


def changed(name, change):
    """A change of one array of the last stage."""

    def damage(folder):
        arrays = load_file(folder / ARRAYS_FILE)
        change_arrays(folder, **{f"stage_1_{name}": change(arrays[f"stage_1_{name}"])})

    return damage


def with_value(value):
    """A change of the first value of an array."""

    def change(array):
        array = array.copy()
        array.flat[0] = value
        return array

    return change


DAMAGES = {
    "an unknown kind": lambda f: change_settings(f, guard="oracle"),
    "a kind of a list": lambda f: change_settings(f, guard=["profile"]),
    "another kind's": lambda f: change_settings(f, guard=..., error_rate=0.001),
    "no word of the profile": lambda f: change_settings(f, is_default_profile=...),
    "a profile of text": lambda f: change_settings(f, is_default_profile="yes"),
    "odd scores": lambda f: change_settings(f, scores="ranks"),
    "scores of a list": lambda f: change_settings(f, scores=["logits"]),
    "scores without readings": lambda f: change_settings(f, scores="logits"),
    "a rate of text": lambda f: change_settings(f, false_positive_rate="high"),
    "a rate out of range": lambda f: change_settings(f, false_positive_rate=1.0),
    "a rate too small for its inputs": lambda f: change_settings(f, false_positive_rate=0.001),
    "a missing setting": lambda f: change_settings(f, seed=...),
    "one draw of two stages": lambda f: change_settings(f, draws=1),
    "groups of one part": lambda f: change_settings(f, groups=[2]),
    "groups of no number": lambda f: change_settings(f, groups=[2, "2", 1, 1, 1]),
    "groups of noise": lambda f: change_settings(f, groups=[6, 6, 2, 1, 1]),
    "more groups than draws": lambda f: change_settings(f, groups=[7, 6, 1, 1, 1]),
    "other groups": lambda f: change_settings(f, groups=[5, 6, 1, 1, 1]),
    "draws of yes": lambda f: change_settings(f, draws=True),
    "other classes": lambda f: change_settings(f, num_classes=7),
    "another shape": lambda f: change_settings(f, image_shape=[1, 4, 16]),
    "fewer perturbations": lambda f: change_settings(f, sigmas=[0.2, 0.4]),
    "no perturbations": lambda f: change_settings(f, perturbations=...),
    "labels as floats": lambda f: change_arrays(f, calibration_label=np.zeros(32)),
    "labels of few scores": lambda f: change_arrays(f, calibration_label=np.zeros(9, np.int64)),
    "labels beyond the classes": lambda f: change_arrays(
        f, calibration_label=np.full(32, 4, np.int64)
    ),
    "a foreign array": lambda f: change_arrays(f, weights=np.zeros(3)),
    "a missing stage": lambda f: change_arrays(f, **{f"stage_1_{n}": ... for n in ARRAYS}),
    "a third stage": lambda f: change_arrays(f, stage_2_scales=np.ones(28)),
    "stages of other inputs": lambda f: change_arrays(f, stage_1_calibration=np.arange(40.0)),
    "negative sums": changed("sums", with_value(-1.0)),
    "NaN sums": changed("sums", with_value(np.nan)),
    "infinite sums": changed("sums", with_value(np.inf)),
    "huge sums": changed("sums", lambda sums: np.full_like(sums, 1e308)),
    "sums of other inputs": changed("sums", lambda sums: sums / 2),
    "flat sums": changed("sums", np.ravel),
    "short sums": changed("sums", lambda sums: np.ascontiguousarray(sums[:, :, :3])),
    "sums of halves": changed("sums", lambda sums: sums.astype(np.float16)),
    "negative numbers": changed("numbers", lambda n: n + np.array([-99, 99, 0, 0])),
    "numbers of other inputs": changed("numbers", lambda numbers: numbers + 1),
    "numbers that overflow": changed("numbers", lambda n: np.full_like(n, 2**62)),
    "numbers with fractions": changed("numbers", lambda numbers: numbers.astype(np.float64)),
    "NaN centres": changed("centres", with_value(np.nan)),
    "huge centres": changed("centres", with_value(1e300)),
    "centres of few classes": changed("centres", lambda c: c[:2].copy()),
    "scales of 0": changed("scales", with_value(0.0)),
    "negative scales": changed("scales", with_value(-1.0)),
    "infinite scales": changed("scales", with_value(np.inf)),
    "few scales": changed("scales", lambda scales: scales[:5].copy()),
    "NaN points": changed("points", with_value(np.nan)),
    "huge points": changed("points", with_value(-1e300)),
    "one point": changed("points", lambda points: points[:1].copy()),
    "evidence as floats": changed("evidence", lambda kinds: kinds.astype(np.float64)),
    "little evidence": changed("evidence", lambda kinds: kinds[:5].copy()),
    "evidence of an unknown kind": changed("evidence", lambda kinds: kinds + 2),
    "unsorted scores": changed("calibration", lambda scores: scores[::-1].copy()),
    "NaN scores": changed("calibration", with_value(np.nan)),
    "huge scores": changed("calibration", with_value(-1e300)),
    "no scores": changed("calibration", lambda scores: scores[:0].copy()),
    "overlays out of range": lambda f: change_arrays(
        f, overlays_0=load_file(f / ARRAYS_FILE)["overlays_0"] + np.float32(1)
    ),
    "other overlays": lambda f: change_arrays(
        f, overlays_0=1 - load_file(f / ARRAYS_FILE)["overlays_0"]
    ),
    "overlays of another shape": lambda f: change_arrays(
        f, overlays_0=np.zeros((9, 1, 4, 4), np.float32)
    ),
    "cut arrays": lambda f: (f / ARRAYS_FILE).write_bytes((f / ARRAYS_FILE).read_bytes()[:-8]),
    "cut settings": lambda f: os.truncate(f / SETTINGS_FILE, 99),
    "no arrays": lambda f: (f / ARRAYS_FILE).unlink(),
}
ARRAYS = ("sums", "numbers", "centres", "scales", "points", "evidence", "calibration")


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_or_foreign_is_refused(guard, folder, name):
    wobbliness.load_guard(folder / "guard", guard.classifier)  # control
    DAMAGES[name](folder / "guard")
    with pytest.raises(ValueError, match=r"^expected .*(got |does not exist)") as refused:
        wobbliness.load_guard(folder / "guard", guard.classifier)
    assert "\n" not in str(refused.value)


def test_a_later_stage_may_know_more_classes(guard, folder):
    arrays = load_file(folder / "guard" / ARRAYS_FILE)
    wider = {
        "sums": np.pad(arrays["stage_1_sums"], ((0, 0), (0, 1), (0, 1))),
        "numbers": np.pad(arrays["stage_1_numbers"], (0, 1)),
        "centres": np.pad(arrays["stage_1_centres"], ((0, 1), (0, 0))),
    }
    change_arrays(folder / "guard", **{f"stage_1_{name}": array for name, array in wider.items()})
    loaded = wobbliness.load_guard(folder / "guard", guard.classifier)
    assert loaded.judge(np.load("images.npy")).pvalue.min() > 0
    change_arrays(folder / "guard", **{name: arrays[name] for name in arrays if "stage_1" in name})
    change_arrays(folder / "guard", **{f"stage_0_{name}": array for name, array in wider.items()})
    with pytest.raises(ValueError, match=r"at least 2 classes, got \[5, 4\]"):
        wobbliness.load_guard(folder / "guard", guard.classifier)


def test_a_folder_of_before_has_no_percentiles(guard, folder):
    images = np.load("images.npy")
    change_arrays(folder / "guard", calibration_label=...)
    judged, now = (
        made.judge(images)
        for made in (wobbliness.load_guard(folder / "guard", guard.classifier), guard)
    )
    assert judged.score.tobytes() == now.score.tobytes()
    assert judged.reasons == now.reasons
    assert np.isnan(judged.percentile).all()
    assert not judged.num_clean.any()
    assert now.num_clean.all(), "control"


def test_another_model_or_preprocessing_is_named(guard, folder):
    linear_model(folder / "other.onnx", np.random.default_rng(1).normal(size=(64, 4)))
    for name, options, said in (
        ("other.onnx", {}, "fitted on the model model.onnx, and other.onnx is another"),
        ("model.onnx", {"mean": 0.5}, "pixels as it is, and is used with pixels input range 0,1"),
    ):
        with pytest.warns(UserWarning, match=said):
            wobbliness.load_guard(folder / "guard", wobbliness.open_classifier(name, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = wobbliness.load_guard(folder / "guard", wobbliness.open_classifier("model.onnx"))
    loaded.fit(np.load("clean.npy"))
    assert not hasattr(loaded, "model_")
    assert not hasattr(loaded, "preprocessing_")
    require_same(loaded.set_params(classifier=guard.classifier), guard, np.load("images.npy"))


FIT = ("guard", "fit", "model.onnx", "clean.npy", "--out", "fitted", "--guard", "profile")
MADE = ("--draws", 6, "--false-positive-rate", 0.1, "--seed", 3)


def test_commands_give_what_the_library_gives(monkeypatch, capsys, guard, folder):
    code, text, err = run(monkeypatch, capsys, *FIT, *MADE, "--json")
    fitted = json.loads(text)
    assert (code, err, fitted["num_reference"], fitted["num_calibration"]) == (0, "", 32, 32)
    assert fitted["perturbations"] == [made.name for made in guard.perturbations_]
    written = [(folder / each / ARRAYS_FILE).read_bytes() for each in ("fitted", "guard")]
    assert written[0] == written[1]
    judge = ("guard", "judge", "fitted", "model.onnx", "images.npy")
    judged, quick = (made(np.load("images.npy")) for made in (guard.judge, guard.judge_quickly))
    code, text, _ = run(monkeypatch, capsys, *judge, "--json", "--out", "verdicts.parquet")
    rows = json.loads(text)["inputs"]
    assert code == 0
    assert [row["pvalue"] for row in rows] == judged.pvalue.tolist()
    assert [row["reason"] for row in rows] == list(judged.reasons)
    assert [row["spoke"] for row in rows] == list(judged.spoken_names)
    assert [row["percentile"] for row in rows] == judged.percentile.tolist()
    assert any(judged.reasons)
    assert pd.read_parquet("verdicts.parquet").drop(columns="name").equals(judged.frame())
    code, text, _ = run(monkeypatch, capsys, *judge, "--quick", "--json")
    answer = json.loads(text)
    assert (code, answer["most_draws"]) == (0, fitted["passes"]) == (0, quick.most_draws)
    assert [row["is_suspicious"] for row in answer["inputs"]] == quick.is_suspicious.tolist()
    assert [row["name"] for row in answer["inputs"]] == [str(row) for row in range(40)]
    for extra in ((), ("--quick",)):
        code, text, _ = run(monkeypatch, capsys, *judge, *extra)
        assert all((reason in text) == (not extra) for reason in judged.reasons if reason)
        assert (code, "of 40 inputs are suspicious (" in text, "smooth (" in text) == (
            0,
            True,
            False,
        )
    code, text, _ = run(monkeypatch, capsys, *FIT, *MADE)
    assert (code, "32 clean inputs for reference, 32 for calibration" in text) == (0, True)
    assert f"{quick.most_draws} passes for each input, under superpose" in text


@pytest.mark.parametrize("kind", ["profile", "smoothness"])
def test_the_page_names_files_and_what_is_no_page_is_refused(monkeypatch, capsys, folder, kind):
    fit = (*FIT[:-1], kind, "--draws", 6, "--false-positive-rate", 0.2)
    assert run(monkeypatch, capsys, *fit)[0] == 0
    judge = ("guard", "judge", "fitted", "model.onnx", "images.npy")
    code, text, err = run(monkeypatch, capsys, *judge, "--report", "page.html", "--json")
    flagged = [row for row in json.loads(text)["inputs"] if row["is_suspicious"]]
    assert (code, err) == (0, "")
    page = (folder / "page.html").read_text()
    assert flagged
    assert all(str(escape(row["reason"])) in page and row["spoke"] in page for row in flagged)
    assert all(f'data-input="{row["input"]}"' in page for row in flagged)
    assert all(part in page for part in ("model.onnx", "images.npy"))
    for extra, said in (
        (("--report", "page.txt"), "ending in .html"),
        (("--report", "page.html", "--quick"), "--report without --quick"),
    ):
        code, out, err = run(monkeypatch, capsys, *judge, *extra)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err


PROFILES = {
    "the noise that was asked for": (("--sigma", 0.3), [0.3], False, 50),
    "others in place of all": (("--perturbation", "keep-feature:0.7"), [None], False, 50),
    "both": (("--sigma", 0.3, "--perturbation", "scale:3,5"), [0.3, None], False, 50),
    "draws that are the other guard's": (("--draws", 250, "--sigma", 0.3), [0.3], False, 250),
    "scores": (("--scores", "logits", "--draws", 4), [None, None, 0.1, 0.2, None], True, 4),
}


@pytest.mark.parametrize("name", PROFILES)
def test_options_make_the_profile(monkeypatch, capsys, folder, name):
    options, sigmas, is_default, draws = PROFILES[name]
    code, _, err = run(monkeypatch, capsys, *FIT, "--false-positive-rate", 0.1, *options)
    assert (code, err) == (0, "")
    content = json.loads((folder / "fitted" / SETTINGS_FILE).read_text())
    found = [content[key] for key in ("sigmas", "is_default_profile", "draws", "scores")]
    assert found == [sigmas, is_default, draws, "logits" if is_default else None]


BAD_CALLS = {
    "scores of a smoothness guard": (
        (*FIT[:-1], "smoothness", "--scores", "logits"),
        "expected --scores with --guard profile, got --guard smoothness",
    ),
    "too few clean inputs": ((*FIT, "--false-positive-rate", 0.01), "expected at least"),
    "a missing guard": (("guard", "judge", "fitted", "model.onnx", "images.npy"), "not exist"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_get_one_line_and_write_nothing(monkeypatch, capsys, folder, name):
    arguments, said = BAD_CALLS[name]
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (folder / "fitted").exists()


def test_a_damaged_guard_gets_one_line(monkeypatch, capsys, folder):
    DAMAGES["scales of 0"](folder / "guard")
    code, out, err = run(monkeypatch, capsys, "guard", "judge", "guard", "model.onnx", "images.npy")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected scales from" in err
