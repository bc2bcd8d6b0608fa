"""Ray: equal records and votes, also when a node dies. Every cluster is bound to 127.0.0.1."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import linear_model
from small_study import (
    FAULTY,
    do_on_a_node,
    do_with_fault,
    small,
    start_runner,
    tables_of,
    unfinished_files,
    wait_until,
)

from wobbliness import sweep, sweep_on_ray
from wobbliness.cli import main as cli
from wobbliness.cli.options import EngineName, prepare_engine
from wobbliness.runtime.progress import ignore_progress
from wobbliness.runtime.ray import ray_cluster
from wobbliness.sampling.ray import joined
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Resources
from wobbliness.study.records.failures import read_failure
from wobbliness.study.records.integrity import cells_left
from wobbliness.study.running import ray as ray_engine
from wobbliness.study.running.engine import Job
from wobbliness.study.running.ray import RayEngine
from wobbliness.study.running.runner import Cluster, StudyFailed, run_study
from wobbliness.study.training.device import Place

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """The address of a one-core head node, and a function that sends `add` or `kill` (a node)."""
    command = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "ray_nodes.py")]
    # where nodes find what the tests have cells done by
    places = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True, env=os.environ | places) as nodes:

        def tell(what):
            nodes.stdin.write(f"{what}\n")
            nodes.stdin.flush()
            assert nodes.stdout.readline() == "done\n"

        yield nodes.stdout.readline().strip(), tell
        nodes.stdin.close()


@pytest.fixture(scope="module")
def connected(cluster):
    """The cluster, with this process connected: its workers keep torch imported between tests."""
    with ray_cluster(cluster[0]):
        yield cluster


@pytest.fixture(scope="module")
def uninterrupted(uninterrupted):
    return uninterrupted[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "expected a Ray cluster at 127.0.0.1:1, got"),
        ("127.0.0.1:99999", "expected a Ray cluster at 127.0.0.1:99999, got"),
        ("nowhere", "expected auto, HOST:PORT or ray://HOST:PORT of a Ray cluster, got nowhere"),
    ],
)
def test_no_cluster_is_said_at_once(address, message):
    with pytest.raises(ValueError, match=message), ray_cluster(address):
        pass


def test_a_machine_that_hands_out_cells_needs_no_device_itself(tmp_path):
    place = Place(device="mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(ValueError, match="expected a Ray cluster at 127.0.0.1:1, got"):
        run_study(small(), tmp_path, cluster=Cluster(address="127.0.0.1:1"), place=place)
    with pytest.raises(ValueError, match="expected a device that this machine has"):
        run_study(small(), tmp_path, place=place)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'pip install "wobbliness\[ray\]"'), ray_cluster():
        pass


@pytest.mark.parametrize("safe", ["1", ""])
def test_workers_leave_the_working_folder_out_where_the_program_does(
    cluster, tmp_path, monkeypatch, safe
):
    """Ray itself puts it first on their path, as the second case, the control, shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    with ray_cluster(cluster[0]) as ray:
        path = ray.get(ray.remote(lambda: list(sys.path)).remote())
    assert (str(tmp_path) in path) == (safe == "")


def test_a_study_survives_the_death_of_a_node(connected, uninterrupted, tmp_path):
    address, tell = connected
    out, marks = tmp_path / "study", tmp_path / "marks"
    marks.mkdir()
    tell("add")
    with ray_cluster(address) as ray:
        wait_until(lambda: ray.cluster_resources().get("CPU") == 2)
        head = ray.get_runtime_context().get_node_id()

        def on_the_second():
            return [path.name for path in marks.iterdir() if not path.name.endswith(f"@{head}")]

        def kill_the_second():
            wait_until(on_the_second)
            tell("kill")

        killer = threading.Thread(target=kill_the_second)
        killer.start()
        run_study(small(), out, cluster=Cluster(address=address), do=do_on_a_node(marks, head))
        killer.join()
        lost = [name.partition("@")[0] for name in on_the_second()]
    assert lost
    assert all((marks / f"{name}@{head}").exists() for name in lost)
    assert tables_of(out) == uninterrupted
    assert unfinished_files(out) == []


def test_nodes_that_share_no_folder_use_a_store(cluster, uninterrupted, tmp_path):
    store = f"file://{tmp_path / 'store'}"
    runner = start_runner(
        tmp_path / "study", "--engine", "ray", "--address", cluster[0], "--store", store, "--json"
    )
    said, complaints = runner.communicate(timeout=300)
    assert runner.returncode == 0, complaints
    assert json.loads(said)["claims"]
    assert tables_of(tmp_path / "study") == uninterrupted
    # another folder has it all from the store
    run_study(
        small(), tmp_path / "other", cluster=Cluster(address=cluster[0], store=store), do=do_nothing
    )
    assert tables_of(tmp_path / "other") == uninterrupted
    with pytest.raises(
        ValueError, match=r"expected a store of recipe small with seed 1, got .*store"
    ):
        run_study(small(1), tmp_path / "third", cluster=Cluster(address=cluster[0], store=store))


def do_nothing(*_):
    raise AssertionError("nothing was left to do")


@pytest.mark.parametrize("beginnings", [2, pytest.param(4, marks=pytest.mark.scale)])
def test_a_cell_that_fails_costs_itself_and_those_that_need_it(
    connected, tmp_path, monkeypatch, beginnings
):
    assert ray_engine.MAX_STARTS == 4
    monkeypatch.setattr(ray_engine, "MAX_STARTS", beginnings)
    died = f"its process died {beginnings} times"
    for fault, message in (
        ("raises", "RuntimeError: the classifier lost its mind"),
        ("killed", died),
    ):
        out = tmp_path / fault
        with pytest.raises(StudyFailed, match=message):
            run_study(
                small(),
                out,
                only=["C1", "C3"],
                cluster=Cluster(address=connected[0]),
                do=do_with_fault(fault),
            )
        assert read_failure(out, FAULTY).message == message
        left = cells_left(out, plan(small(), ["C1", "C3"]))
        assert FAULTY in left
        assert len(left) < len(plan(small(), ["C1", "C3"]))


def test_a_study_on_a_cluster_stops_a_cell_that_hangs(connected, tmp_path):
    with pytest.raises(StudyFailed, match="took longer than the limit of 5 seconds"):
        run_study(
            small(),
            tmp_path,
            only=["C3"],
            cluster=Cluster(address=connected[0]),
            cell_timeout=5,
            do=do_with_fault("hangs"),
        )


def test_shards_give_the_votes_of_one_sweep(connected):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    images, keys = np.random.default_rng(0).random((11, 1, 4, 4), dtype=np.float32), np.arange(11)
    whole = sweep(model, images, [0.1, 0.5], draws=50, seed=3, keys=keys)
    seen = []
    settings = {
        "keys": keys,
        "shard_size": 4,
        "progress": lambda done, total: seen.append((done, total)),
    }
    parts = sweep_on_ray(lambda: model, images, [0.1, 0.5], 50, 3, address=connected[0], **settings)
    for sigma in whole:
        np.testing.assert_array_equal(parts[sigma].counts, whole[sigma].counts)
        np.testing.assert_array_equal(parts[sigma].keys, whole[sigma].keys)
    assert seen == [(4, 11), (8, 11), (11, 11)]
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
        sweep_on_ray(lambda: model, images + 1, [0.1], 10, address=connected[0])


def test_the_command_gives_the_same_answer_on_a_cluster(connected, tmp_path, monkeypatch, capsys):
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(
        tmp_path / "images.npy", np.random.default_rng(1).random((5, 1, 8, 8), dtype=np.float32)
    )
    monkeypatch.chdir(tmp_path)
    answers = []
    for engine in (["--engine", "local"], ["--engine", "ray", "--address", connected[0]]):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "wobbliness",
                "measure",
                "model.onnx",
                "images.npy",
                "--sigma",
                "0.3",
                "--json",
                *engine,
            ],
        )
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        answers.append(capsys.readouterr().out)
    assert json.loads(answers[0])
    assert answers[1] == answers[0]


def test_classes_beyond_those_of_a_part_get_a_column():
    low, high = ((lambda batch, label=label: np.full(len(batch), label)) for label in (0, 2))
    images = np.full((2, 3), 0.5)
    parts = [sweep(classifier, images, [0.1], draws=10) for classifier in (low, high)]
    assert joined(parts).votes[0].counts.tolist() == [[10, 0, 0]] * 2 + [[0, 0, 10]] * 2
    with pytest.raises(ValueError, match="do not go together"):
        joined([parts[0], sweep(low, images, [0.2], draws=10)])
    with pytest.raises(ValueError, match="do not go together"):
        joined([parts[0], sweep(low, images, [0.1], draws=10, first_draw=10)])


@pytest.mark.parametrize(("cpus", "seconds", "num_ended"), [(2.0, 2.0, 0), (1.0, 90.0, 1)])
def test_a_cell_waits_for_the_resources_of_its_recipe(
    connected, tmp_path, cpus, seconds, num_ended
):
    """There is one core: a cell that asks for two is not started, one that asks for one is."""
    settings = {
        "max_cells": None,
        "cell_timeout": None,
        "store": None,
        "progress": ignore_progress,
        "notice": ignore_progress,
    }
    recipe = dataclasses.replace(small(), resources=Resources(cpus=cpus))
    with ray_cluster(connected[0]) as ray:
        engine = RayEngine(ray, tmp_path, recipe, do_nothing, **settings)
        engine.submit(Job(cell=plan(recipe)[0]))
        assert len(engine.wait(seconds)) == num_ended
        engine.close()


def test_options_of_ray_need_ray():
    with pytest.raises(
        ValueError, match="expected --engine ray with --address and --store, got --engine local"
    ):
        prepare_engine(EngineName.LOCAL, address="auto", store="s3://bucket/study")
