"""Study folders of strangers: nothing outside is written, removed or read; no link is followed."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import run
from made_studies import edit_study_file, make_study, recipe, snapshot

from wobbliness.runtime.destinations import check_file
from wobbliness.runtime.files import (
    CannotWrite,
    read_regular,
    remove_unfinished,
    set_aside,
    write_atomically,
    write_named,
)
from wobbliness.study.recipes import RECIPES, recipe_by_name
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.integrity import remove_unfinished_of
from wobbliness.study.records.record import read_recipe
from wobbliness.study.running.runner import run_study
from wobbliness.study.running.status import study_status
from wobbliness.study.running.store import Store
from wobbliness.study.specs import cell_name

HELPERS = Path(__file__).parents[1] / "helpers"
LINKED = (
    "tables",
    "figures",
    "records",
    "damaged",
    "checkpoints",
    "networks",
    "failed",
    "locks",
    "perturbations",
)
FILES = (
    "report.html",
    "study.json",
    "tables/claims.csv",
    "figures/fig4.png",
    "locks/report.lock",
    ".7-report.html",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def outside(tmp_path):
    """A folder outside, which no study may harm or read."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("claims.csv", "fig4.png", "notes.txt", ".7-claims.csv", ".bash-history.txt"):
        (folder / name).write_text("mine")
    return folder


def commands(study, tmp_path):
    """Every command that opens a study's folder."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"import sys\nsys.path.insert(0, {str(HELPERS)!r})\nfrom made_studies import recipe\n"
    )
    mine.write_text(mine.read_text() + "def made(seed):\n    return recipe(seed=seed)\n")
    return {
        "report": ("study", "report", study),
        "status": ("study", "status", study),
        "watch": ("study", "status", study, "--watch"),
        "pack": ("study", "pack", study, tmp_path / "packed"),
        "unpack": ("study", "unpack", study, tmp_path / "unpacked"),
        "run": ("study", "run", f"{mine}:made", "--out", study, "--workers", 1),
    }


def refuse(
    monkeypatch, capsys, study, tmp_path, outside, *, text="expected plain files and folders"
):
    """Every command says one line, and nothing is other than it was."""
    before = snapshot(study, outside)
    for name, arguments in commands(study, tmp_path).items():
        code, _, err = run(monkeypatch, capsys, *arguments)
        assert (code, err.count("\n"), text in err) == (2, 1, True), (name, code, err)
        assert snapshot(study, outside) == before, name


@pytest.mark.parametrize("name", LINKED)
def test_linked_folders_are_refused_by_every_command(
    monkeypatch, capsys, study, tmp_path, outside, name
):
    shutil.rmtree(study / name, ignore_errors=True)
    (study / name).symlink_to(outside)
    refuse(monkeypatch, capsys, study, tmp_path, outside)


@pytest.mark.parametrize("name", FILES)
def test_linked_files_are_refused_by_every_command(
    monkeypatch, capsys, study, tmp_path, outside, name
):
    (study / name).parent.mkdir(exist_ok=True)
    (study / name).unlink(missing_ok=True)
    (study / name).symlink_to(outside / "claims.csv")
    refuse(monkeypatch, capsys, study, tmp_path, outside)


def test_odd_things_in_place_of_records_are_refused(monkeypatch, capsys, study, tmp_path, outside):
    record = min((study / "records").glob("measure-*.json"))
    content = record.read_bytes()
    oddities = {
        "a link to itself": lambda: record.symlink_to(record.name),
        "a link to nothing": lambda: record.symlink_to(outside / "nothing"),
        "a link to a device": lambda: record.symlink_to("/dev/zero"),
        "a pipe": lambda: os.mkfifo(record),
    }
    for make in oddities.values():
        record.unlink()
        make()
        refuse(monkeypatch, capsys, study, tmp_path, outside)
    record.unlink()
    record.write_bytes(content)
    (study / "notes").mkdir()
    (study / "notes" / "deep").symlink_to(outside)
    refuse(monkeypatch, capsys, study, tmp_path, outside)


def test_links_in_a_packed_study_are_refused(study, tmp_path, outside):
    pack_study(study, tmp_path / "packed")
    part = tmp_path / "packed" / "records.parquet"
    shutil.move(part, outside / "records.parquet")
    part.symlink_to(outside / "records.parquet")
    with pytest.raises(ValueError, match="expected plain files and folders"):
        unpack_study(tmp_path / "packed", tmp_path / "unpacked")
    with pytest.raises(ValueError, match="expected plain files and folders"):
        pack_study(study, tmp_path / "packed")
    assert not (tmp_path / "unpacked").exists()


def test_an_ordinary_folder_passes_and_a_link_to_it_is_the_users_own(
    monkeypatch, capsys, study, tmp_path
):
    """Control of the tests above: each command, through a link that the user names."""
    (tmp_path / "link").symlink_to(study)
    assert run(monkeypatch, capsys, "study", "report", study)[0] == 0
    before = {path: content for path, (content, _) in snapshot(study).items()}
    for name, arguments in commands(tmp_path / "link", tmp_path).items():
        code, _, err = (
            run(monkeypatch, capsys, *arguments) if name not in ("watch", "unpack") else (0, "", "")
        )
        assert (code, err) == (0, ""), name
    assert {path: content for path, (content, _) in snapshot(study).items()} | before == before


def test_only_files_that_our_writers_begin_are_removed(monkeypatch, capsys, study):
    mine = [
        ".7-notes.txt",
        ".my-claims.csv",
        ".7-claims.csv.bak",
        ".07-claims.csv",
        ".-claims.csv",
        "7-claims.csv",
        ".x.y",
    ]
    ours = [".7-claims.csv", ".4194304-points.parquet"]
    (study / "tables").mkdir()
    for name in (*mine, *ours):
        (study / "tables" / name).write_text("mine")
        (study / name).write_text("mine")
    (study / ".7-report.html").write_text("begun")
    assert run(monkeypatch, capsys, "study", "report", study)[0] == 0
    assert {
        path.name for path in (study / "tables").glob("*") if path.name in (*mine, *ours)
    } == set(mine)
    assert {path.name for path in study.glob("*") if path.name in (*mine, *ours)} == {*mine, *ours}
    assert not (study / ".7-report.html").exists()


def test_of_a_killed_worker_only_files_of_cells_are_removed(study):
    name = cell_name(recipe().parameter_networks[0])
    (study / "notes").mkdir()
    kept = [
        study / "notes" / f".7-{name}.json",
        study / "records" / ".7-mine.json",
        study / "records" / f".8-{name}.json",
    ]
    for path in (
        *kept,
        study / "records" / f".7-{name}.json",
        study / "networks" / f".7-{name}.safetensors",
    ):
        path.write_text("begun")
    remove_unfinished_of(study, 7)
    assert sorted(path for path in study.rglob(".[78]-*")) == sorted(kept)
    remove_unfinished(study / "none", ["a"])


NAMES = [
    "../../x",
    "/tmp/x",
    "x/../../y",
    ".hidden",
    "..",
    "",
    "a b",
    "[/bold]x",
    "a\nb",
    "a\x1b[2J",
    "`x`",
    "a|b",
    "<b>",
    "é",
    "x" * 101,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_names_are_refused_by_every_command(
    monkeypatch, capsys, study, tmp_path, name
):
    edit_study_file(study, name=name, recipe=name)
    before = snapshot(tmp_path)
    for arguments in (
        ("study", "report", study, "--markdown", tmp_path / "page.md"),
        ("study", "status", study),
        ("study", "pack", study, tmp_path / "packed"),
        ("study", "unpack", study, tmp_path / "unpacked"),
    ):
        code, _, err = run(monkeypatch, capsys, *arguments)
        assert (code, err.count("\n"), "\x1b" in err, "Recipe.name" in err) == (
            2,
            1,
            False,
            True,
        ), err
    assert snapshot(tmp_path) == before
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from dataclasses import replace\nfrom wobbliness.study.recipes import digits\n"
        f"def f(seed):\n    return replace(digits(seed), name={name!r})\n"
    )
    code, _, err = run(monkeypatch, capsys, "study", "run", f"{mine}:f", "--out", tmp_path / "out")
    assert (code, err.count("\n"), "Recipe.name" in err, (tmp_path / "out").exists()) == (
        2,
        1,
        True,
        False,
    ), err


@pytest.mark.parametrize("field", ["dataset", "architecture", "trigger"])
def test_names_of_networks_are_names(study, field):
    content = json.loads((study / "study.json").read_text())
    network = content["parameter_networks"][0] | {field: "<script>../x"}
    edit_study_file(study, parameter_networks=[network])
    with pytest.raises(ValueError, match=f"NetworkSpec.{field}"):
        read_recipe(study)


def test_published_and_built_in_recipes_have_names():
    """Control of the tests above."""
    for name in RECIPES:
        assert recipe_by_name(name, 0).name == name
        assert read_recipe(Path(__file__).parents[2] / "docs" / "results" / name).name == name


def test_devices_pipes_links_and_large_files_are_never_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    for path, most, error in (
        (tmp_path / "file", 4, ValueError),
        (tmp_path / "link", 5, OSError),
        (tmp_path / "pipe", 5, ValueError),
        (Path("/dev/zero"), 5, ValueError),
        (tmp_path, 5, OSError),
        (tmp_path / "none", 5, FileNotFoundError),
    ):
        with pytest.raises(error):
            read_regular(path, most)


def test_a_file_of_the_same_name_is_not_set_aside_over_another(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.json.1").write_text("kept")
    for content in ("one", "two", "three"):
        (tmp_path / "a.json").write_text(content)
        set_aside(tmp_path, tmp_path / "a.json")
    assert sorted(path.read_text() for path in (tmp_path / "damaged").iterdir()) == [
        "kept",
        "one",
        "three",
        "two",
    ]


def test_a_link_among_the_beginnings_is_not_written_through(tmp_path):
    """A stranger cannot know the number of a process, but can leave a link for each."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".{os.getpid()}-file").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "file", lambda file: file.write_text("ours"))
    assert ((tmp_path / "mine").read_text(), (tmp_path / "file").read_text()) == ("mine", "ours")
    assert not (tmp_path / "file").is_symlink()


def test_a_replaced_file_keeps_its_mode_and_a_new_one_obeys_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", lambda file: file.write_text("1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    for mode in (0o600, 0o444, 0o666):
        (tmp_path / "new").chmod(mode)
        seen = []

        def write(beside, seen=seen):
            seen.append(stat.S_IMODE(beside.stat().st_mode))
            beside.write_text("2")

        write_atomically(tmp_path / "new", write)
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
        assert seen == [mode | 0o600], "no one else could read it in the meantime"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_link_that_the_user_names_is_followed_and_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "table.csv").write_text("old")
    (tmp_path / "real" / "table.csv").chmod(0o600)
    for name, target in (("table.csv", "real/table.csv"), ("new.csv", "real/new.csv")):
        (tmp_path / name).symlink_to(target)
        check_file(tmp_path / name)
        write_named(tmp_path / name, lambda file: file.write_text("new"))
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real" / "table.csv").stat().st_mode) == 0o600
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(CannotWrite, match="a link, a pipe or a device"):
        write_named(tmp_path / "zero.csv", lambda file: file.write_text("new"))


def test_what_cannot_be_written_is_found_before_the_work(tmp_path):
    long = tmp_path / f"{'x' * 251}.csv"
    write_named(long, lambda file: file.write_text("fits"))
    assert long.read_text() == "fits"
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (
        tmp_path / f"{'x' * 252}.csv",
        tmp_path / "none" / "table.csv",
        tmp_path,
        tmp_path / "loop.csv",
        tmp_path / "pipe.csv",
        Path("/proc/table.csv"),
        Path("/dev/null"),
    ):
        with pytest.raises(ValueError, match="expected a file that can be written"):
            check_file(path)
    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == [
        "loop.csv",
        "pipe.csv",
        "xxxxxxxx",
    ]


def test_a_verdict_is_printed_where_its_page_cannot_be_written(monkeypatch, capsys, study):
    (study / "tables").write_text("no folder")
    for more in ((), ("--json",)):
        code, out, err = run(monkeypatch, capsys, "study", "report", study, *more)
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith("error: cannot write")
        assert "C1" in out
        assert "report:" not in out
    assert json.loads(out)["report"] is None
    (study / "tables").unlink()
    code, out, _ = run(monkeypatch, capsys, "study", "report", study)
    assert (code, f"report: {study / 'report.html'}" in out) == (0, True)


def test_a_markdown_page_that_cannot_be_written_is_found_before_the_work(
    monkeypatch, capsys, study, tmp_path
):
    (tmp_path / "figures").write_text("no folder")
    for page in (
        tmp_path / f"{'x' * 260}.md",
        tmp_path / "page.md",
        tmp_path / "none" / "page.md",
        Path("/proc/page.md"),
    ):
        code, out, err = run(monkeypatch, capsys, "study", "report", study, "--markdown", page)
        assert (code, out, err.count("\n")) == (2, "", 1), page
    assert not (study / "report.html").exists()
    (tmp_path / "figures").unlink()
    assert (
        run(monkeypatch, capsys, "study", "report", study, "--markdown", tmp_path / "page.md")[0]
        == 0
    )
    assert (tmp_path / "figures" / "made" / "fig2-draws.png").read_bytes() == (
        study / "figures" / "fig2-draws.png"
    ).read_bytes()


def test_folders_with_odd_names_are_folders(monkeypatch, capsys, study, tmp_path):
    for name in (os.fsdecode(b"\xe9"), "[/bold]x", "a b\nc", "=1+1", "-"):
        shutil.copytree(study, tmp_path / name)
        code, _, err = run(
            monkeypatch,
            capsys,
            "study",
            "report",
            tmp_path / name,
            "--markdown",
            tmp_path / "page.md",
        )
        assert (code, err) == (0, ""), name
        assert (tmp_path / name / "report.html").is_file()
        pack_study(tmp_path / name, tmp_path / f"{name} packed")
        unpack_study(tmp_path / f"{name} packed", tmp_path / f"{name} again")


def test_a_run_in_a_folder_whose_name_is_not_utf8_is_refused_before_the_work(
    monkeypatch, capsys, tmp_path
):
    """Its networks could not be opened: safetensors takes no such path."""
    out = tmp_path / os.fsdecode(b"\xe9")
    code, _, err = run(monkeypatch, capsys, "study", "run", "digits", "--out", out)
    assert (code, err) == (
        2,
        f"error: expected an output folder whose name is UTF-8, got {tmp_path}/\\xe9\n",
    )
    assert not out.exists()


def test_a_name_of_a_folder_that_is_too_long_is_one_line(monkeypatch, capsys, study, tmp_path):
    long = tmp_path / ("x" * 300)
    pack_study(study, tmp_path / "packed")
    for arguments in (
        ("run", "digits", "--out", long),
        ("report", long),
        ("status", long),
        ("pack", study, long),
        ("unpack", tmp_path / "packed", long),
    ):
        code, _, err = run(monkeypatch, capsys, "study", *arguments)
        assert (code in (1, 2), err.count("\n"), "too long" in err) == (True, 1, True), err
        assert "Errno" not in err


@pytest.mark.parametrize(
    "name",
    ["report.html", "tables/claims.csv", "figures/fig2-draws.png", "locks/report.lock", "figures"],
)
def test_a_folder_in_place_of_a_file_costs_the_page_and_not_the_verdict(
    monkeypatch, capsys, study, name
):
    if name == "figures":
        (study / name).write_text("a file")
    else:
        (study / name).mkdir(parents=True)
    code, out, err = run(monkeypatch, capsys, "study", "report", study)
    assert (code, err.count("\n"), "cannot write" in err, "C1" in out) == (1, 1, True, True), err


def unpack_in_a_process(packed, out):
    """Unpacks with a pause before each file, and is killed there."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom wobbliness.study.records import archive\n"
        "before = archive.write_bytes\n"
        "def slow(path, content):\n    before(path, content)\n"
        "    print('written', flush=True)\n    time.sleep(60)\n"
        "archive.write_bytes = slow\narchive.unpack_study(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(packed), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    return process


@pytest.mark.parametrize("before", ["no folder", "an empty folder"])
def test_an_unpacking_that_was_killed_is_begun_again(study, tmp_path, before):
    pack_study(study, tmp_path / "packed")
    out = tmp_path / "again"
    if before == "an empty folder":
        out.mkdir()
    process = unpack_in_a_process(tmp_path / "packed", out)
    with pytest.raises(ValueError, match="no one else unpacks"):
        unpack_study(tmp_path / "packed", out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "study.json").exists(), "half a study is none"
    unpack_study(tmp_path / "packed", out)
    assert {path.name for path in out.iterdir()} == {"locks", "records", "study.json"}
    assert len(list((out / "records").iterdir())) == len(list((study / "records").iterdir()))
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        unpack_study(tmp_path / "packed", out)


def test_an_unpacking_that_was_killed_at_its_end_is_begun_again(study, tmp_path):
    pack_study(study, tmp_path / "packed")
    (tmp_path / "again" / ".unpacking").mkdir(parents=True)
    shutil.copytree(study / "records", tmp_path / "again" / "records")
    unpack_study(tmp_path / "packed", tmp_path / "again")
    assert (tmp_path / "again" / "study.json").is_file()
    (tmp_path / "mine" / "records").mkdir(parents=True)
    # no sign that the records are ours
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        unpack_study(tmp_path / "packed", tmp_path / "mine")


def test_a_link_to_nothing_is_no_place_to_unpack(study, tmp_path):
    pack_study(study, tmp_path / "packed")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a new or empty folder, got .*link"):
        unpack_study(tmp_path / "packed", tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "nowhere").mkdir()
    unpack_study(tmp_path / "packed", tmp_path / "link")
    assert (tmp_path / "nowhere" / "study.json").is_file(), (
        "control: the user's own link is followed"
    )


def test_an_unpacking_that_fails_leaves_nothing(monkeypatch, study, tmp_path):
    pack_study(study, tmp_path / "packed")

    def fail(*_):
        raise CannotWrite("cannot write: no space left")

    monkeypatch.setattr("wobbliness.study.records.archive.write_json", fail)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        with pytest.raises(CannotWrite):
            unpack_study(tmp_path / "packed", out)
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "a").exists()


def test_an_unpacking_of_a_damaged_record_leaves_nothing(monkeypatch, capsys, study, tmp_path):
    pack_study(study, tmp_path / "packed")
    rows = pd.read_parquet(tmp_path / "packed" / "measure-000.parquet")
    rows.iloc[1:].to_parquet(tmp_path / "packed" / "measure-000.parquet")
    code, _, err = run(
        monkeypatch, capsys, "study", "unpack", tmp_path / "packed", tmp_path / "out"
    )
    assert (code, err.count("\n"), "expected a whole record" in err) == (2, 1, True)
    assert not (tmp_path / "out").exists()
    rows.to_parquet(tmp_path / "packed" / "measure-000.parquet")
    unpack_study(tmp_path / "packed", tmp_path / "out")


@pytest.mark.parametrize("failing", ["write_json", "write_bytes"])
def test_a_packing_that_fails_leaves_what_was_there(monkeypatch, study, tmp_path, failing):
    pack_study(study, tmp_path / "packed")
    before = snapshot(tmp_path)

    def fail(*_):
        raise CannotWrite("cannot write: no space left")

    with monkeypatch.context() as patched:
        patched.setattr(f"wobbliness.study.records.archive.{failing}", fail)
        for folder in (tmp_path / "packed", tmp_path / "new" / "packed"):
            with pytest.raises(CannotWrite):
                pack_study(study, folder)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_packing_that_was_killed_is_begun_again(study, tmp_path):
    folder = tmp_path / "packed"
    (folder / ".packing").mkdir(parents=True)
    for name in (".packing/study.json", "records.parquet", "measure-000.parquet"):
        (folder / name).write_text("cut")
    pack_study(study, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "measure-000.parquet",
        "records.parquet",
        "study.json",
    ]
    (folder / "study.json").unlink()
    # no sign that the tables are ours
    with pytest.raises(ValueError, match="or a packed study, got"):
        pack_study(study, folder)


def test_a_packed_study_that_is_replaced_keeps_its_permissions(study, tmp_path):
    pack_study(study, tmp_path / "packed")
    for path in (tmp_path / "packed").iterdir():
        path.chmod(0o640)
    pack_study(study, tmp_path / "packed")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "packed").iterdir()} == {0o640}


def test_packing_removes_only_what_packing_wrote(study, tmp_path):
    packed = tmp_path / "packed"
    pack_study(study, packed)
    for name in ("mine.parquet", "measure-mine.parquet", "measure-9.parquet"):
        (packed / name).write_text("mine")
    (packed / "measure-999.parquet").write_text("ours")
    pack_study(study, packed)
    assert (
        (packed / "mine.parquet").read_text()
        == (packed / "measure-9.parquet").read_text()
        == "mine"
    )
    assert not (packed / "measure-999.parquet").exists()
    with pytest.raises(ValueError, match="or a packed study, got"):
        pack_study(study, study)
    unpack_study(packed, tmp_path / "again")


def test_a_store_in_a_folder_with_links_is_refused(study, tmp_path, outside):
    store = tmp_path / "store"
    Store(store.as_uri()).take_ownership(study)
    Store(store.as_uri()).take_ownership(study)
    (store / "records").symlink_to(outside)
    with pytest.raises(ValueError, match="expected plain files and folders"):
        Store(store.as_uri()).take_ownership(study)


def test_a_file_of_a_store_that_is_too_large_is_not_read(study, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    store.take_ownership(study)
    with open(tmp_path / "store" / "study.json", "wb") as file:
        os.truncate(file.fileno(), 2**34)
    with pytest.raises(CannotWrite, match="more than"):
        store.take_ownership(study)


def test_status_and_the_python_functions_look_at_links_no_less(study, outside):
    made = read_recipe(study)
    shutil.rmtree(study / "locks")
    (study / "locks").symlink_to(outside)
    with pytest.raises(ValueError, match="expected plain files and folders"):
        study_status(made, study)
    with pytest.raises(ValueError, match="expected plain files and folders"):
        run_study(made, study, workers=1)
