"""Errors of libraries in one line, and nothing else that libraries print by themselves."""

import json
import logging
import subprocess
import sys
import threading
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import run
from malicious_files import edit_program, nodes_of, rewritten
from model_files import save_exported
from onnx import TensorProto, helper
from onnx_graphs import graph_file

from wobbliness.runtime.errors import MAX_CHARACTERS, cause_of, condensed, reason_of
from wobbliness.runtime.quiet_libraries import logs_of, quiet_libraries

HELPER = "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:84"
SAID = {
    "a C++ constructor": (
        f"Status Message: {HELPER} "
        "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) "
        "size != 0 && (input_shape_size % size) == 0 was false.",
        "Status Message: size != 0 && (input_shape_size % size) == 0 was false.",
    ),
    "a C++ function of templates": (
        "[ONNXRuntimeError] : 1 : FAIL : a/load_utils.h:46 void onnxruntime::Validate("
        "const std::unordered_map<std::__cxx11::basic_string<char>, int>&, void (*)(int), bool)"
        " const [with T = float] Opset 99 (new) is under development",
        "Opset 99 (new) is under development",
    ),
    "a line of C++ alone": ("x.cc:12 Input(x) is bad", "Input(x) is bad"),
    "an address": ("cannot use <pkg.Thing object at 0x7f3a2b> here", "cannot use <pkg.Thing> here"),
    "a stream": (
        "cannot identify image file <_io.BytesIO object at 0x7f3a2b>",
        "cannot identify image file",
    ),
    "an installed file": (
        "no module in /home/me/.venv/lib/python3.11/site-packages/torch/x.py",
        "no module in torch/x.py",
    ),
    "colours": ("\x1b[1;31mred\x1b[m rose", "red rose"),
    "a class": ("torch._export.serde.serialize.SerializeError: no operator", "no operator"),
    "a colon": (
        "Error(s) in loading:\n\n\tMissing key(s):\n\t\tw\n\tMore",
        "Error(s) in loading: Missing key(s): w",
    ),
    "empty lines": ("\n\n  first\nsecond", "first"),
    "a traceback": (
        "broken\nTraceback (most recent call last):\n"
        '  File "a.py", line 3\n    x()\n    ^^^\nKey: the cause',
        "Key: the cause",
    ),
    "nothing": ("", "RuntimeError"),
    "only a traceback": ("Traceback (most recent call last):\n", "RuntimeError"),
}


@pytest.mark.parametrize("name", SAID)
def test_the_line_that_says_something_is_left(name):
    text, expected = SAID[name]
    assert reason_of(RuntimeError(text)) == expected


def test_plain_messages_stay_as_they_are():
    """Control of the test above."""
    for text in (
        "expected images (B, 3, H, W), got (2, 1, 8, 8)",
        "f(x) = a::b",
        "a < b > c",
        "at 0xZZ",
        "50 % [of] {all}: yes",
    ):
        assert condensed(text) == text


def test_long_and_hostile_texts_are_cut_in_no_time():
    for text in (
        "x" * 10**6,
        "a::b(" * 10**5,
        "a.cc:1 " * 10**5,
        "x.cc:1 " + "<a:: " * 10**5,
        "((" * 10**5 + "/site-packages/",
    ):
        assert len(condensed(text)) <= MAX_CHARACTERS
        assert "\n" not in reason_of(ValueError(text))


def test_an_error_that_cannot_speak_is_named():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert reason_of(Mute()) == cause_of(Mute()) == "Mute"
    assert cause_of(KeyError("x")) == reason_of(KeyError("x")) == "KeyError: 'x'"
    assert cause_of(ValueError("a\nb")) == "ValueError: a"


def constant(name, values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


BROKEN_GRAPHS = {
    "size that does not fit": (
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [constant("s", [-1, 7])],
    ),
    "index out of bounds": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gather", ["f", "s"], ["y"], axis=1),
        ],
        [constant("s", [999])],
    ),
    "operator of no version": ([helper.make_node("Frobnicate", ["x"], ["y"])], []),
    "input from nowhere": ([helper.make_node("MatMul", ["x", "nowhere"], ["y"])], []),
}
JUNK = ("\x1b", "::", ".cc", ".h:", "site-packages", "0x", "Traceback", "ONNXRuntimeError")


def check_one_line(captured, start="error: expected"):
    code, out, err = captured
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(start)
    assert not [junk for junk in JUNK if junk in err]
    return err


@pytest.mark.parametrize("name", BROKEN_GRAPHS)
def test_a_broken_graph_is_refused_in_one_line(name, tmp_path, monkeypatch, capfd):
    """Also on the file descriptor itself, which ONNX Runtime's own log is written to."""
    path = graph_file(tmp_path / "m.onnx", *BROKEN_GRAPHS[name])
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    check_one_line(
        run(monkeypatch, capfd, "measure", path, tmp_path / "x.npy", "--sigma", 0.1, "--draws", 5)
    )


def test_the_runtime_does_log_such_errors(tmp_path, capfd):
    """Control of the test above."""
    path = graph_file(tmp_path / "m.onnx", *BROKEN_GRAPHS["size that does not fit"])
    session = onnxruntime.InferenceSession(path)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session.run(None, {"x": np.zeros((2, 1, 8, 8), np.float32)})
    assert "\x1b[" in capfd.readouterr().err


def unknown_operator(program):
    nodes_of(program)[0]["target"] = "torch.ops.aten.frobnicate.default"


def no_arguments(program):
    nodes_of(program)[0]["inputs"] = []


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    return save_exported(
        module, tmp_path_factory.mktemp("archive") / "good.pt2", torch.rand(2, 1, 8, 8)
    )


@pytest.mark.parametrize(
    ("change", "cause"), [(unknown_operator, "aten.frobnicate"), (no_arguments, "KeyError")]
)
def test_a_broken_program_is_refused_in_one_line_with_the_cause(
    archive, tmp_path, monkeypatch, capfd, change, cause
):
    path = rewritten(archive, tmp_path / "bad.pt2", edit_program(change))
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    err = check_one_line(
        run(monkeypatch, capfd, "measure", path, tmp_path / "x.npy", "--sigma", 0.1, "--draws", 5)
    )
    assert cause in err


USER_CODE = """
import warnings

def several_lines(batch):
    raise ValueError("one\\ntwo\\nthree")

def silent(batch):
    raise ValueError()

def with_address(batch):
    raise RuntimeError(f"cannot use {object()}")

def warns(batch):
    warnings.warn("of my own")
    warnings.warn_explicit("of a library", UserWarning, warnings.__file__, 1)
    return [0] * len(batch)
"""


@pytest.mark.parametrize(
    ("attribute", "code", "line"),
    [
        ("several_lines", 2, "error: one"),
        ("silent", 2, "error: ValueError"),
        ("with_address", 1, "error: RuntimeError: cannot use <object>"),
        ("warns", 0, "warning: of my own"),
    ],
)
def test_a_users_own_code_gets_one_line_each(tmp_path, attribute, code, line):
    (tmp_path / "mine.py").write_text(USER_CODE)
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    script = "from wobbliness.cli.main import main\nmain()"
    command = [
        "measure",
        f"mine:{attribute}",
        "x.npy",
        "--sigma",
        "0.1",
        "--draws",
        "5",
        "--num-classes",
        "2",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr.splitlines()) == (code, [line])


def test_libraries_are_quiet_and_then_as_before(capfd, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    shown = warnings.showwarning
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("a library")
    logger.addHandler(handler)
    with quiet_libraries():
        exec(compile("logger.error('not seen')", json.__file__, "exec"), {"logger": logger})
        warnings.showwarning("not seen", UserWarning, json.__file__, 1)
        assert capfd.readouterr().err == ""
        logger.error("of the user's own code")
    assert "of the user's own code" in capfd.readouterr().err
    assert warnings.showwarning is shown
    logger.error("control")
    logger.removeHandler(handler)
    assert "control" in capfd.readouterr().err


def test_logs_of_one_thread_are_kept_and_those_of_others_pass(caplog):
    logger = logging.getLogger("a library")
    with logs_of("a library") as records:
        logger.warning("mine")
        other = threading.Thread(target=logger.warning, args=("another's",))
        other.start()
        other.join()
    logger.warning("afterwards")
    assert [record.message if hasattr(record, "message") else record.msg for record in records] == [
        "mine"
    ]
    assert caplog.messages == ["another's", "afterwards"]
