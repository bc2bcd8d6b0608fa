"""Damage, faults, full disks and Ctrl-C: one clear line each, and the tables come out the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_study import (
    FAULTY,
    do_with_fault,
    finish_times,
    slow,
    small,
    start_runner,
    tables_of,
    unfinished_files,
    wait_until,
    workers_of,
)

from wobbliness.study.cell_plan import plan
from wobbliness.study.checking import cells_left, condition, weights_file
from wobbliness.study.failures import read_failure
from wobbliness.study.files import CannotWrite, set_aside, write_bytes
from wobbliness.study.packing import pack_study, unpack_study
from wobbliness.study.records import read_record
from wobbliness.study.runner import StudyFailed, run_study
from wobbliness.study.specs import cell_name, needed_specs
from wobbliness.study.status import study_status

CELLS = plan(small())
MEASURED = next(cell.name for cell in CELLS if cell.kind == "measure")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "study"
    run_study(small(), out, workers=1)
    return out, tables_of(out)


@pytest.fixture
def study(undisturbed, tmp_path):
    """A copy of a finished study, to be damaged."""
    shutil.copytree(undisturbed[0], tmp_path / "study")
    return tmp_path / "study"


def run_again(out):
    """Runs the study again; which cells were done, and the notices."""
    before, notices = finish_times(out, small()), []
    run_study(small(), out, workers=1, notice=notices.append)
    after = finish_times(out, small())
    return {name for name in after if after[name] != before.get(name)}, notices


def flip_a_bit(path, seed=0):
    content = bytearray(path.read_bytes())
    position = random.Random(seed).randrange(8 * len(content))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def other_cell(path):
    """The same file of another cell of the same kind."""
    return next(
        other
        for other in sorted(path.parent.glob(f"{path.name.split('-')[0]}-*{path.suffix}"))
        if other.read_bytes() != path.read_bytes()
    )


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit flipped": flip_a_bit,
    "emptied": lambda path: path.write_bytes(b""),
    "another cell's": lambda path: shutil.copyfile(other_cell(path), path),
}


@pytest.mark.parametrize("suffix", ["json", "parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_set_aside_in_one_line_and_done_again(undisturbed, study, damage, suffix):
    path = study / "records" / f"{MEASURED}.{suffix}"
    DAMAGES[damage](path)
    damaged = path.read_bytes()
    done, notices = run_again(study)
    assert done == {MEASURED}
    assert len(notices) == 1
    assert notices[0].startswith(
        f"records/{MEASURED}.json and records/{MEASURED}.parquet set aside in damaged/ and done again: expected"
    )
    assert "\n" not in notices[0]
    assert (study / "damaged" / path.name).read_bytes() == damaged
    assert tables_of(study) == undisturbed[1]


def test_a_record_and_its_table_of_another_cell_are_found_out(undisturbed, study):
    """Both are whole, and fit each other; they are not this cell's."""
    for suffix in ("json", "parquet"):
        DAMAGES["another cell's"](study / "records" / f"{MEASURED}.{suffix}")
    assert run_again(study)[0] == {MEASURED}
    assert tables_of(study) == undisturbed[1]


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_bit_of_a_record_changes_what_is_read(study, seed):
    """Either it is found, or it changed nothing that is read, as the case of the e in 1e-05."""
    path = study / "records" / f"{MEASURED}.json"
    whole = read_record(path.parent, MEASURED)
    flip_a_bit(path, seed)
    try:
        found = read_record(path.parent, MEASURED)
    except ValueError:
        return
    assert (found.spec, found.results, found.provenance) == (whole.spec, whole.results, whole.provenance)


@pytest.mark.parametrize("kind", ["train", "universal", "cleanse"])
@pytest.mark.parametrize("damage", ["cut", "one bit flipped", "emptied"])
def test_damaged_weights_are_made_again_for_a_cell_that_needs_them(undisturbed, study, kind, damage):
    user = next(cell for cell in reversed(CELLS) if any(cell.kind != kind and f"{kind}-" in need for need in needs(cell)))
    maker = next(name for name in needs(user) if name.startswith(f"{kind}-"))
    before = weights_file(study, maker).read_bytes()
    DAMAGES[damage](weights_file(study, maker))
    assert run_again(study) == (set(), []), "no one needs them"
    (study / "records" / f"{user.name}.json").unlink()
    done, notices = run_again(study)
    assert done == {user.name, maker}
    assert [line.split(" ")[0] for line in notices] == [str(weights_file(study, maker).relative_to(study))]
    assert weights_file(study, maker).read_bytes() == before
    assert tables_of(study) == undisturbed[1]


def needs(cell):
    return [cell_name(spec) for spec in needed_specs(cell.spec)]


def test_a_packed_study_trains_again_only_what_a_missing_cell_needs(undisturbed, tmp_path):
    pack_study(undisturbed[0], tmp_path / "packed")
    unpack_study(tmp_path / "packed", tmp_path / "study")
    assert run_again(tmp_path / "study") == (set(), [])
    user = next(cell for cell in CELLS if cell.kind == "universal")
    (tmp_path / "study" / "records" / f"{user.name}.json").unlink()
    assert run_again(tmp_path / "study") == ({user.name, *needs(user)}, [])
    assert tables_of(tmp_path / "study") == undisturbed[1]


def test_records_from_before_checksums_are_done_as_far_as_they_can_be_verified(study):
    for path in (study / "records").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in content.items() if name not in ("files", "checksum")}))
    assert run_again(study) == (set(), [])
    path = study / "records" / f"{MEASURED}.parquet"
    DAMAGES["cut"](path)
    assert run_again(study)[0] == {MEASURED}
    for name in ("checksum", "files"):  # one of the two alone was never written
        content = json.loads((study / "records" / f"{MEASURED}.json").read_text())
        del content[name]
        (study / "records" / f"{MEASURED}.json").write_text(json.dumps(content))
        assert run_again(study)[0] == {MEASURED}


def test_a_damaged_study_file_is_written_anew(undisturbed, study):
    for damage in ("cut", "emptied"):
        DAMAGES[damage](study / "study.json")
        assert run_again(study) == (set(), ["study.json was damaged: set aside in damaged/ and written anew"])
    (study / "study.json").unlink()
    assert run_again(study) == (set(), [])
    assert tables_of(study) == undisturbed[1]


def test_files_of_one_name_are_set_aside_side_by_side(tmp_path):
    for content in ("one", "two"):
        (tmp_path / "a.json").write_text(content)
        set_aside(tmp_path, tmp_path / "a.json")
    assert sorted(path.read_text() for path in (tmp_path / "damaged").iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "RuntimeError: the classifier lost its mind"),
        ("no memory", "MemoryError: "),
        ("killed", "its process was killed (SIGKILL), as it happens where memory runs out"),
        ("exits", "its process ended with exit code 3"),
        ("hangs", "took longer than the limit of 20 seconds for a cell"),
    ],
)
def test_a_fault_costs_its_cell_and_what_needs_it_and_the_rest_goes_on(undisturbed, tmp_path, fault, message):
    out, dependent = tmp_path / "study", {cell.name for cell in CELLS if FAULTY in needs(cell)}
    with pytest.raises(StudyFailed, match=f"^1 of {len(CELLS)} cells failed; {FAULTY}: ") as raised:
        run_study(small(), out, workers=2, do=do_with_fault(fault), cell_timeout=20 if fault == "hangs" else None)
    assert message.strip() in str(raised.value)
    assert set(cells_left(out, CELLS)) == {FAULTY} | dependent
    failed = read_failure(out, FAULTY)
    assert failed.message == message.strip()
    assert ("Traceback" in failed.details) == (fault in ("raises", "no memory"))
    assert study_status(small(), out).failed == (failed,)
    if fault == "raises":
        with pytest.raises(StudyFailed, match="lost its mind"):
            run_study(small(), out, workers=1, retry=False)
        assert set(cells_left(out, CELLS)) == {FAULTY} | dependent
        run_study(small(), out, workers=1)
        assert read_failure(out, FAULTY) is None
        assert tables_of(out) == undisturbed[1]
    assert unfinished_files(out) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_at_once_with_one_line(tmp_path, workers):
    out = tmp_path / "study"
    process = start_runner(out, "--workers", workers, recipe="slow")
    wait_until(lambda: study_status(slow(), out).running if (out / "study.json").exists() else False)
    time.sleep(0.5)
    started, children = time.monotonic(), workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    printed, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert printed == ""
    assert said == "interrupted: what is recorded is kept, and the same command goes on from there\n"
    assert unfinished_files(out) == []
    assert len(children) == (workers if workers > 1 else 0)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 5)
    assert study_status(slow(), out).running == ()


def test_a_second_ctrl_c_does_not_wait_for_the_first():
    script = (
        "import time\nfrom wobbliness.interrupts import clean_interrupts\n"
        "with clean_interrupts():\n    try:\n        print('ready', flush=True); time.sleep(60)\n    finally:\n"
        "        print('cleaning', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "")


@pytest.fixture
def disk(tmp_path):
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("file systems can be mounted by the superuser alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_study_goes_on_when_there_is_room(undisturbed, disk):
    filler = disk / "filler"
    filler.write_bytes(bytes(440_000))
    out = disk / "study"
    with pytest.raises(CannotWrite, match=r"^cannot write .*: No space left on device$"):
        run_study(small(), out, workers=1)
    done = finish_times(out, small())
    assert len(done) < len(CELLS)
    assert all(condition(out, name, with_weights=name.startswith("train")).is_done for name in done)
    assert unfinished_files(out) == []
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    run_study(small(), out, workers=1)
    assert {name: finish_times(out, small())[name] for name in done} == done, "nothing is done twice"
    assert tables_of(out) == undisturbed[1]


def test_a_read_only_folder_is_one_line(disk, monkeypatch, capsys):
    from wobbliness import cli

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    monkeypatch.setattr(sys, "argv", ["wobbliness", "study", "run", "digits", "--out", str(disk / "study"), "--only", "C2"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.out) == (1, "")
    assert captured.err == f"error: cannot write {disk / 'study'}: Read-only file system\n"


def test_a_file_is_complete_or_absent(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"before")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match="No space left on device"):
        write_bytes(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
