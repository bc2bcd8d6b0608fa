"""Several runners in one folder, kills at random moments, and what status says of it."""

import importlib.util
import json
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from small_study import (
    RUN,
    finish_times,
    held_cells,
    kill,
    slow,
    small,
    start_runner,
    tables_of,
    unfinished_files,
    wait_until,
    workers_of,
)

from wobbliness.cli import main as cli
from wobbliness.cli import study_progress
from wobbliness.study.plan import plan
from wobbliness.study.records.failures import failure, write_failure
from wobbliness.study.records.integrity import cells_left
from wobbliness.study.records.locks import held_since, lock, num_runners
from wobbliness.study.running.engine import Job, Outcome, Result
from wobbliness.study.running.runner import run_study
from wobbliness.study.running.schedule import Schedule
from wobbliness.study.running.status import study_status

CELLS, SLOW_CELLS = plan(small()), plan(slow())


def test_two_runners_share_the_cells(uninterrupted, tmp_path):
    out = tmp_path / "study"
    runners = [start_runner(out, "--workers", 1, "--json") for _ in range(2)]
    answers = [runner.communicate(timeout=300) for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], answers
    assert [said for _, said in answers] == ["", ""]
    assert json.loads(answers[0][0])["claims"] == json.loads(answers[1][0])["claims"]
    assert cells_left(out, CELLS) == {}
    assert tables_of(out) == uninterrupted[1]
    assert num_runners(out) == 0
    assert unfinished_files(out) == []


def test_a_runner_goes_on_with_others_and_comes_back(uninterrupted, tmp_path):
    """A cell that another runner is running is waited for, and not done again."""
    out = tmp_path / "study"
    shutil.copytree(uninterrupted[0], out)
    cells = [cell for cell in CELLS if cell.kind == "measure"][:3]
    for cell in cells:
        (out / "records" / f"{cell.name}.json").rename(tmp_path / cell.name)
    order = []

    def progress(name, *_):
        if name not in order:
            order.append(name)
        if name == cells[2].name and held_since(
            out, cells[0].name
        ):  # meanwhile the other one has finished the first
            (tmp_path / cells[0].name).rename(out / "records" / f"{cells[0].name}.json")
            held.__exit__(None, None, None)

    held = lock(out, cells[0].name)
    held.__enter__()
    written = (tmp_path / cells[0].name).stat().st_mtime_ns
    run_study(small(), out, workers=1, progress=progress)
    assert order == [cells[1].name, cells[2].name, cells[0].name]
    assert finish_times(out, small())[cells[0].name] == written
    assert tables_of(out) == uninterrupted[1]


def test_a_lock_dies_with_its_owner(tmp_path):
    out = tmp_path / "study"
    process = start_runner(out, "--workers", 2, recipe="slow")
    wait_until(lambda: len(held_cells(out, SLOW_CELLS)) == 2)
    assert len(study_status(slow(), out).running) == 2
    assert num_runners(out) == 1
    workers = workers_of(process)
    kill(process.pid)
    process.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    found = study_status(slow(), out)
    assert (found.running, found.num_runners, num_runners(out)) == ((), 0, 0)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.scale)])
def test_kills_at_random_moments_change_nothing(uninterrupted, tmp_path, kills):
    spec = importlib.util.spec_from_file_location(
        "chaos", Path(__file__).parents[2] / "benchmarks" / "chaos.py"
    )
    chaos = importlib.util.module_from_spec(spec)
    sys.modules["chaos"] = chaos
    spec.loader.exec_module(chaos)
    chaos.COMMAND[2] = RUN  # which draws one figure, as everywhere here
    recipe = str(Path(__file__).parents[1] / "helpers" / "small_study.py") + ":small"
    found = chaos.kill_at_random(
        recipe, small(), tmp_path / "study", uninterrupted[0], kills=kills, seed=1, pause=3.0
    )
    assert sum(found.num_kills.values()) == kills
    assert (found.done_twice, found.differing_tables, found.unfinished_files) == ([], [], [])
    assert found.num_starts > kills


def test_a_busy_cell_is_asked_for_again_and_a_failed_one_takes_what_needs_it_along(monkeypatch):
    monkeypatch.setattr("wobbliness.study.running.schedule.RETRY_SECONDS", 0.05)
    first, second = CELLS[0], CELLS[1]
    assert second.needs == first.name
    schedule = Schedule([Job(cell=first), Job(cell=second)], {})
    assert schedule.take().cell == first
    assert schedule.take() is None
    schedule.note(Outcome(cell=first.name, result=Result.BUSY))
    assert schedule.take() is None
    time.sleep(0.06)
    assert schedule.take().cell == first
    schedule.note(Outcome(cell=first.name, result=Result.FAILED, message="no"))
    assert schedule.is_finished
    assert schedule.failures == {first.name: "no"}
    assert Schedule([Job(cell=first), Job(cell=second)], {first.name: "before"}).is_finished


def status_line(monkeypatch, capsys, out, *options):
    monkeypatch.setattr(sys, "argv", ["wobbliness", "study", "status", str(out), *options])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    return capsys.readouterr().out


def test_status_of_a_live_a_dead_and_a_finished_run(monkeypatch, capsys, uninterrupted, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(uninterrupted[0], out)
    assert (
        status_line(monkeypatch, capsys, out)
        == f"small, seed 0: {len(CELLS)} of {len(CELLS)} cells done\n"
    )
    running, failed, left = [cell for cell in CELLS if cell.kind == "measure"][:3]
    for cell in (running, failed, left):
        (out / "records" / f"{cell.name}.json").unlink()
    write_failure(out, failure(failed.name, "RuntimeError: no"))
    start = f"small, seed 0: {len(CELLS) - 3} of {len(CELLS)} cells done"
    dead = status_line(monkeypatch, capsys, out)
    assert re.match(rf"{start}, 1 failed, 2 left; about \d s left; no runner is at work\n", dead)
    with lock(out, running.name), lock(out, "runner-here-1"):
        live = status_line(monkeypatch, capsys, out)
        answer = json.loads(status_line(monkeypatch, capsys, out, "--json"))
    assert re.match(
        rf"{start}, 1 running, 1 failed, 1 left; about \d s left\n"
        rf"running: {running.name}, for \d s\n",
        live,
    )
    assert f"failed: {failed.name}: RuntimeError: no\n" in live
    assert answer["left"] == [left.name]
    assert [entry["cell"] for entry in answer["running"]] == [running.name]
    assert answer["num_done"] == len(CELLS) - 3


def test_time_left_follows_from_recorded_durations(uninterrupted, tmp_path):
    """Two trainings of one length: one is recorded with ten seconds, so the other takes as long."""
    out = tmp_path / "study"
    shutil.copytree(uninterrupted[0], out)
    first, second = [cell.name for cell in CELLS if cell.kind == "train"]
    for cell in CELLS:
        if cell.name != first:
            (out / "records" / f"{cell.name}.json").unlink()
    path = out / "records" / f"{first}.json"
    content = json.loads(path.read_text())
    content = {name: value for name, value in content.items() if name not in ("checksum", "files")}
    content["provenance"]["duration_seconds"] = 10.0
    path.write_text(json.dumps(content))
    found = study_status(small(), out)
    assert found.seconds_left == pytest.approx(10.0)
    assert found.kinds_unknown == ("cleanse", "measure", "response", "universal")
    assert (
        "at least 10 s, not known yet for cleanse, measure" in study_progress.status_lines(found)[0]
    )
    with lock(out, second):
        assert study_status(small(), out).seconds_left == pytest.approx(10.0, abs=1.0)


def test_watching_ends_when_all_is_done_or_someone_has_seen_enough(
    monkeypatch, capsys, uninterrupted, tmp_path
):
    assert "cells done" in status_line(monkeypatch, capsys, uninterrupted[0], "--watch")
    out = tmp_path / "study"
    shutil.copytree(uninterrupted[0], out)
    path = out / "records" / f"{CELLS[-1].name}.json"
    path.rename(tmp_path / "record")
    pauses = []

    def pause(_seconds):
        pauses.append(1)
        (tmp_path / "record").rename(path)

    monkeypatch.setattr(study_progress.time, "sleep", pause)
    assert f"{len(CELLS)} of {len(CELLS)} cells done" in status_line(
        monkeypatch, capsys, out, "--watch"
    )
    assert pauses == [1]
    path.unlink()
    monkeypatch.setattr(
        study_progress.time, "sleep", lambda _seconds: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert "1 left" in status_line(monkeypatch, capsys, out, "--watch")


def test_a_lock_is_held_once(tmp_path):
    assert held_since(tmp_path, "a") is None
    with lock(tmp_path, "a") as is_ours, lock(tmp_path, "a") as is_ours_again:
        assert (is_ours, is_ours_again) == (True, False)
        assert held_since(tmp_path, "a") == pytest.approx(time.time(), abs=10)
    assert held_since(tmp_path, "a") is None
