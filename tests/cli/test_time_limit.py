"""A step that never ends is ended, whoever holds the GIL; what is done in time is not touched."""

import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import run
from model_files import endless_steps, linear_model

from wobbliness.cli.time_limit import time_limit

LIMIT, SLACK = 3, 6  # seconds; the second for a busy machine
LINE = "error: expected to be done within the time limit of 3 s, and was not: ended\n"
MODELS = """
import re, time

def sleeps(images):
    time.sleep(1000)

def holds_the_gil(images):
    # one call of C that lets no other thread run: comparing takes as long as all of its products
    sum(range(10**13))

class Opening:
    def __getattr__(self, name):
        time.sleep(1000)

def in_a_thread(images):
    import threading
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return [0] * len(images)
"""


@pytest.fixture
def folder(tmp_path, images):
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    endless_steps(tmp_path / "endless.onnx")
    np.save(tmp_path / "images.npy", images[:40])
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "never_imported.py").write_text("import time\ntime.sleep(1000)\n")
    return tmp_path


def ended(folder, *arguments):
    """Exit code, output and seconds of a command with a limit of three seconds."""
    before = time.monotonic()
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from wobbliness.cli.main import main; main()",
            *arguments,
            "--time-limit",
            str(LIMIT),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr, time.monotonic() - before


@pytest.mark.parametrize(
    "model", ["endless.onnx", "models:sleeps", "models:holds_the_gil", "never_imported:classify"]
)
def test_a_model_that_never_answers_is_ended(folder, model):
    code, out, err, seconds = ended(
        folder, "measure", model, "images.npy", "--sigma", "0.1", "--num-classes", "64"
    )
    assert (code, out, err) == (1, "", LINE)
    assert LIMIT <= seconds < LIMIT + SLACK


@pytest.mark.parametrize(
    "arguments",
    [
        ("test", "models:sleeps", "--clean", "images.npy", "--suspect", "images.npy"),
        ("scan", "models:sleeps", "images.npy", "--trigger", "dot"),
        ("guard", "fit", "models:sleeps", "images.npy", "--out", "guard"),
    ],
)
def test_every_command_takes_a_limit(folder, arguments):
    code, out, err, _ = ended(folder, *arguments, "--num-classes", "4")
    assert (code, out, err) == (1, "", LINE)
    assert not (folder / "guard").exists()


def test_what_is_done_in_time_is_as_without_a_limit(monkeypatch, capsys, folder):
    arguments = ("measure", folder / "model.onnx", folder / "images.npy", "--sigma", 0.1, "--json")
    free, limited = (
        run(monkeypatch, capsys, *arguments, *limit) for limit in ((), ("--time-limit", 600))
    )
    assert free == limited
    assert free[0] == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300"])
def test_bad_limits(monkeypatch, capsys, folder, seconds):
    arguments = (
        "measure",
        folder / "model.onnx",
        folder / "images.npy",
        "--sigma",
        0.1,
        "--time-limit",
        seconds,
    )
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_error_in_time_is_that_error():
    with pytest.raises(KeyError), time_limit(100):
        raise KeyError
