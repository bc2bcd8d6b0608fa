"""Fuzzing of files and arguments: one line each, no traceback, no unfinished output."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_readers import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_files import linear_model
from PIL import Image
from readers import READERS
from small_study import small

from wobbliness.cli import main as cli
from wobbliness.study.running.ownership import take_ownership

MOST = 40  # damaged files of each reader
FEW = {"exported program": 5, "hub folder": 5}  # they are slow
EXAMPLES = int(os.environ.get("WOBBLINESS_FUZZ_EXAMPLES", "10"))  # of each command, at scale


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_every_reader_reads_or_refuses_damaged_files():
    found = fuzz({name: FEW.get(name, MOST) for name in READERS}, seed=1)
    assert {row.reader: row.crashes for row in found if row.crashes} == {}
    assert [row.reader for row in found if row.accepted + row.refused != row.inputs] == []
    assert all(row.refused for row in found), "the damages do damage"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_planted_faults_are_found(monkeypatch):
    """Control of the test above."""
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join(
            [str(Path(__file__).parents[1] / "helpers"), os.environ.get("PYTHONPATH", "")]
        ),
    )
    names = [
        f"planted_readers:{name}" for name in ("GOOD", "CRASHING", "ALLOCATING", "LEAVING", "DYING")
    ]
    found = fuzz(dict.fromkeys(names, 6), seed=0)
    assert [sorted(row.crashes) for row in found] == [
        [],
        ["KeyError: 'height'"],
        ["MemoryError: "],
        ["left half"],
        ["SIGABRT"],
    ]
    assert all(row.accepted + row.refused + row.num_crashes == row.inputs for row in found)


WORDS = [
    "",
    " ",
    "é☃",
    "x" * 300,
    "missing.npy",
    "folder",
    "..",
    "-1",
    "nan",
    "broken.npy",
    "empty.png",
    "a:b",
    ":",
    "hf:",
    "hf:x[",
]
MODELS = ["model.onnx", "sevens:classify"]
IMAGES = ["images.npy", "picture.png", "two.npz"]
NUMBERS = [
    "",
    "x",
    "-1",
    "0",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "0x1",
    "1_0",
    "99999999999999999999",
]
SIGMAS, DRAWS, SMALL = ["0.1", "0.3"], ["2", "5"], ["1", "2"]
OUTPUTS = [
    "new.csv",
    "new.parquet",
    "new",
    "new.txt",
    "folder",
    "folder/new",
    "none/new.csv",
    "images.npy",
    "new.md",
    "none/x/y",
]
FLAG = [None]
MODEL_OPTIONS = {
    "--num-classes": ["4", "8", *NUMBERS],
    "--factory": ["collections:OrderedDict", *WORDS],
    "--layout": ["nchw", "nhwc", *WORDS],
    "--trust-pickle": FLAG,
    "--device": ["cpu", "mps", "meta", *WORDS],
    "--column": ["good", *WORDS],
    "--resize": FLAG,
    "--json": FLAG,
}
SEED = {"--seed": ["0", "7", *NUMBERS]}
FEW_DRAWS = {"--draws": [*DRAWS, "", "x", "-1", "0", "nan"]}
LEVEL = ["0.05", "0.2", *NUMBERS]
COMMANDS = {
    "measure": (
        [MODELS, IMAGES],
        {"--sigma": SIGMAS, "--draws": ["5"]},
        MODEL_OPTIONS
        | SEED
        | FEW_DRAWS
        | {
            "--sigma": [*SIGMAS, *NUMBERS],
            "--label-column": ["labels", *WORDS],
            "--trigger": ["dot", "picture.png", *WORDS],
        }
        | {
            "--out": OUTPUTS,
            "--check-repeatable": FLAG,
            "--engine": ["local", *WORDS],
            "--address": WORDS,
        },
    ),
    "test": (
        [MODELS],
        {"--clean": IMAGES, "--suspect": IMAGES, "--draws": ["5"]},
        MODEL_OPTIONS
        | SEED
        | FEW_DRAWS
        | {
            "--sigma": [*SIGMAS, *NUMBERS],
            "--level": LEVEL,
            "--suspect": [*IMAGES, *WORDS],
            "--fail-on-trigger": FLAG,
        }
        | {"--report": ["new.html", *OUTPUTS]},
    ),
    "scan": (
        [MODELS, IMAGES],
        {"--trigger": ["dot"], "--draws": ["5"], "--steps": ["1"], "--restarts": ["1"]},
        MODEL_OPTIONS
        | SEED
        | FEW_DRAWS
        | {
            "--trigger": ["dot", "picture.png", *WORDS],
            "--target": ["0", "3", *NUMBERS],
            "--sigma": [*SIGMAS, *NUMBERS],
        }
        | {"--level": LEVEL, "--steps": NUMBERS[:-1], "--restarts": NUMBERS[:-1], "--out": OUTPUTS},
    ),
    "guard fit": (
        [MODELS, IMAGES],
        {"--out": ["new"], "--draws": ["5"]},
        MODEL_OPTIONS
        | SEED
        | FEW_DRAWS
        | {
            "--sigma": [*SIGMAS, *NUMBERS],
            "--false-positive-rate": ["0.3", "0.5", *NUMBERS],
            "--guard": ["profile", "smoothness", *WORDS],
            "--scores": ["logits", *WORDS],
            "--out": OUTPUTS,
        },
    ),
    "guard judge": (
        [["guard", "guard", "folder", "new", *WORDS], MODELS, IMAGES],
        {},
        MODEL_OPTIONS | {"--out": OUTPUTS, "--quick": FLAG, "--report": ["new.html", *OUTPUTS]},
    ),
    "study list": ([], {}, {"--json": FLAG}),
    "study run": (
        [["digits", "sevens.py:classify", "none.py:x", ".py:", *WORDS]],
        {"--out": ["new"], "--only": ["C99", "", ",", "C1,C99", "é"]},
        SEED
        | {
            "--out": OUTPUTS,
            "--workers": NUMBERS,
            "--cell-timeout": NUMBERS,
            "--engine": ["local", *WORDS],
        }
        | {"--retry": FLAG, "--address": WORDS, "--store": WORDS, "--json": FLAG}
        | {"--device": ["cpu", "mps", "meta", *WORDS], "--autocast": FLAG},
    ),
    "study status": ([["study", "folder", *WORDS]], {}, {"--json": FLAG}),
    "study report": (
        [["folder", "images.npy", *WORDS]],
        {},
        {"--markdown": OUTPUTS, "--json": FLAG},
    ),
    "study pack": ([["study", "folder", *WORDS], OUTPUTS], {}, {}),
    "study unpack": ([["study", "folder", *WORDS], OUTPUTS], {}, {"--json": FLAG}),
    "bench --network x": (  # one that it knows would take minutes
        [],
        {},
        {
            "--repeats": ["1", *NUMBERS],
            "--device": ["cpu", *WORDS],
            "--scale": ["0.001", *NUMBERS],
            "--json": FLAG,
        },
    ),
}


@st.composite
def arguments_of(draw, command):
    """Mostly what the command takes, some of it hostile, doubled, unknown or missing."""
    positional, needed, options = COMMANDS[command]
    rarely = st.integers(0, 7).map(lambda number: number == 0)
    words = command.split()
    for known in positional:
        if not draw(rarely):
            words.append(draw(st.sampled_from(WORDS if draw(rarely) else known)))
    chosen = [
        (name, draw(st.sampled_from(values))) for name, values in needed.items() if not draw(rarely)
    ]
    for name in draw(st.lists(st.sampled_from(sorted(options)), max_size=3)) if options else ():
        chosen.append((name, draw(st.sampled_from(options[name]))))
    words += [
        word for name, value in chosen for word in ((name,) if value is None else (name, value))
    ]
    if draw(rarely):
        words.insert(
            draw(st.integers(1, len(words))),
            draw(st.sampled_from(["--unknown", "-x", "--", "--seed", "--json=1", "--out="])),
        )
    return words


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    linear_model(folder / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    images = np.random.default_rng(1).random((40, 1, 8, 8), np.float32)
    np.save(folder / "images.npy", images)
    np.savez(folder / "two.npz", good=images, labels=np.zeros(len(images), np.int64))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "picture.png")
    (folder / "sevens.py").write_text("def classify(batch):\n    return [7] * len(batch)\n")
    (folder / "broken.npy").write_bytes(b"\x93NUMPY nothing")
    (folder / "empty.png").touch()
    take_ownership(folder / "study", small())
    (folder / "folder").mkdir()
    (folder / "folder" / "notes").write_text("someone's")
    with contextlib.chdir(folder):
        fit = "guard fit model.onnx images.npy --out guard --sigma 0.3 --draws 5"
        fit += " --false-positive-rate 0.5"
        assert run(fit.split())[0] == 0
    return folder


def run(words):
    """Exit code and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["wobbliness", *words])
        patch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return stopped.value.code or 0, err.getvalue()


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def check(words, inputs):
    """Runs a command in a copy of the inputs."""
    with (
        tempfile.TemporaryDirectory() as made,
        contextlib.chdir(shutil.copytree(inputs, Path(made) / "here")),
    ):
        before = files_of(Path(made))
        code, err = run(words)
        left = {
            str(path)
            for path, content in files_of(Path(made)).items()
            if before.get(path) != content
        }
    lines = err.splitlines()
    assert code in (0, 1, 2, 3), err
    assert "Traceback" not in err
    if code in (1, 2):
        assert lines, "an error says what it is"
        assert lines[-1].startswith("error: ")
        assert all(line.startswith("warning: ") for line in lines[:-1]), err
        assert {path for path in left if "__pycache__" not in path} == set(), err
    return code


@pytest.mark.parametrize("examples", [3, pytest.param(EXAMPLES, marks=pytest.mark.scale)])
@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_never_end_in_a_traceback_or_half_an_output(command, examples, inputs):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(arguments_of(command))
    def runs(words):
        check(words, inputs)

    runs()


def test_plain_arguments_are_accepted(inputs):
    """Control of the test above."""
    for command, extra in (
        ("measure", []),
        ("test", ["--sigma", "0.3"]),
        ("scan", ["--sigma", "0.3"]),
        ("guard fit", ["--false-positive-rate", "0.5"]),
        ("guard judge", []),
    ):
        positional, needed, _ = COMMANDS[command]
        words = [*command.split(), *(known[0] for known in positional)]
        words += [word for name, values in needed.items() for word in (name, values[0])]
        assert check([*words, *extra], inputs) == 0, command
