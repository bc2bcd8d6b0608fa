"""Failing cells, Ctrl-C, full and read-only disks: one clear line each, and the rest goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from small_study import (
    FAULTY,
    do_with_fault,
    do_with_faults,
    finish_times,
    hear_interrupts,
    held_cells,
    needs,
    slow,
    small,
    start_runner,
    tables_of,
    unfinished_files,
    wait_until,
    workers_of,
)

from wobbliness.runtime.files import CannotWrite
from wobbliness.study.plan import plan
from wobbliness.study.records.failures import read_failure
from wobbliness.study.records.integrity import cells_left, check_integrity
from wobbliness.study.running.runner import StudyFailed, run_study
from wobbliness.study.running.status import study_status

CELLS = plan(small())


LIMIT = 30
MESSAGES = {
    "raises": "RuntimeError: the classifier lost its mind",
    "no memory": "MemoryError:",
    "killed": "its process was killed (SIGKILL), as it happens where memory runs out",
    "exits": "its process ended with exit code 3",
    "hangs": f"took longer than the limit of {LIMIT} seconds for a cell",
}
MEASUREMENTS = [cell.name for cell in CELLS if cell.kind == "measure" and FAULTY not in needs(cell)]


def test_every_fault_costs_its_cell_alone(tmp_path):
    """All faults that end at once, in one study, of cells that no other one needs."""
    out, faults = (
        tmp_path / "study",
        dict(zip(MEASUREMENTS, ("raises", "no memory", "killed", "exits"), strict=False)),
    )
    with pytest.raises(StudyFailed, match=f"^{len(faults)} of {len(CELLS)} cells failed"):
        run_study(small(), out, workers=2, do=do_with_faults(faults))
    assert set(cells_left(out, CELLS)) == set(faults)
    for name, fault in faults.items():
        failed = read_failure(out, name)
        assert failed.message == MESSAGES[fault]
        assert ("Traceback" in failed.details) == (fault in ("raises", "no memory"))
    assert {failed.cell for failed in study_status(small(), out).failed} == set(faults)
    assert unfinished_files(out) == []


def test_a_cell_that_hangs_is_stopped_after_its_limit(tmp_path):
    with pytest.raises(StudyFailed, match="took longer than the limit of 5 seconds for a cell"):
        run_study(
            small(),
            tmp_path / "study",
            only=["C3"],
            workers=2,
            do=do_with_fault("hangs"),
            cell_timeout=5,
        )
    left = cells_left(tmp_path / "study", plan(small(), ["C3"]))
    assert left.keys() == {cell.name for cell in plan(small(), ["C3"])}
    assert study_status(small(), tmp_path / "study").failed == (
        read_failure(tmp_path / "study", FAULTY),
    )
    assert unfinished_files(tmp_path / "study") == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        item if item[0] == "raises" else pytest.param(*item, marks=pytest.mark.scale)
        for item in MESSAGES.items()
    ],
)
def test_a_fault_costs_its_cell_and_what_needs_it_and_the_rest_goes_on(
    uninterrupted, tmp_path, fault, message
):
    out, dependent = tmp_path / "study", {cell.name for cell in CELLS if FAULTY in needs(cell)}
    with pytest.raises(StudyFailed, match=f"^1 of {len(CELLS)} cells failed; {FAULTY}: ") as raised:
        run_study(
            small(),
            out,
            workers=2,
            do=do_with_fault(fault),
            cell_timeout=LIMIT if fault == "hangs" else None,
        )
    assert message in str(raised.value)
    assert set(cells_left(out, CELLS)) == {FAULTY} | dependent
    failed = read_failure(out, FAULTY)
    assert failed.message == message
    assert ("Traceback" in failed.details) == (fault in ("raises", "no memory"))
    assert study_status(small(), out).failed == (failed,)
    if fault == "raises":
        with pytest.raises(StudyFailed, match="lost its mind"):
            run_study(small(), out, workers=1, retry=False)
        assert set(cells_left(out, CELLS)) == {FAULTY} | dependent
        run_study(small(), out, workers=1)
        assert read_failure(out, FAULTY) is None
        assert tables_of(out) == uninterrupted[1]
    assert unfinished_files(out) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_at_once_with_one_line(tmp_path, workers):
    out = tmp_path / "study"
    process = start_runner(out, "--workers", workers, recipe="slow")
    cells = plan(slow())
    wait_until(lambda: held_cells(out, cells))
    assert study_status(slow(), out).running
    time.sleep(0.5)
    started, children = time.monotonic(), workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    printed, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert printed == ""
    assert (
        said == "interrupted: what is recorded is kept, and the same command goes on from there\n"
    )
    assert unfinished_files(out) == []
    assert len(children) == (workers if workers > 1 else 0)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 5)
    assert study_status(slow(), out).running == ()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads masks from /proc")
def test_ctrl_c_is_hidden_from_every_worker_from_its_first_instruction():
    # in a process of its own: only the first spawn of a process starts multiprocessing's tracker
    script = (
        "import re\nfrom pathlib import Path\n"
        "from wobbliness.study.running.worker_process import WorkerProcess\n"
        "def blocks_interrupts(pid):\n"
        "    status = Path(f'/proc/{pid}/status').read_text()\n"
        "    return bool(int(re.search('SigBlk:\\t(.*)', status)[1], 16) & 2)\n"
        "if __name__ == '__main__':\n"
        "    workers = [WorkerProcess(Path('.'), None, None) for _ in range(2)]\n"
        "    print([blocks_interrupts(worker.pid) for worker in workers], "
        "blocks_interrupts('self'))\n"
        "    [worker.kill() for worker in workers]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[True, True] False\n", "")


def test_a_second_ctrl_c_does_not_wait_for_the_first():
    script = (
        "import time\nfrom wobbliness.runtime.interrupts import clean_interrupts\n"
        "with clean_interrupts():\n    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n    finally:\n"
        "        print('cleaning', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "interrupted\n")


@pytest.fixture
def disk(mounted):
    """A file system of half a megabyte."""
    return mounted("512k")


def test_a_full_disk_is_one_line_and_the_study_goes_on_when_there_is_room(uninterrupted, disk):
    filler = disk / "filler"
    filler.write_bytes(bytes(440_000))
    out = disk / "study"
    with pytest.raises(CannotWrite, match=r"^cannot write .*: No space left on device$"):
        run_study(small(), out, workers=1)
    done = finish_times(out, small())
    assert len(done) < len(CELLS)
    assert all(
        check_integrity(out, name, with_weights=name.startswith("train")).is_done for name in done
    )
    assert unfinished_files(out) == []
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    run_study(small(), out, workers=1)
    assert {name: finish_times(out, small())[name] for name in done} == done, (
        "nothing is done twice"
    )
    assert tables_of(out) == uninterrupted[1]


def test_a_read_only_folder_is_one_line(disk, monkeypatch, capsys):
    from wobbliness.cli import main as cli

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    monkeypatch.setattr(
        sys,
        "argv",
        ["wobbliness", "study", "run", "digits", "--out", str(disk / "study"), "--only", "C2"],
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    # Found before the work, as for the other commands: bad input.
    assert (stopped.value.code, captured.out) == (2, "")
    said = f"expected a folder that can be written, got {disk / 'study'}: Read-only file system"
    assert captured.err == f"error: {said}\n"
