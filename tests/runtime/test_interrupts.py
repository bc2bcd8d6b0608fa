"""Ctrl-C, whenever it comes: one line, exit code 130, within two seconds."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from model_files import endless_steps, linear_model
from small_study import hear_interrupts

from wobbliness.runtime.interrupts import clean_interrupts

SLACK_SECONDS = 2.0  # for a busy machine, on top of the two seconds that are stated

AT_IMPORT = """
import os, signal, sys
sys.argv = ["/somewhere/wobbliness", "--help"]
class Interrupting:
    def find_spec(name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
from wobbliness.cli.main import main
main()
"""
IN_A_CALLBACK = """
import gc, os, signal, sys, time, weakref
from wobbliness.runtime.interrupts import clean_interrupts
class Thing:
    pass
with clean_interrupts():
    thing = Thing()
    noted = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)))
    del thing
    time.sleep(10)
"""
AT_EXIT = """
import atexit, os, signal, sys
sys.argv = ["wobbliness", "study", "list"]
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
from wobbliness.cli.main import main
main()
"""
SLOW = """
import hashlib, pathlib
def classify(images):
    pathlib.Path("started").touch()
    # minutes in one call of C, in which Python runs no handler
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
PATIENT = """
import pathlib, time
def classify(images):
    pathlib.Path("started").touch()
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        raise ValueError("of the model's own making")
"""


@pytest.fixture
def folder(tmp_path, images):
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    endless_steps(tmp_path / "endless.onnx")
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "patient.py").write_text(PATIENT)
    return tmp_path


def started(folder, *arguments):
    call = "from wobbliness.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", call, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=hear_interrupts,
    )


@pytest.mark.parametrize(
    "name",
    ["lazy_loader", "typer", "wobbliness.cli.app", "wobbliness.runtime.interrupts", "rich.console"],
)
def test_while_the_command_is_loaded(name):
    ran = subprocess.run(
        [sys.executable, "-c", AT_IMPORT.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (130, "interrupted\n")


def test_in_a_callback_that_nobody_can_catch_from():
    """Python's own import system has such callbacks."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (130, "interrupted\n")


def test_a_library_in_another_program_leaves_its_handler_alone():
    code = "import signal, wobbliness\n"
    code += "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "True\n"
    )


def test_at_the_end_of_the_process():
    ran = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (130, "interrupted\n")
    assert "digits" in ran.stdout


@pytest.mark.parametrize("model", ["slow:classify", "endless.onnx", "patient:classify"])
def test_while_a_call_of_the_model_does_not_return(folder, model):
    process = started(
        folder, "measure", model, "images.npy", "--sigma", "0.1", "--num-classes", "64"
    )
    if model == "endless.onnx":
        time.sleep(4)
    else:
        while not (folder / "started").exists():
            time.sleep(0.05)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - before < 2 + SLACK_SECONDS
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_signals_are_as_before_where_nothing_was_interrupted():
    before = signal.getsignal(signal.SIGINT)
    with clean_interrupts():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
