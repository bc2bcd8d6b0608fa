"""Hostile names: they control neither the terminal nor a spreadsheet, and stop no command."""

import ast
import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from command_line import run
from model_files import linear_model
from onnx import TensorProto, helper
from PIL import Image

import wobbliness
from wobbliness.reports.tables import cell_text, write_csv, write_parquet
from wobbliness.runtime import terminal
from wobbliness.runtime.progress import print_notice, progress_bar

HOSTILE = "\x1b[2J\x07\x9b31m\u202ename\u200b\u2028\x7f\udce9[/bold]"
SHOWN = r"\x1b[2J\x07\x9b31m\u202ename\u200b\u2028\x7f\xe9[/bold]"
HARMLESS = ("cat.png", "Zürich 東京　🐈", "a\u00a0b", "e\u0301", "[bold]red[/bold]", "")


def steers(text):
    return [character for character in text if not character.isprintable() and character != "\n"]


def test_what_is_shown():
    assert terminal.visible(HOSTILE) == SHOWN
    assert terminal.visible("a\nverdict: clean\r\t") == r"a\nverdict: clean\r\t"
    for code in [
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        0x200D,
        0xFEFF,
        0xDC80,
    ]:
        assert not steers(terminal.visible(f"a{chr(code)}b")), hex(code)
    for text in HARMLESS:
        assert terminal.visible(text) == text


def test_only_one_module_prints():
    """So that nothing that is printed goes past it."""
    found = set()
    for path in Path(wobbliness.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in (
                "print",
                "pprint",
                "Console",
                "typer.echo",
                "click.echo",
                "rich.print",
            ) or (
                called.startswith(
                    (
                        "sys.stdout.write",
                        "sys.stderr.write",
                        "sys.__std",
                        "traceback.print_",
                        "os.write",
                    )
                )
            ):
                found.add((path.name, called))
    assert found == {
        ("exit.py", "os.write"),  # constant lines where Python may print no more
        ("export.py", "print"),  # torch's own prints of other threads, handed on to where they went
    }


def test_lines_json_notices_warnings_logs_and_bars(monkeypatch, capsys):
    terminal.say(HOSTILE)
    terminal.say_json({HOSTILE: [HOSTILE]})
    print_notice(HOSTILE)
    with terminal.one_line_notices():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"{HOSTILE}\nsecond line", UserWarning, stacklevel=1)
        logging.getLogger("stranger").error("%s\nsecond line", HOSTILE)
    logging.getLogger("ours").error("as ever\x07")
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == SHOWN
    assert json.loads(out.splitlines()[1]) == {
        HOSTILE.replace("\udce9", r"\xe9"): [HOSTILE.replace("\udce9", r"\xe9")]
    }
    shown_and_joined = SHOWN.replace(r"\u2028", " ") + " second line"
    assert err.splitlines()[:2] == [f"note: {SHOWN}", f"warning: {shown_and_joined}"]
    assert not steers(out + err)
    monkeypatch.setattr("wobbliness.runtime.progress.PATIENCE_SECONDS", 0.0)
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(f"measuring {HOSTILE}", 1) as advance:
        advance(1)
    assert "\\x1b[2J\\x07" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_a_table_of_a_console_takes_names_for_names(capsys):
    from rich.table import Table

    table = Table(title="[/bold]title")
    table.add_column("[/red]head")
    table.add_row("[/bold]cell\x1b[2J")
    terminal.console().print(table)
    out, _ = capsys.readouterr()
    assert "[/bold]title" in out
    assert "[/bold]cell\\x1b[2J" in out
    assert not steers(out)


LOUD = """
import threading
def classify(batch):
    print("a word of the model")
    threading.Thread(target=print, args=("a word of its thread",)).start()
    return [1] * len(batch)
"""


def test_standard_output_holds_what_the_command_says_and_nothing_else(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("loud_model.py").write_text(LOUD)
    np.save("images.npy", np.random.default_rng(0).random((3, 1, 4, 4)))
    kept = sys.stdout
    for as_json in ([], ["--json"]):
        code, out, err = run(
            monkeypatch,
            capsys,
            "measure",
            "loud_model:classify",
            "images.npy",
            "--sigma",
            "0.1",
            "--draws",
            "4",
            *as_json,
        )
        assert code == 0, err
        assert "a word of" not in out
        assert "a word of the model" in err
        assert "a word of its thread" in err
    assert json.loads(out)
    assert sys.stdout is kept
    code, out, err = run(monkeypatch, capsys, "measure", "--help")
    assert (code, err) == (0, "")
    assert "--sigma" in out


def test_a_stream_that_is_gone_is_an_error_once():
    with open("/dev/full", "w") as full, pytest.raises(OSError, match="No space"):
        terminal._write(full, "line\n")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-2+3|cmd", "'-2+3|cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"'\t=1"),
        ("\r=1", r"'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a;=1.png", "a;'=1.png"),
        *((text, text) for text in HARMLESS),
        ("a-b=c.png", "a-b=c.png"),
    ],
)
def test_cells_that_a_spreadsheet_would_run_are_text(text, cell):
    assert cell_text(text) == cell


def test_tables_keep_numbers_and_types(tmp_path):
    frame = pd.DataFrame(
        {
            "name": pd.Series(["=1.png", "\udce9.png", "\x1b[2J.png", None], dtype=object),
            "value": [-0.5, 1.0, np.nan, -3.0],
            "count": pd.array([-1, 2, None, 4], dtype="Int64"),
            "flag": pd.array([True, None, False, True], dtype="boolean"),
            "plain": [True, False, True, False],
            "=head": ["a", "b", "c", "d"],
        }
    )
    write_csv(frame, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "name,value,count,flag,plain,'=head"
    assert lines[1:] == [
        "'=1.png,-0.5,-1,True,True,a",
        r"\xe9.png,1.0,2,,False,b",
        r"\x1b[2J.png,,,False,True,c",
        ",-3.0,4,True,False,d",
    ]
    write_parquet(frame, tmp_path / "table.parquet")
    read = pd.read_parquet(tmp_path / "table.parquet")
    assert read["name"].tolist()[:3] == ["=1.png", r"\xe9.png", "\x1b[2J.png"]
    assert [str(kind) for kind in read.dtypes][1:5] == ["float64", "Int64", "boolean", "bool"]
    assert frame["name"].tolist()[1] == "\udce9.png", "the caller's rows are left alone"


@pytest.fixture
def folder(tmp_path, images):
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def graph_with(path, *, op_type="Flatten", name="", output="scores"):
    graph = helper.make_graph(
        [
            helper.make_node(
                op_type,
                ["images"],
                [output],
                name=name,
                domain="" if op_type == "Flatten" else "strange",
            )
        ],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 64])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("strange", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


HOSTILE_CALLS = {
    "operator": ("measure", "operator.onnx", "images.npy", "--sigma", "0.1"),
    "output": ("measure", "output.onnx", "images.npy", "--sigma", "0.1"),
    "model path": ("measure", "\x1b[2J[/bold].onnx", "images.npy", "--sigma", "0.1"),
    "images path": ("measure", "model.onnx", "\x1b[2J[/bold].npy", "--sigma", "0.1"),
    "member": ("measure", "model.onnx", "members.npz", "--sigma", "0.1"),
    "column": ("measure", "model.onnx", "members.npz", "--sigma", "0.1", "--column", "\x1b[2J"),
    "trigger": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--trigger",
        "\x1b[2J[/bold]",
    ),
    "other file": ("measure", "model.onnx", "folder", "--sigma", "0.1"),
    "recipe": ("study", "run", "\x1b[2J[/bold]", "--out", "run"),
    "study": ("study", "status", "\x1b[2J[/bold]"),
    "guard": ("guard", "judge", "\x1b[2J[/bold]", "model.onnx", "images.npy"),
    "command": ("\x1b[2J[/bold]",),
    "option": ("measure", "--\x1b[2J[/bold]"),
    "value": ("measure", "model.onnx", "images.npy", "--sigma", "\x1b[2J[/bold]"),
    "bytes": ("measure", "\udce9.onnx", "images.npy", "--sigma", "0.1"),
}


@pytest.mark.parametrize("name", HOSTILE_CALLS)
def test_an_error_about_a_hostile_name_is_one_harmless_line(
    monkeypatch, capsys, folder, images, name
):
    monkeypatch.chdir(folder)
    graph_with(folder / "operator.onnx", op_type="\x1b[2J[/bold]")
    graph_with(folder / "output.onnx", name="\x1b[2J", output="\x1b[2J[/bold]")
    np.savez(folder / "members.npz", **{"\x1b[2J[/bold]": images, "\x1b[31m": images})
    (folder / "folder").mkdir()
    (folder / "folder" / "\x1b[2J[bold]").write_bytes(b"")
    code, out, err = run(monkeypatch, capsys, *HOSTILE_CALLS[name])
    assert not steers(out + err)
    assert code in ((0, 2) if name == "output" else (1, 2))
    assert err.count("\n") == (1 if code else 0)


def hostile_pictures(folder):
    pictures = folder / "pictures"
    pictures.mkdir()
    for index, name in enumerate((b"\xe9.png", b"=1+1.png", b"\x1b[2J.png", b"plain.png")):
        path = os.path.join(os.fsencode(pictures), name)
        content = io.BytesIO()
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)).save(
            content, "PNG"
        )
        with open(path, "wb") as file:
            file.write(content.getvalue())
    return pictures


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pictures_with_names_of_any_bytes_are_found_in_the_table(
    monkeypatch, capsys, folder, ending
):
    pictures, out = hostile_pictures(folder), folder / f"votes.{ending}"
    code, _, err = run(
        monkeypatch,
        capsys,
        "measure",
        folder / "model.onnx",
        pictures,
        "--sigma",
        0.1,
        "--draws",
        9,
        "--out",
        out,
    )
    assert (code, err) == (0, "")
    names = (pd.read_csv if ending == "csv" else pd.read_parquet)(out)["name"].tolist()
    expected = {"csv": {r"\xe9.png", "'=1+1.png", r"\x1b[2J.png", "plain.png"}}
    assert set(names) == expected.get(ending, {r"\xe9.png", "=1+1.png", "\x1b[2J.png", "plain.png"})


def test_a_model_whose_path_is_no_utf8_is_measured(monkeypatch, capsys, folder):
    try:
        os.rename(folder / "model.onnx", os.path.join(os.fsencode(folder), b"\xe9.onnx"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    code, out, _ = run(
        monkeypatch,
        capsys,
        "measure",
        f"{folder}/\udce9.onnx",
        folder / "images.npy",
        "--sigma",
        0.1,
    )
    assert code == 0
    assert "run by" in out


@pytest.mark.parametrize(
    "name", [r"$\frac{x$", "\x1b[2J[bold]", "\udce9", "<script>alert(1)</script>", "=1+1", "東京"]
)
def test_a_scan_with_a_trigger_of_any_name_leaves_everything(folder, name):
    from wobbliness.reports.model_scan import write_scan

    trigger_file = folder / f"{name.replace('/', '|')}.png"
    Image.fromarray(np.full((2, 2), 255, np.uint8)).save(trigger_file)
    pictures = np.random.default_rng(0).random((32, 1, 8, 8), np.float32)
    found = wobbliness.scan_model(
        wobbliness.open_classifier(folder / "model.onnx"),
        pictures,
        triggers=[wobbliness.trigger_from_png(trigger_file)],
        sigmas=[0.2],
        draws=5,
        model=f"{name}.onnx",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the font has no such letters
        page = write_scan(found, folder / "scan").read_text(encoding="utf-8")
    written = pd.read_csv(folder / "scan" / "scan.csv")
    shown = terminal.visible(name.replace("/", "|"))
    assert written["pattern"].iloc[-1] == cell_text(name.replace("/", "|"))
    assert not steers(page.replace("\t", ""))
    assert f"trigger {shown}" in page.replace("&lt;", "<").replace("&gt;", ">")
    json.loads((folder / "scan" / "scan.json").read_text(encoding="utf-8").encode("utf-8"))
