"""A perturbation, an attack and a detector of one file each way: library, study, command line."""

import functools
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run

import wobbliness
from wobbliness.attacks.base import Attack
from wobbliness.runtime.user_files import load_object
from wobbliness.study.identity import identity, written
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe, recipe_by_name, recipe_digest
from wobbliness.study.recorded import Recorded, check_described
from wobbliness.study.records.record import read_recipe, read_record
from wobbliness.study.specs import NetworkSpec, cell_name
from wobbliness.study.training.saved_networks import load_network
from wobbliness.study.typed_json import from_json

TOYS = Path(__file__).parents[1] / "helpers" / "toys.py"


def command(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "wobbliness", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        **settings,
    )


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The file at a place of its own, from which it can vanish."""
    return Path(shutil.copy(TOYS, tmp_path_factory.mktemp("toys")))


@pytest.fixture(scope="module")
def finished(toys, tmp_path_factory):
    """The study, run by the command with two worker processes."""
    out = tmp_path_factory.mktemp("study") / "out"
    command("study", "run", f"{toys}:study", "--out", out, "--workers", 2)
    return out


def test_the_study_has_rows_of_all_three(finished):
    networks = pd.read_csv(finished / "tables" / "networks.csv").set_index("trigger")
    assert networks.backdoor_accuracy["bar-1"] > 0.9
    detectors = pd.read_csv(finished / "tables" / "detectors.csv").set_index("trigger")
    assert set(detectors.detector) == {"left-edge"}
    assert detectors.auc["bar-1"] == 1.0
    assert detectors["true_positives_at_0.01"]["bar-1"] == 1.0
    assert detectors.is_active["bar-1"]
    assert detectors.auc["square"] < 0.9, "control: the patch of a clean network is elsewhere"
    perturbed = pd.read_csv(finished / "tables" / "perturbations.csv")
    assert set(perturbed.perturbation) == {"negative-0.1", "gaussian-0.15"}
    assert (perturbed.num_clean == 20).all()
    active = perturbed[perturbed.is_active].set_index("perturbation")
    assert active.triggered_mean["gaussian-0.15"] < active.clean_mean["gaussian-0.15"]
    page = (finished / "report.html").read_text()
    assert all(name in page for name in ("bar-1", "left-edge", "negative-0.1"))
    roc = pd.read_csv(finished / "tables" / "tests.csv")
    assert set(roc.trigger[roc.kind == "active"]) == {"bar-1"}


def test_the_records_are_read_without_the_file(finished, toys, tmp_path):
    """Reading a stranger's study runs nothing of what its records name."""
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from wobbliness.study.report.report import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
        "assert not [name for name in sys.modules if name.startswith('wobbliness_file_')]\n"
    )
    shutil.rmtree(again / "tables")
    subprocess.run([sys.executable, "-c", script, str(again)], check=True)
    for path in (finished / "tables").iterdir():
        assert (again / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    recipe = read_recipe(finished)
    live = recipe_by_name(f"{toys}:study", 0)
    assert [cell.name for cell in plan(recipe)] == [cell.name for cell in plan(live)]
    assert recipe_digest(recipe) == recipe_digest(live)
    assert isinstance(recipe.detectors[0], Recorded)
    with pytest.raises(ValueError, match="expected Bar bar-1 itself, got a record of it"):
        recipe.detection_networks[1].attack.apply(np.zeros((1, 1, 8, 8), np.float32))


def test_a_setting_is_another_cell_and_a_default_is_none(toys):
    bar = load_object(f"{toys}:Bar")
    network = recipe_by_name(f"{toys}:study", 0).detection_networks[1]
    settings = {name: value for name, value in vars(network).items() if name != "trigger"}
    assert cell_name(NetworkSpec(**settings, trigger=bar(1))) == cell_name(network)
    assert cell_name(NetworkSpec(**settings, trigger=bar(2))) != cell_name(network)
    assert identity(network)["trigger"] == {"kind": "Bar", "name": "bar-1", "settings": {}}
    assert written(NetworkSpec(**settings, trigger="dot"))["trigger"] == "dot"
    with pytest.raises(ValueError, match="expected SimpleNamespace.trigger as Attack, got 3"):
        check_described(types.SimpleNamespace(**settings, trigger=3), "trigger", Attack)


@pytest.mark.parametrize(
    "trigger",
    [
        {"kind": "Bar", "name": "../bar", "settings": {}},
        {"kind": "Bar", "name": "bar", "settings": []},
        {"kind": "Bar", "name": "bar", "settings": {"x": "y" * 20_000}},
        {"kind": "Bar", "name": "bar"},
        ["bar"],
    ],
)
def test_descriptions_of_another_form_are_refused(finished, tmp_path, trigger):
    from wobbliness.runtime.files import sealed

    out = tmp_path / "records"
    shutil.copytree(finished / "records", out)
    path = min(out.glob("train-*.json"))
    content = json.loads(path.read_text())
    content["spec"]["trigger"] = trigger
    path.write_text(json.dumps(sealed({k: v for k, v in content.items() if k != "seal"})))
    with pytest.raises(ValueError, match="expected a whole record"):
        read_record(out, path.stem)


def test_settings_nested_beyond_reason_are_refused():
    nested = functools.reduce(lambda inner, _: [inner], range(10**5), 0)
    description = {"kind": "Bar", "name": "bar", "settings": {"x": nested}}
    plain = {"name": "deep", "seed": 0, "sigmas": [0.1], "detectors": [description]}
    with pytest.raises(ValueError, match="expected short settings of Recipe.detectors"):
        from_json(Recipe, plain)


def test_the_measure_command_takes_them_by_file_and_name(
    monkeypatch, capsys, finished, toys, tmp_path
):
    network = min((finished / "networks").glob("*.safetensors"))
    images = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    code, said, err = run(
        *(monkeypatch, capsys, "measure", network, tmp_path / "images.npy"),
        *("--perturbation", f"{toys}:Negative", "--trigger", f"{toys}:Bar"),
        *("--draws", 40, "--json"),
    )
    assert code == 0, err
    (found,) = json.loads(said)["measurements"]
    stamped = load_object(f"{toys}:Bar")().apply(images)
    negative = load_object(f"{toys}:Negative")()
    expected = wobbliness.measure(load_network(network), stamped, negative, draws=40)
    assert (found["perturbation"], found["sigma"]) == ("negative-0.2", None)
    assert found["counts"] == expected.counts.tolist()
