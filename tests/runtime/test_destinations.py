"""Output paths: tried before the work; a later failure loses neither verdict nor next run."""

import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from command_line import run
from model_files import linear_model

from wobbliness.reports import model_scan as scan_report
from wobbliness.runtime.destinations import check_file, check_folder
from wobbliness.runtime.files import CannotWrite


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save("images.npy", np.random.default_rng(1).random((80, 1, 8, 8), np.float32))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "device.csv").symlink_to("/dev/full")
    return tmp_path


@pytest.fixture
def small_disk(mounted):
    """A file system of 40 kB."""
    return mounted("40k")


LONG = "x" * 252
UNWRITABLE = {
    "measure": ("measure", "absent.onnx", "images.npy", "--sigma", "0.1", "--out"),
    "judge": ("guard", "judge", "guard", "absent.onnx", "images.npy", "--out"),
    "page": ("guard", "judge", "guard", "absent.onnx", "images.npy", "--report"),
    "test": ("test", "absent.onnx", "--clean", "images.npy", "--suspect", "images.npy", "--report"),
    "fit": ("guard", "fit", "absent.onnx", "images.npy", "--out"),
    "scan": ("scan", "absent.onnx", "images.npy", "--out"),
    "pack": ("study", "pack", "absent.onnx"),
    "unpack": ("study", "unpack", "absent.onnx"),
    "run": ("study", "run", "absent.onnx", "--out"),
}
PLACES = {
    "measure": (
        "/proc/x.csv",
        "none/x.csv",
        "file/x.csv",
        "folder.csv",
        "pipe.csv",
        "device.csv",
        f"{LONG}.csv",
        "/proc/x.parquet",
    ),
    "judge": ("/proc/x.csv", "pipe.csv", f"{LONG}.csv"),
    "page": ("/proc/x.html", "folder.html", f"{LONG}.html"),
    "test": (
        "/proc/x.html",
        "none/x.html",
        "file/x.html",
        "folder.html",
        "pipe.html",
        f"{LONG}.html",
    ),
    "fit": ("/proc/x", "file/x", "file", "pipe.csv", f"{LONG}{LONG}", f"a/{LONG}{LONG}/b"),
    "scan": ("/proc/x", "file/x", "file", f"{LONG}{LONG}"),
    "pack": ("/proc/x", "file/x", "file", f"{LONG}{LONG}"),
    "unpack": ("/proc/x", "file/x", "file", f"{LONG}{LONG}"),
    "run": ("/proc/x", "file/x", "file", f"{LONG}{LONG}"),
}


@pytest.mark.parametrize(
    ("command", "place"), [(command, place) for command in PLACES for place in PLACES[command]]
)
def test_a_place_that_cannot_be_written_is_found_first(monkeypatch, capsys, folder, command, place):
    before = sorted(folder.rglob("*"))
    code, out, err = run(monkeypatch, capsys, *UNWRITABLE[command], place)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "absent.onnx" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", UNWRITABLE)
def test_a_place_that_can_be_written_is_no_matter(monkeypatch, capsys, folder, command):
    place = {"measure": "x.csv", "judge": "x.parquet", "page": "x.html", "test": "x.html"}.get(
        command, "new/x"
    )
    before = sorted(folder.rglob("*"))
    code, _, err = run(monkeypatch, capsys, *UNWRITABLE[command], place)
    assert code == 2
    assert "absent.onnx" in err or "guard" in err
    assert sorted(folder.rglob("*")) == before


def test_a_full_or_read_only_disk(small_disk):
    for check, place in (
        (check_file, small_disk / "x.csv"),
        (check_folder, small_disk / "x" / "y"),
    ):
        with pytest.raises(ValueError, match="No space left on device"):
            check(place)
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for check, place in (
        (check_file, small_disk / "x.csv"),
        (check_folder, small_disk / "x"),
        (check_folder, small_disk),
    ):
        with pytest.raises(ValueError, match="Read-only"):
            check(place)


COMMANDS = {
    "measure": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--draws",
        "5",
        "--out",
        "x.csv",
    ),
    "test": (
        "test",
        "model.onnx",
        "--clean",
        "images.npy",
        "--suspect",
        "images.npy",
        "--sigma",
        "0.1",
        "--report",
        "x.html",
    ),
    "scan": (
        "scan",
        "model.onnx",
        "images.npy",
        "--trigger",
        "dot",
        "--sigma",
        "0.1",
        "--draws",
        "5",
        "--out",
        "scan",
    ),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_result_is_printed_though_it_cannot_be_written(
    monkeypatch, capsys, folder, command, as_json
):
    full = OSError(28, "No space left on device")

    def fail(*_, **__):
        raise full

    monkeypatch.setattr("os.replace", fail)
    code, out, err = run(monkeypatch, capsys, *COMMANDS[command], *(["--json"] if as_json else []))
    assert (code, err.count("\n")) == (1, 1)
    assert "No space left on device" in err
    said = {"measure": "run by", "test": "verdict:", "scan": "note:"}
    keys = {"measure": "measurements", "test": "verdict", "scan": "report"}
    assert keys[command] in json.loads(out) if as_json else said[command] in out
    left = {path.name for path in folder.iterdir()} - {"model.onnx", "images.npy", "file"}
    assert left == {"folder.csv", "folder.html", "pipe.csv", "pipe.html", "device.csv"}


def test_a_scan_that_broke_off_does_not_refuse_the_next(monkeypatch, capsys, folder):
    arguments = COMMANDS["scan"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_report, "scan_json", interrupt)
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert (code, err) == (130, "interrupted\n")
    assert not (folder / "scan").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    for _ in range(2):  # into a new folder, and over that of a scan
        code, out, _ = run(monkeypatch, capsys, *arguments)
        assert code == 0
        assert out.splitlines()[-1] == "report: scan/report.html"
        (folder / "scan" / "pictures" / "trigger-7.png").touch()
        (folder / "scan" / "mine.txt").write_text("kept")
    assert {path.name for path in (folder / "scan").iterdir()} == {
        "report.html",
        "scan.json",
        "scan.csv",
        "pictures",
        "mine.txt",
    }
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    code, *_ = run(monkeypatch, capsys, *arguments)
    assert not (folder / "scan" / "pictures" / "trigger-7.png").exists()


def test_pictures_elsewhere_are_not_removed(monkeypatch, capsys, folder):
    run(monkeypatch, capsys, *COMMANDS["scan"])
    elsewhere = folder / "elsewhere"
    (folder / "scan" / "pictures").rename(elsewhere)
    (folder / "scan" / "pictures").symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    code, _, err = run(monkeypatch, capsys, *COMMANDS["scan"])
    assert (code, "a link" in err) == (2, True)
    assert sorted(elsewhere.iterdir()) == before


def test_a_folder_of_a_scan_may_be_a_link_of_the_users(monkeypatch, capsys, folder):
    (folder / "real").mkdir()
    (folder / "scan").symlink_to("real")
    code, *_ = run(monkeypatch, capsys, *COMMANDS["scan"])
    assert code == 0
    assert (folder / "scan").is_symlink()
    assert (folder / "real" / "scan.json").is_file()


@pytest.mark.usefixtures("folder")
def test_what_a_writer_of_tables_raises_is_an_error_of_writing(monkeypatch, capsys):
    def fail(*_, **__):
        raise ValueError("a cell that no table holds")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    code, out, err = run(monkeypatch, capsys, *COMMANDS["measure"])
    assert (code, err.count("\n"), err.startswith("error: cannot write x.csv: ")) == (1, 1, True)
    assert "run by" in out
    assert issubclass(CannotWrite, RuntimeError)


def test_the_folder_that_a_link_leads_to_is_tried(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "there.csv").symlink_to(tmp_path / "own" / "table.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "missing" / "table.csv")
    check_file(tmp_path / "there.csv")
    assert not any((tmp_path / "own").iterdir())
    with pytest.raises(ValueError, match="expected a file that can be written, got .*gone.csv"):
        check_file(tmp_path / "gone.csv")
