"""A guard on disk and on the command line: equal verdicts after saving, damaged files refused."""

import copy
import inspect
import json
import os
import re
import shutil
import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from command_line import run
from guard_folders import change_arrays, change_settings
from model_files import linear_model, save_exported
from PIL import Image
from safetensors.numpy import save_file
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier

import wobbliness
from wobbliness.classifiers.untrusted.fingerprint import fingerprint
from wobbliness.cli import guard as guard_cli
from wobbliness.detectors.guards.files.guard_files import ARRAYS_FILE, SETTINGS_FILE
from wobbliness.detectors.guards.smoothness_guard import DEFAULT_SIGMAS

SETTINGS = {"sigmas": (0.1, 0.3), "draws": 50, "false_positive_rate": 0.1, "seed": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits):
    """A model and arrays, and a guard that was fitted and saved beside them."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "arrays").mkdir()
    linear_model(folder / "arrays" / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(folder / "arrays" / "clean.npy", digits.test.images[:100])
    np.save(folder / "arrays" / "images.npy", digits.test.images[100:160])
    classifier = wobbliness.open_classifier(folder / "arrays" / "model.onnx")
    guard = wobbliness.SmoothnessGuard(classifier, **SETTINGS).fit(digits.test.images[:100])
    wobbliness.save_guard(guard, folder / "guard")
    return folder, guard


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy of the model and the arrays; the working folder."""
    shutil.copytree(files[0] / "arrays", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def guard(files, folder):
    """The fitted guard, with a copy of its folder beside the arrays."""
    shutil.copytree(files[0] / "guard", folder / "guard")
    return files[1]


def test_a_loaded_guard_gives_the_same_bytes(guard, folder):
    images = np.load("images.npy")
    loaded = wobbliness.load_guard(folder / "guard", wobbliness.open_classifier("model.onnx"))
    for name in ("score_samples", "pvalues", "decision_function", "predict"):
        assert getattr(loaded, name)(images).tobytes() == getattr(guard, name)(images).tobytes(), (
            name
        )
    assert loaded.judge(images).frame().equals(guard.judge(images).frame())
    wobbliness.save_guard(loaded, folder / "again")
    for name in (SETTINGS_FILE, ARRAYS_FILE):
        assert (folder / "again" / name).read_bytes() == (folder / "guard" / name).read_bytes()
    shape = {name: getattr(loaded, name) for name in ("n_features_in_", "image_shape_", "offset_")}
    assert shape == {name: getattr(guard, name) for name in shape}


def test_an_unfitted_guard_is_not_saved(folder):
    with pytest.raises(NotFittedError):
        wobbliness.save_guard(wobbliness.SmoothnessGuard(len), folder / "guard")
    assert not (folder / "guard").exists()


def link(path, target):
    path.unlink()
    path.symlink_to(target)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "no settings": lambda f: (f / SETTINGS_FILE).unlink(),
    "no arrays": lambda f: (f / ARRAYS_FILE).unlink(),
    "cut settings": lambda f: (f / SETTINGS_FILE).write_text((f / SETTINGS_FILE).read_text()[:50]),
    "nested settings": lambda f: (f / SETTINGS_FILE).write_text("[" * 100_000),
    "sigma beyond floats": lambda f: change_settings(f, sigmas=[10**400]),
    "not text": lambda f: (f / SETTINGS_FILE).write_bytes(b"\xff\xfe\x00"),
    "NaN": lambda f: change_settings(f, false_positive_rate=float("nan")),
    "a list": lambda f: (f / SETTINGS_FILE).write_text("[]"),
    "another kind": lambda f: change_settings(f, kind="study"),
    "another schema": lambda f: change_settings(f, schema_version=99),
    "a missing setting": lambda f: change_settings(f, draws=...),
    "a rate of text": lambda f: change_settings(f, false_positive_rate="high"),
    "a rate out of range": lambda f: change_settings(f, false_positive_rate=2.0),
    "no shape": lambda f: change_settings(f, image_shape=[]),
    "sigmas too many": lambda f: change_settings(f, sigmas=[0.1, 0.2, 0.3]),
    "cut arrays": lambda f: (f / ARRAYS_FILE).write_bytes((f / ARRAYS_FILE).read_bytes()[:-8]),
    "other arrays": lambda f: save_file({"weights": np.zeros(3)}, f / ARRAYS_FILE),
    "foreign arrays": lambda f: change_arrays(f, weights=np.zeros(3)),
    "unsorted scores": lambda f: change_arrays(f, calibration=np.linspace(0.9, 0.1, 50)),
    "NaN in W": lambda f: change_arrays(f, reference_wobbliness=np.full((2, 50), np.nan)),
    "sigmas by the million": lambda f: change_settings(f, sigmas=[0.1] * 10**6),
    "sigmas too many for a guard": lambda f: change_settings(
        f, sigmas=[i / 1e4 for i in range(1001)]
    ),
    "a sigma twice": lambda f: change_settings(f, sigmas=[0.1, 0.1]),
    "a negative sigma": lambda f: change_settings(f, sigmas=[-0.1, 0.3]),
    "a huge sigma": lambda f: change_settings(f, sigmas=[0.1, 1e30]),
    "classes by the billion": lambda f: change_settings(f, num_classes=10**9),
    "other classes": lambda f: change_settings(f, num_classes=7),
    "preprocessing of a list": lambda f: change_settings(f, preprocessing=[1]),
    "preprocessing of numbers": lambda f: change_settings(f, preprocessing={"pixels": 1}),
    "preprocessing without end": lambda f: change_settings(
        f, preprocessing={str(i): "x" for i in range(10**4)}
    ),
    "long preprocessing": lambda f: change_settings(f, preprocessing={"pixels": "x" * 10**5}),
    "one class": lambda f: change_settings(f, num_classes=1),
    "draws without end": lambda f: change_settings(f, draws=10**12),
    "no draws": lambda f: change_settings(f, draws=0),
    "draws of yes": lambda f: change_settings(f, draws=True),
    "draws with a fraction": lambda f: change_settings(f, draws=2.5),
    "a negative seed": lambda f: change_settings(f, seed=-1),
    "a long seed": lambda f: change_settings(f, seed=10**100),
    "a negative shape": lambda f: change_settings(f, image_shape=[-1, 8, 8]),
    "a huge shape": lambda f: change_settings(f, image_shape=[10**5, 10**5]),
    "a shape of text": lambda f: change_settings(f, image_shape="188"),
    "many axes": lambda f: change_settings(f, image_shape=[1] * 100),
    "a model of numbers": lambda f: change_settings(f, model=3),
    "a long model": lambda f: change_settings(f, model="m" * 10**5),
    "NaN p-values": lambda f: change_arrays(f, smooth_pvalues=np.full(4, np.nan)),
    "p-values of 0": lambda f: change_arrays(f, smooth_pvalues=np.zeros(4)),
    "p-values above 1": lambda f: change_arrays(f, smooth_pvalues=np.full(4, 1.5)),
    "p-values by the million": lambda f: change_arrays(f, smooth_pvalues=np.full(10**6, 0.5)),
    "p-values of others": lambda f: change_arrays(f, smooth_pvalues=np.ones(4, np.int64)),
    "infinite W": lambda f: change_arrays(f, reference_wobbliness=np.full((2, 50), np.inf)),
    "W beyond the classes": lambda f: change_arrays(f, reference_wobbliness=np.full((2, 50), 9.0)),
    "negative labels": lambda f: change_arrays(f, reference_label=np.full(50, -1)),
    "labels out of range": lambda f: change_arrays(f, reference_label=np.full(50, 4)),
    "NaN scores": lambda f: change_arrays(f, calibration=np.full(50, np.nan)),
    "a device": lambda f: link(f / SETTINGS_FILE, "/dev/zero"),
    "a device of arrays": lambda f: link(f / ARRAYS_FILE, "/dev/zero"),
    "a pipe": lambda f: pipe(f / SETTINGS_FILE),
    "a file of the kernel": lambda f: link(f / SETTINGS_FILE, "/proc/self/status"),
    "settings too large": lambda f: (f / SETTINGS_FILE).write_text(" " * 2**21),
    "labels too few": lambda f: change_arrays(f, reference_label=np.zeros(3, np.int64)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_or_foreign_is_refused(monkeypatch, capsys, guard, folder, name):
    DAMAGES[name](folder / "guard")
    with pytest.raises(ValueError, match=r"^expected .*got |^expected .* does not exist"):
        wobbliness.load_guard(folder / "guard", guard.classifier)
    code, out, err = run(monkeypatch, capsys, "guard", "judge", "guard", "model.onnx", "images.npy")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: expected ")


@pytest.mark.usefixtures("guard")
def test_another_model_is_named(monkeypatch, capsys, folder):
    linear_model(folder / "other.onnx", np.random.default_rng(1).normal(size=(64, 4)))
    (folder / "copy.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.warns(
        UserWarning, match=r"fitted on the model model.onnx, and other.onnx is another"
    ):
        wobbliness.load_guard(folder / "guard", wobbliness.open_classifier("other.onnx"))
    for name, num_warnings in (("model.onnx", 0), ("copy.onnx", 0), ("other.onnx", 1)):
        code, out, err = run(
            monkeypatch, capsys, "guard", "judge", "guard", name, "images.npy", "--json"
        )
        warned = [line for line in json.loads(out)["warnings"] if "fitted on the model" in line]
        assert (code, len(warned), err.count("fitted on the model")) == (
            0,
            num_warnings,
            num_warnings,
        )
    with pytest.warns(
        UserWarning, match="whether Linear, of another form, is that model cannot be told"
    ):
        wobbliness.load_guard(folder / "guard", torch.nn.Linear(64, 4))


@pytest.mark.usefixtures("guard")
def test_old_guards_and_functions_are_not_warned_of(folder):
    change_settings(folder / "guard", model=..., model_digest=...)
    wobbliness.load_guard(folder / "guard", wobbliness.open_classifier("model.onnx"))
    function = wobbliness.SmoothnessGuard(
        lambda images: images.reshape(len(images), -1)[:, :4], **SETTINGS
    )
    wobbliness.save_guard(function.fit(np.load("clean.npy")), folder / "function")
    wobbliness.load_guard(folder / "function", wobbliness.open_classifier("model.onnx"))


SAME_PREPROCESSING = {
    "none": ({}, {}),
    "said and left out": ({"input_range": (0, 1), "mean": 0, "layout": "nchw"}, {}),
    "one number and three": ({"mean": 0.5}, {"mean": (0.5,)}),
    "output said and found": ({"output": "scores"}, {}),
}
OTHER_PREPROCESSING = {
    "range": (
        {"input_range": (0, 255)},
        {},
        "pixels input range 0,255, mean 0, std 1, and is used with pixels as it is:",
    ),
    "mean": (
        {},
        {"mean": 0.5},
        "pixels as it is, and is used with pixels input range 0,1, mean 0.5, std 1:",
    ),
    "std": (
        {"std": 0.5},
        {"std": 0.25},
        "std 0.5, and is used with pixels input range 0,1, mean 0, std 0.25:",
    ),
}


def opened_again(guard, folder, **options):
    """The warnings of a guard that is loaded with a model opened in another way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wobbliness.load_guard(folder, wobbliness.open_classifier(guard, **options))
    return [str(warning.message) for warning in caught]


@pytest.fixture
def fitted(folder, digits):
    """A function that fits a guard on a model opened in some way, and saves it."""

    def fit(source="model.onnx", settings=SETTINGS, **options):
        guard = wobbliness.SmoothnessGuard(
            wobbliness.open_classifier(source, **options), **settings
        )
        wobbliness.save_guard(guard.fit(digits.test.images[:100]), folder / "guard")
        return folder / "guard"

    return fit


@pytest.mark.parametrize("case", SAME_PREPROCESSING)
def test_the_same_preprocessing_is_not_warned_of(fitted, case):
    first, second = SAME_PREPROCESSING[case]
    assert opened_again("model.onnx", fitted(**first), **second) == []


@pytest.mark.parametrize("case", OTHER_PREPROCESSING)
def test_another_preprocessing_is_named(fitted, case):
    first, second, said = OTHER_PREPROCESSING[case]
    (line,) = opened_again("model.onnx", fitted(**first), **second)
    assert line.startswith("this guard was fitted with ")
    assert said in line
    assert line.endswith("false-positive rate is unknown")


def test_threshold_layout_and_output_are_compared(fitted, folder):
    weights = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)

    def one_score(images):
        return images.reshape(len(images), -1) @ weights

    (line,) = opened_again(one_score, fitted(one_score, threshold=0.0), threshold=0.5)
    assert "threshold 0, and is used with threshold 0.5" in line
    assert opened_again(one_score, folder / "guard", threshold=0) == []
    tree = DecisionTreeClassifier(random_state=0).fit(
        np.load("clean.npy").reshape(100, 64), np.arange(100) % 3
    )
    (line,) = opened_again(tree, fitted(tree), layout="nhwc")
    assert "layout as it is, and is used with layout nhwc" in line
    assert opened_again(tree, folder / "guard", layout="nchw") == []

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(64, 4), torch.nn.Linear(64, 4)

        def forward(self, images):
            return {
                "first": self.first(images.flatten(1)),
                "second": self.second(images.flatten(1)),
            }

    two = Two()
    (line,) = opened_again(two, fitted(two, output="first"), output="second")
    assert "output first, and is used with output second" in line
    assert opened_again(two, folder / "guard", output="first") == []


def test_forms_of_one_module_have_the_same_preprocessing(fitted, folder):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()
    exported = save_exported(module, folder / "module.pt2", torch.rand(2, 1, 8, 8))
    assert opened_again(exported, fitted(module, mean=0.5), mean=(0.5,)) == []
    (line,) = opened_again(exported, folder / "guard")
    assert "mean 0.5, std 1, and is used with pixels as it is" in line


def test_commands_warn_of_another_preprocessing(monkeypatch, capsys, folder):
    fit = [
        "guard",
        "fit",
        "model.onnx",
        "clean.npy",
        "--guard",
        "smoothness",
        "--out",
        "guard",
        "--sigma",
        0.1,
        "--draws",
        5,
    ]
    judge = ["guard", "judge", "guard", "model.onnx", "images.npy"]
    assert run(monkeypatch, capsys, *fit, "--mean", 0.5)[0] == 0
    for options, num_warnings in ((["--mean", 0.5], 0), ([], 1), (["--mean", 0.5, "--resize"], 1)):
        code, out, err = run(monkeypatch, capsys, *judge, *options, "--json")
        assert (code, len(json.loads(out)["warnings"]), err.count("fitted with")) == (
            0,
            num_warnings,
            num_warnings,
        )
    assert "resize no, and is used with resize yes" in err
    change_settings(folder / "guard", preprocessing=...)
    code, out, err = run(monkeypatch, capsys, *judge, "--json")
    assert (code, json.loads(out)["warnings"], err) == (0, [], ""), "an older guard's"


def test_a_guard_that_is_fitted_anew_forgets_its_file(fitted, folder, digits):
    with pytest.warns(UserWarning, match="fitted with"):
        guard = wobbliness.load_guard(fitted(mean=0.5), wobbliness.open_classifier("model.onnx"))
    wobbliness.save_guard(guard, folder / "kept")
    assert len(opened_again("model.onnx", folder / "kept")) == 1, (
        "its reference is still that of the other pixels"
    )
    wobbliness.save_guard(guard.fit(digits.test.images[:100]), folder / "again")
    assert opened_again("model.onnx", folder / "again") == []


def test_a_path_is_opened_to_compare_and_what_does_not_open_is_left(fitted, folder):
    kept = fitted(mean=0.5)
    with pytest.warns(UserWarning, match="mean 0.5, std 1, and is used with pixels as it is"):
        wobbliness.load_guard(kept, str(folder / "model.onnx"))
    change_settings(kept, model=..., model_digest=...)
    assert wobbliness.load_guard(kept, None).classifier is None
    guard = wobbliness.SmoothnessGuard(str(folder / "model.onnx"), **SETTINGS).fit(
        np.load("clean.npy")
    )
    wobbliness.save_guard(guard, folder / "of a path")
    assert opened_again("model.onnx", folder / "of a path") == []


def test_names_in_a_guard_cannot_steer_a_terminal(fitted, folder):
    change_settings(fitted(), model="\x1b[2J", model_digest="onnx:0")
    (line,) = opened_again("model.onnx", folder / "guard")
    change_settings(
        folder / "guard", model=..., model_digest=..., preprocessing={"pixels": "\x1b[2J"}
    )
    (other,) = opened_again("model.onnx", folder / "guard")
    assert "\x1b" not in line + other
    assert r"\x1b[2J" in line
    assert r"\x1b[2J" in other


@pytest.mark.usefixtures("folder")
def test_torch_modules_are_told_by_their_weights(tmp_path):
    first, second = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)) for _ in range(2)
    )
    exported = save_exported(first, tmp_path / "first.pt2", torch.rand(2, 1, 8, 8))
    digests = [
        fingerprint(wobbliness.open_classifier(source)).digest
        for source in (first, first, exported, second)
    ]
    assert digests[0] == digests[1] == digests[2] == fingerprint(first).digest
    assert digests[0] != digests[3]
    trees = [
        DecisionTreeClassifier(random_state=0).fit(
            np.load("clean.npy").reshape(100, 64), np.arange(100) % k
        )
        for k in (2, 3)
    ]
    assert fingerprint(trees[0]).digest != fingerprint(trees[1]).digest
    assert fingerprint(trees[0]) == fingerprint(wobbliness.open_classifier(trees[0]))


def test_a_graph_is_told_by_its_external_data(folder):
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    onnx.save(
        model,
        folder / "outside.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    before = fingerprint(folder / "outside.onnx").digest
    assert before == fingerprint(wobbliness.open_classifier(folder / "outside.onnx")).digest
    weights = bytearray((folder / "weights").read_bytes())
    weights[2] ^= 1
    (folder / "weights").write_bytes(weights)
    assert fingerprint(folder / "outside.onnx").digest != before


def test_commands_give_what_the_library_gives(monkeypatch, capsys, guard, folder):
    options = [
        "--sigma",
        0.1,
        "--sigma",
        0.3,
        "--draws",
        50,
        "--false-positive-rate",
        0.1,
        "--seed",
        3,
    ]
    code, text, _ = run(
        monkeypatch,
        capsys,
        "guard",
        "fit",
        "model.onnx",
        "clean.npy",
        "--guard",
        "smoothness",
        "--out",
        "fitted",
        *options,
        "--json",
    )
    assert code == 0
    assert json.loads(text)["num_calibration"] == 50
    assert (folder / "fitted" / ARRAYS_FILE).read_bytes() == (
        folder / "guard" / ARRAYS_FILE
    ).read_bytes()
    judge = ["guard", "judge", "fitted", "model.onnx", "images.npy"]
    code, text, _ = run(monkeypatch, capsys, *judge, "--json", "--out", "verdicts.parquet")
    answer, judged = json.loads(text), guard.judge(np.load("images.npy"))
    assert code == 0
    assert [row["pvalue"] for row in answer["inputs"]] == judged.pvalue.tolist()
    assert [row["wobbliness"] for row in answer["inputs"]] == judged.wobbliness.tolist()
    assert [row["agrees"] for row in answer["inputs"]] == judged.agrees.tolist()
    written = pd.read_parquet("verdicts.parquet")
    assert written.drop(columns="name").equals(judged.frame()), "the column is an addition"
    assert (
        written["name"].tolist()
        == [row["name"] for row in answer["inputs"]]
        == [str(row) for row in range(len(judged))]
    )
    assert judged.frame(tuple(written["name"])).equals(written)
    with pytest.raises(ValueError, match="names, one for each input"):
        judged.frame(["one"])
    code, text, _ = run(monkeypatch, capsys, *judge, "--quick", "--json", "--out", "quick.csv")
    quick = json.loads(text)
    assert [row["is_suspicious"] for row in quick["inputs"]] == guard.judge_quickly(
        np.load("images.npy")
    ).is_suspicious.tolist()
    assert 0 < quick["mean_draws"] < quick["most_draws"] == 100
    assert list(pd.read_csv("quick.csv").columns) == ["input", "is_suspicious", "draws", "name"]


def test_verdicts_name_the_pictures(monkeypatch, capsys, guard, folder):
    (folder / "inbox").mkdir()
    for index, image in enumerate(np.load("images.npy")[:20]):
        Image.fromarray((image[0] * 255).astype(np.uint8)).save(
            folder / "inbox" / f"picture {index:02d}.png"
        )
    (folder / "inbox" / "picture 00.png").rename(
        os.fsdecode(os.fsencode(folder / "inbox") + b"/\xe9.png")
    )
    loose = copy.copy(guard).set_params(false_positive_rate=0.9)  # so that many are listed
    wobbliness.save_guard(loose, "loose")
    judge = ["guard", "judge", "loose", "model.onnx", "inbox"]
    expected = [*(f"picture {index:02d}.png" for index in range(1, 20)), "\\xe9.png"]
    for quick in ((), ("--quick",)):
        code, text, _ = run(monkeypatch, capsys, *judge, *quick, "--json", "--out", "verdicts.csv")
        rows = json.loads(text)["inputs"]
        assert (
            code,
            [row["name"] for row in rows],
            pd.read_csv("verdicts.csv")["name"].tolist(),
        ) == (0, expected, expected)
        code, text, _ = run(monkeypatch, capsys, *judge, *quick)
        suspicious = {row["name"] for row in rows if row["is_suspicious"]}
        assert suspicious
        assert all((name in text) == (name in suspicious) for name in expected)


@pytest.mark.usefixtures("folder")
def test_commands_print_for_people(monkeypatch, capsys):
    code, text, _ = run(
        monkeypatch,
        capsys,
        "guard",
        "fit",
        "model.onnx",
        "clean.npy",
        "--guard",
        "smoothness",
        "--out",
        "guard",
        "--draws",
        20,
    )
    assert code == 0
    assert "50 for calibration" in text
    for extra in ([], ["--quick"]):
        code, text, _ = run(
            monkeypatch, capsys, "guard", "judge", "guard", "model.onnx", "images.npy", *extra
        )
        assert code == 0
        assert "of 60 inputs are suspiciously smooth" in text


BAD_CALLS = {
    "too few clean inputs": (
        "fit",
        "model.onnx",
        "clean.npy",
        "--out",
        "guard",
        "--false-positive-rate",
        "0.001",
    ),
    "a foreign folder": ("fit", "model.onnx", "clean.npy", "--out", "."),
    "missing inputs": ("fit", "model.onnx", "none.npy", "--out", "guard"),
    "missing guard": ("judge", "none", "model.onnx", "images.npy"),
    "odd output": ("judge", "none", "model.onnx", "images.npy", "--out", "verdicts.xlsx"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_get_one_line_and_write_nothing(monkeypatch, capsys, folder, name):
    before = sorted(folder.rglob("*"))
    code, out, err = run(monkeypatch, capsys, "guard", *BAD_CALLS[name])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: expected ")
    assert sorted(folder.rglob("*")) == before


def test_help_has_an_example_each_and_the_defaults_of_the_library(monkeypatch, capsys):
    for command in ("fit", "judge"):
        code, text, _ = run(monkeypatch, capsys, "guard", command, "--help")
        assert code == 0
        assert f"Example: wobbliness guard {command}" in " ".join(text.replace("│", " ").split())
    kinds = (wobbliness.SmoothnessGuard, wobbliness.ProfileGuard)
    defaults = [inspect.signature(of).parameters["draws"].default for of in kinds]
    assert defaults == [guard_cli.SMOOTHNESS_DRAWS, guard_cli.PROFILE_DRAWS]
    assert re.findall(r"\d\.\d+", guard_cli.SMOOTHNESS_SIGMAS) == list(map(str, DEFAULT_SIGMAS))


def test_a_guard_that_was_never_finished_refuses_no_other(monkeypatch, capsys, folder):
    (folder / "half").mkdir()
    (folder / "half" / ARRAYS_FILE).write_bytes(b"half")
    (folder / "half" / f".123-{ARRAYS_FILE}").write_bytes(b"")
    fit = ["guard", "fit", "model.onnx", "clean.npy", "--draws", 20, "--out", "half"]
    code, *_ = run(monkeypatch, capsys, *fit)
    assert code == 0
    (folder / "half" / SETTINGS_FILE).unlink()
    (folder / "half" / "mine.txt").touch()
    code, *_ = run(monkeypatch, capsys, *fit)
    assert code == 2, "control: a folder with something else in it"


def test_a_folder_that_is_missing_is_said_to_be(tmp_path):
    with pytest.raises(
        ValueError, match=r"^expected a guard's file .*guard\.json, which does not exist$"
    ):
        wobbliness.load_guard(tmp_path / "nosuch", None)
