"""Perturbations in a guard's folder: what is read is what was saved, and a stranger's is data."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from model_files import linear_model
from safetensors.numpy import load_file, save_file

import wobbliness
from wobbliness.detectors.guards.files import kept_perturbations
from wobbliness.detectors.guards.files.guard_files import ARRAYS_FILE, SETTINGS_FILE, _digest
from wobbliness.detectors.guards.files.kept_perturbations import read_perturbations
from wobbliness.perturbations import BoxMix, Custom, Gaussian, KeepBox, Scale, Superpose
from wobbliness.perturbations.find import perturbation_kinds
from wobbliness.perturbations.mixing.overlays import Overlays

DRAWS = 20


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits):
    """A model and arrays, and a guard that was fitted and saved beside them."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "arrays").mkdir()
    linear_model(folder / "arrays" / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    for name, first, last in (("overlays", 0, 30), ("clean", 30, 130), ("images", 130, 190)):
        np.save(folder / "arrays" / f"{name}.npy", digits.test.images[first:last])
    overlays = digits.test.images[:30]
    sigmas = (0.1, BoxMix(overlays), Scale(3, 5), Superpose(overlays, mix="sum"))
    guard = fit(*sigmas, folder=folder / "arrays")
    wobbliness.save_guard(guard, folder / "guard")
    return folder, guard


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy of the model and the arrays; the working folder."""
    shutil.copytree(files[0] / "arrays", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*sigmas, folder=Path()):
    guard = wobbliness.SmoothnessGuard(
        wobbliness.open_classifier(folder / "model.onnx"), sigmas=sigmas, draws=DRAWS
    )
    return guard.fit(np.load(folder / "clean.npy"))


@pytest.fixture
def guard(files, folder):
    """The fitted guard, with a copy of its folder beside the arrays."""
    shutil.copytree(files[0] / "guard", folder / "guard")
    return files[1]


def test_a_loaded_guard_is_the_one_that_was_saved(guard, folder):
    images = np.load("images.npy")
    loaded = wobbliness.load_guard(folder / "guard", guard.classifier)
    assert loaded.sigmas == guard.sigmas
    assert loaded.judge(images).frame().equals(guard.judge(images).frame())
    quick = [made.judge_quickly(images) for made in (loaded, guard)]
    assert quick[0].frame().equals(quick[1].frame())
    wobbliness.save_guard(loaded, folder / "again")
    for name in (SETTINGS_FILE, ARRAYS_FILE):
        assert (folder / "again" / name).read_bytes() == (folder / "guard" / name).read_bytes()
    arrays = load_file(folder / "guard" / ARRAYS_FILE)
    assert [name for name in arrays if name.startswith("overlays")] == ["overlays_0"], "once"
    assert np.array_equal(arrays["overlays_0"], np.load("overlays.npy"))


@pytest.mark.usefixtures("folder")
def test_a_guard_of_noise_alone_has_the_files_of_before(tmp_path):
    for name, sigmas in (("numbers", (0.1, 0.3)), ("objects", (Gaussian(0.1), Gaussian(0.3)))):
        wobbliness.save_guard(fit(*sigmas), tmp_path / name)
    contents = [(tmp_path / name / SETTINGS_FILE).read_bytes() for name in ("numbers", "objects")]
    assert contents[0] == contents[1]
    assert list(json.loads(contents[0])) == [
        *("kind", "schema_version", "sigmas", "draws", "false_positive_rate", "error_rate"),
        *("seed", "num_classes", "image_shape", "model", "model_digest", "arrays"),
        "preprocessing",
    ]
    assert json.loads(contents[0])["sigmas"] == [0.1, 0.3]
    assert set(load_file(tmp_path / "numbers" / ARRAYS_FILE)) == {
        *("reference_wobbliness", "reference_label", "calibration", "smooth_pvalues")
    }


class Shifted(Scale):
    """A family of one's own."""


@dataclasses.dataclass(frozen=True)
class Odd:
    """Another one."""

    name: str = "odd"

    def copies(self, _stream, image, _draws, out):
        out[:] = 1 - image


@pytest.mark.parametrize(
    "made", [Custom(lambda image, _: image, name="mine"), Odd(), Shifted(3, 5)]
)
def test_code_of_ones_own_cannot_be_kept(made, folder):
    guard = fit(made)
    with pytest.raises(
        ValueError, match=f"^expected perturbations of this package, .* got {made.name}$"
    ):
        wobbliness.save_guard(guard, folder / "guard")
    assert not (folder / "guard").exists()


def test_too_many_overlays_cannot_be_kept(monkeypatch, guard, folder):
    monkeypatch.setattr(kept_perturbations, "MAX_OVERLAY_VALUES", 30 * 64 - 1)
    for call in (
        lambda: wobbliness.save_guard(guard, folder / "other"),
        lambda: wobbliness.load_guard(folder / "guard", guard.classifier),
    ):
        with pytest.raises(ValueError, match="expected overlays of at most 1919 values, got 1920"):
            call()
    monkeypatch.setattr(kept_perturbations, "MAX_OVERLAY_VALUES", 30 * 64)
    wobbliness.save_guard(guard, folder / "other")
    wobbliness.load_guard(folder / "other", guard.classifier)


def change(folder, **changes):
    """Changes settings; `...` takes one away."""
    content = json.loads((folder / SETTINGS_FILE).read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not ...}
    (folder / SETTINGS_FILE).write_text(json.dumps(kept))


def describe(folder, row, **changes):
    """Changes the description of a perturbation."""
    described = json.loads((folder / SETTINGS_FILE).read_text())["perturbations"]
    described[row] |= changes
    change(folder, perturbations=described)


def set_up(folder, row, **settings):
    """Changes settings of a perturbation, and leaves its name."""
    described = json.loads((folder / SETTINGS_FILE).read_text())["perturbations"]
    describe(folder, row, settings=described[row]["settings"] | settings)


def change_overlays(folder, overlays, name="overlays_0"):
    """Overlays that the settings vouch for."""
    arrays = load_file(folder / ARRAYS_FILE)
    save_file(arrays | {name: np.ascontiguousarray(overlays)}, folder / ARRAYS_FILE)
    change(folder, arrays=_digest((folder / ARRAYS_FILE).read_bytes()))


def overlays_with(value, dtype=np.float32, shape=(30, 1, 8, 8)):
    made = np.full(shape, 0.5, dtype)
    made.flat[7] = value
    return made


def nested(depth):
    made = 0.5
    for _ in range(depth):
        made = [made]
    return made


DAMAGES = {
    "an unknown kind": lambda f: describe(f, 1, kind="os.system"),
    "a module as kind": lambda f: describe(f, 1, kind="wobbliness.perturbations.custom"),
    "a kind of numbers": lambda f: describe(f, 1, kind=3),
    "a kind that is no text": lambda f: describe(f, 1, kind=["box-mix"]),
    "a function": lambda f: describe(
        f, 1, kind="custom", name="mine", settings={"function": "os.system", "name": "mine"}
    ),
    "another family's settings": lambda f: describe(f, 1, kind="affine"),
    "no settings": lambda f: describe(f, 1, settings={}),
    "settings of a list": lambda f: describe(f, 1, settings=[1]),
    "a setting too many": lambda f: set_up(f, 1, seed=3),
    "a setting out of range": lambda f: set_up(f, 1, largest=7.0),
    "a setting of text": lambda f: set_up(f, 1, smallest="small"),
    "a setting of nothing": lambda f: set_up(f, 1, smallest=None),
    "another setting": lambda f: set_up(f, 1, smallest=0.2),
    "an infinite setting": lambda f: (f / SETTINGS_FILE).write_text(
        (f / SETTINGS_FILE).read_text().replace("0.36", "1e999", 1)
    ),
    "a setting beyond floats": lambda f: set_up(f, 1, smallest=10**400),
    "a long text": lambda f: set_up(f, 3, mix="m" * 10**4),
    "a ladder of text": lambda f: set_up(f, 2, factors=["three"]),
    "a ladder that is none": lambda f: set_up(f, 2, factors=3),
    "a ladder without end": lambda f: set_up(f, 2, factors=list(range(10**4))),
    "settings nested deeply": lambda f: set_up(f, 2, factors=nested(300)),
    "a name of others": lambda f: describe(f, 1, name="box-mix-0.36-0.82-00000000"),
    "no name": lambda f: describe(f, 1, name=None),
    "a description too many": lambda f: describe(f, 1, extra=1),
    "a description of text": lambda f: change(f, perturbations=[None, "box-mix", None, None]),
    "no list": lambda f: change(f, perturbations={"kind": "box-mix"}),
    "too few": lambda f: change(f, perturbations=[None]),
    "too many": lambda f: change(f, perturbations=[None] * 10**5),
    "a sigma, too": lambda f: change(f, sigmas=[0.1, 0.2, None, None]),
    "neither": lambda f: change(f, sigmas=[None] * 4),
    "none of them": lambda f: change(f, perturbations=...),
    "overlays that are not there": lambda f: set_up(f, 1, overlays={"overlays": "overlays_7"}),
    "overlays of another array": lambda f: set_up(f, 1, overlays={"overlays": "calibration"}),
    "overlays of a file": lambda f: set_up(f, 1, overlays="/etc/passwd"),
    "overlays as numbers": lambda f: set_up(f, 1, overlays=[[0.1, 0.2], [0.3, 0.4]]),
    "overlays for none": lambda f: change_overlays(f, overlays_with(0.1), name="overlays_1"),
    "other overlays": lambda f: change_overlays(f, overlays_with(0.1)),
    "NaN overlays": lambda f: change_overlays(f, overlays_with(np.nan)),
    "infinite overlays": lambda f: change_overlays(f, overlays_with(np.inf)),
    "overlays above 1": lambda f: change_overlays(f, overlays_with(1.5)),
    "overlays of another shape": lambda f: change_overlays(
        f, overlays_with(0, shape=(30, 1, 8, 9))
    ),
    "overlays of another rank": lambda f: change_overlays(f, overlays_with(0, shape=(30, 64))),
    "one overlay": lambda f: change_overlays(f, overlays_with(0, shape=(1, 1, 8, 8))),
    "overlays of doubles": lambda f: change_overlays(f, overlays_with(0, np.float64)),
    "overlays of integers": lambda f: change_overlays(f, overlays_with(0, np.int32)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_strangers_perturbation_is_refused(monkeypatch, capsys, guard, folder, name):
    DAMAGES[name](folder / "guard")
    with pytest.raises(ValueError, match=r"^expected a whole guard in .*, got |^expected strict"):
        wobbliness.load_guard(folder / "guard", guard.classifier)
    code, out, err = run(monkeypatch, capsys, "guard", "judge", "guard", "model.onnx", "images.npy")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: expected ")
    assert len(err) < 800


ODD = [
    None,
    True,
    -1,
    1e300,
    10**30,
    "",
    "x",
    [],
    [[0.1]],
    ["x"],
    [None],
    {"overlays": "overlays_0"},
]


@pytest.mark.parametrize("kind", sorted(perturbation_kinds()))
def test_odd_settings_of_any_family_are_read_or_refused(kind):
    """Never another error than ValueError; what is read says its settings by its name."""
    overlays = {"overlays_0": Overlays(np.random.default_rng(0).random((3, 1, 8, 8)))}
    names = [field.name for field in dataclasses.fields(perturbation_kinds()[kind])]
    for number in range(len(ODD) * len(names)):
        values = [
            ODD[(number + 5 * place * (number % 7)) % len(ODD)] for place in range(len(names))
        ]
        described = {"kind": kind, "name": "x", "settings": dict(zip(names, values, strict=True))}
        with pytest.raises(ValueError, match="."):
            read_perturbations([described], overlays)


def test_overlays_are_of_the_family_that_keeps_them(folder):
    """Two families share an array; two sets of overlays are two."""
    overlays = np.load("overlays.npy")
    guard = fit(BoxMix(overlays), KeepBox(overlays), KeepBox(overlays[:20], 0.1, 0.2))
    wobbliness.save_guard(guard, folder / "guard")
    arrays = load_file(folder / "guard" / ARRAYS_FILE)
    assert {name: len(arrays[name]) for name in arrays if name.startswith("overlays")} == {
        "overlays_0": 30,
        "overlays_1": 20,
    }
    assert wobbliness.load_guard(folder / "guard", guard.classifier).sigmas == guard.sigmas
