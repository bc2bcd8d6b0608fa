"""Stages on a machine that may be taken away: what is found is kept, a second call goes on."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools" / "gpu_stages.py"


@pytest.fixture(scope="module")
def stages():
    specification = importlib.util.spec_from_file_location("gpu_stages", PATH)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gpu_stages"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def options(stages, folder):
    return stages.Options(folder=folder, device="cpu", seconds=600, is_short=True)


def command(text):
    return [sys.executable, "-c", text]


def test_output_is_kept_as_a_whole_or_not_at_all(stages, tmp_path):
    out = tmp_path / "found.json"
    failing = command("print('[1,', flush=True); raise SystemExit(1)")
    assert not stages.ended_after(failing, 60, out)
    assert not out.exists()
    assert stages.ended_after(command("print('[1, 2]')"), 60, out)
    assert json.loads(out.read_text()) == [1, 2]


def test_a_command_is_interrupted_after_its_seconds(stages, tmp_path):
    kept = tmp_path / "kept"
    text = f"""
import time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    open({str(kept)!r}, "w").write("what it had")
"""
    start = time.monotonic()
    assert not stages.ended_after(command(text), 3)
    assert time.monotonic() - start < 50
    assert kept.read_text() == "what it had"


def test_a_command_that_does_not_listen_is_killed(stages, monkeypatch):
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert not stages.ended_after(command(deaf), 2)


def test_a_second_call_does_what_is_missing(stages, tmp_path, monkeypatch, capsys):
    called, fails = [], {"second": True}

    def run(name):
        def do(_given):
            called.append(name)
            return not fails.get(name, False)

        return stages.Stage(name, f"about the {name}", do)

    made = tuple(map(run, ("first", "second", "third")))
    monkeypatch.setattr(stages, "STAGES", made)
    assert stages.main(options(stages, tmp_path), []) == 1
    assert called == ["first", "second", "third"], "one that fails keeps no other from running"
    assert "second: not finished" in capsys.readouterr().out
    fails.clear()
    assert stages.main(options(stages, tmp_path), []) == 0
    assert called[3:] == ["second"]
    assert stages.main(options(stages, tmp_path), ["third"]) == 0
    assert called[4:] == []


def test_a_study_goes_on_from_its_packed_records(stages, tmp_path):
    """On another machine only FOLDER is there, without networks."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    assert stages.study("C1", options(stages, first))
    packed = {path.name: path.read_bytes() for path in (first / "digits").iterdir()}
    assert packed
    (first / "digits").rename(second / "digits")
    # C2 is of the same network, which has to be trained again.
    assert stages.study("C1,C2", options(stages, second))
    grown = {path.name: path.read_bytes() for path in (second / "digits").iterdir()}
    assert grown.keys() >= packed.keys()
    assert sum(map(len, grown.values())) > sum(map(len, packed.values()))
