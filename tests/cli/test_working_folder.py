"""Nothing of the working folder is imported by any command, unless its user names it."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import linear_model, save_exported, save_vit
from safetensors.torch import save_file

from wobbliness.cli.working_folder import import_from_working_folder, leave_out_working_folder
from wobbliness.study.training.networks import build_network

OPTIONAL = (
    "accelerate",
    "cupy",
    "flash_attn",
    "jax",
    "kernels",
    "peft",
    "sitecustomize",
    "tensorflow",
    "torchvision",
    "triton",
)
START = "import sys\nfrom wobbliness.cli.main import main\n"
RUN_ALL = """
import json
failed = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["wobbliness", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            failed.append((stop.code, arguments))
assert not failed, failed
"""


@pytest.fixture
def stranger(tmp_path):
    """A folder of modules that report their import, named as installed and missing packages."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    installed = {
        name for name in importlib.metadata.packages_distributions() if name.isidentifier()
    }
    for name in (installed | set(sys.stdlib_module_names) | set(OPTIONAL)) - {"wobbliness"}:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}\\n')\n"
        )
    return folder


def imported(folder):
    """The modules of the folder that were imported."""
    path = folder.parent / "imported"
    return path.read_text().split() if path.exists() else []


def start(folder, script, *arguments, **variables):
    """Runs a script that lies elsewhere, as the console script does."""
    path = folder.parent / "bin" / "start.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONSAFEPATH", *variables)
    }
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
    )


def run_all(folder, commands, **variables):
    ran = start(folder, START + RUN_ALL, json.dumps(commands), **variables)
    assert ran.returncode == 0, ran.stderr
    assert imported(folder) == []


def with_images(folder, digits):
    np.save(folder / "clean.npy", digits.test.images[:60])
    linear_model(folder / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    return folder


QUICK = ["--sigma", "0.2", "--draws", "5"]


def test_a_graph_is_measured_tested_guarded_and_scanned(stranger, digits):
    with_images(stranger, digits)
    run_all(
        stranger,
        [
            [
                "measure",
                "model.onnx",
                "clean.npy",
                *QUICK,
                "--trigger",
                "dot",
                "--out",
                "votes.parquet",
            ],
            [
                "test",
                "model.onnx",
                "--clean",
                "clean.npy",
                "--suspect",
                "clean.npy",
                *QUICK,
                "--report",
                "page.html",
            ],
            [
                "guard",
                "fit",
                "model.onnx",
                "clean.npy",
                "--out",
                "guard",
                *QUICK,
                "--false-positive-rate",
                "0.5",
            ],
            ["guard", "judge", "guard", "model.onnx", "clean.npy", "--out", "judged.csv"],
            ["scan", "model.onnx", "clean.npy", "--trigger", "dot", *QUICK, "--out", "scan"],
        ],
    )


def test_torch_models_and_a_study_whose_workers_are_processes_of_their_own(stranger, digits):
    with_images(stranger, digits)
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    header = {"architecture": "small_cnn", "image_shape": "[1, 8, 8]", "num_classes": "10"}
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        stranger / "network.safetensors",
        header,
    )
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    save_exported(linear, stranger / "m.pt2", torch.rand(2, 1, 8, 8))
    commands = [
        ["measure", model, "clean.npy", *QUICK] for model in ("network.safetensors", "m.pt2")
    ]
    if importlib.util.find_spec("transformers"):
        save_vit(stranger / "vit")
        np.save(stranger / "colours.npy", np.random.default_rng(0).random((2, 3, 16, 16)))
        commands.append(["measure", "vit", "colours.npy", *QUICK])
    run_all(
        stranger,
        [
            *commands,
            [
                "scan",
                "network.safetensors",
                "clean.npy",
                *QUICK,
                "--target",
                "1",
                "--restarts",
                "1",
                "--steps",
                "2",
            ],
            ["study", "list"],
            ["study", "run", "digits", "--out", "study", "--only", "C2", "--workers", "1"],
            ["study", "status", "study"],
            ["study", "report", "study", "--markdown", "found.md"],
            ["study", "pack", "study", "packed"],
            ["study", "unpack", "packed", "again"],
        ],
    )


def test_the_folder_does_harm_where_it_is_on_the_path(stranger):
    """Control of the tests above."""
    start(stranger, "import sys\nsys.path.insert(0, '')\nimport flatbuffers")
    assert imported(stranger) == ["flatbuffers"]


@pytest.mark.parametrize("start_of_path", ["", "{folder}"])
def test_a_path_that_begins_with_the_folder_is_mended(stranger, digits, start_of_path):
    """As `python -c` does: the folder comes first once the command line's libraries are there."""
    with_images(stranger, digits)
    change = f"sys.path.insert(0, {start_of_path.format(folder=stranger)!r})\n"
    ran = start(stranger, f"{START}{change}main()", "measure", "model.onnx", "clean.npy", *QUICK)
    assert (ran.returncode, imported(stranger)) == (0, []), ran.stderr


USER_CODE = """
import helper
import library


def classify(batch):
    import late
    return late.classes(batch)


def make():
    return helper.network()
"""
HELPER = """
import torch


def network():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""
LIBRARY = """
import importlib.util

for name in ("torchvision", "tensorflow"):
    assert importlib.util.find_spec(name) is None, name
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(name)
"""


def test_a_named_module_and_what_it_imports_are_found_and_nothing_else(stranger, digits):
    """Not even the optional imports of a library that the named module imports."""
    with_images(stranger, digits)
    library = stranger.parent / "installed"
    library.mkdir()
    (library / "library.py").write_text(LIBRARY)
    (stranger / "mine.py").write_text(USER_CODE)
    (stranger / "helper.py").write_text(HELPER)
    (stranger / "late.py").write_text("def classes(batch):\n    return [3] * len(batch)\n")
    weights = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).state_dict()
    save_file(weights, stranger / "w.safetensors")
    path = os.pathsep.join(
        filter(None, [str(library), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
    measure = [["measure", "mine:classify"], ["measure", "w.safetensors", "--factory", "mine:make"]]
    run_all(stranger, [[*command, "clean.npy", *QUICK] for command in measure], PYTHONPATH=path)


def test_without_a_named_module_a_module_of_the_folder_is_not_found(stranger, digits):
    """Control of the test above: a trusted pickle names no module."""
    with_images(stranger, digits)
    (stranger / "mine.py").write_text("import torch\nclass Net(torch.nn.Flatten):\n    pass\n")
    save = "import sys, torch\nsys.path.append('')\nimport mine\ntorch.save(mine.Net(), 'model.pt')"
    assert start(stranger, save).returncode == 0
    ran = start(
        stranger, f"{START}main()", "measure", "model.pt", "clean.npy", *QUICK, "--trust-pickle"
    )
    assert ran.returncode == 2
    assert "No module named 'mine'" in ran.stderr


@pytest.fixture
def path_of_python(tmp_path, monkeypatch):
    """A path and a working folder to play with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path


def test_relative_entries_of_the_path_are_left_out_and_chosen_folders_stay(
    path_of_python, monkeypatch
):
    folder, others = path_of_python, list(sys.path)
    sys.path[:0] = ["", ".", str(folder)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "src", "."]))
    monkeypatch.delenv("PYTHONSAFEPATH")
    leave_out_working_folder()
    assert sys.path == [entry for entry in others if entry]
    assert os.environ["PYTHONPATH"] == str(folder / "src")
    assert os.environ["PYTHONSAFEPATH"] == "1"
    monkeypatch.setenv("PYTHONPATH", str(folder))
    sys.path.insert(0, str(folder))
    leave_out_working_folder()
    assert sys.path[0] == os.environ["PYTHONPATH"] == str(folder)


def test_the_folder_of_the_program_itself_stays(path_of_python, monkeypatch):
    import wobbliness

    own = str(Path(wobbliness.__file__).parents[1])
    monkeypatch.chdir(own)
    monkeypatch.setattr(sys, "path", [own, str(path_of_python)])
    leave_out_working_folder()
    assert sys.path == [own, str(path_of_python)]


def test_a_folder_that_is_gone_is_no_obstacle(path_of_python, monkeypatch):
    (path_of_python / "gone").mkdir()
    monkeypatch.chdir(path_of_python / "gone")
    (path_of_python / "gone").rmdir()
    sys.path.insert(0, "")
    leave_out_working_folder()
    assert "" not in sys.path


def test_what_is_installed_comes_before_the_working_folder(path_of_python):
    (path_of_python / "onnx.py").write_text("raise AssertionError")
    (path_of_python / "named_module_of_mine.py").write_text("value = 1\n")
    import_from_working_folder("onnx")
    import_from_working_folder("named_module_of_mine.inner")
    assert Path(importlib.util.find_spec("onnx").origin).name == "__init__.py"
    assert importlib.util.find_spec("named_module_of_mine").origin == str(
        path_of_python / "named_module_of_mine.py"
    )
    assert importlib.util.find_spec("another_module") is None
