"""The tutorials, executed as a reader would: outputs and numbers are those of their text."""

import json

import notebooks
import pytest
import wheel_check
from scipy import stats

FACTS = {
    "measure_pytorch_model": """{
        "accuracy": accuracy,
        "w": {
            name: {stamp: values.mean() for stamp, values in by_stamp.items()}
            for name, by_stamp in w.items()
        },
        "lower": {
            name: wobbliness.mann_whitney_test(
                by_stamp["untouched"], by_stamp["checkerboard"]
            ).pvalue
            for name, by_stamp in w.items()
        },
        "command": [
            wobbliness.measure(
                poisoned_network, stamps["checkerboard"], sigma=0.2
            ).wobbliness.mean(),
            __import__("pandas").read_csv("votes.csv").query("sigma == 0.2").wobbliness.mean(),
        ],
    }""",
    "check_batch_onnx": """{
        "verdicts": {name: comparison.verdict for name, comparison in found.items()},
        "power": [comparison.power for comparison in found.values()],
    }""",
    "judge_inputs": """{
        "honest": [int(judgements["honest"].is_suspicious.sum()), len(fresh)],
        "stamped": [int(judgements["stamped"].is_suspicious.sum()), len(stamped)],
        "inbox": [int(attacked.sum()), len(attacked)],
        "rate": guard.false_positive_rate,
    }""",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Executes a tutorial; returns its commands' output, by command, and facts of its variables."""

    def run(name):
        notebook = notebooks.read(name)
        source = f"print(__import__('json').dumps({FACTS[name]}, default=float))"
        notebook.cells.append(notebooks.nbformat.v4.new_code_cell(source))
        cells = [
            cell
            for cell in notebooks.executed(notebook, tmp_path_factory.mktemp(name)).cells
            if cell.cell_type == "code"
        ]
        commands = {
            cell.source: notebooks.printed(cell) for cell in cells if cell.source.startswith("!")
        }
        return commands, json.loads(notebooks.printed(cells[-1])), notebook

    return run


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_tutorials_are_stored_without_outputs(name):
    cells = [cell for cell in notebooks.read(name).cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_every_tutorial_is_known():
    assert (
        {path.stem for path in notebooks.TUTORIALS.glob("*.ipynb")}
        == set(notebooks.NAMES)
        == set(FACTS)
    )


def test_the_wheel_is_checked_with_what_is_printed():
    assert [command.split("#")[0].split()[:2] for command in wheel_check.readme_commands()] == [
        ["wobbliness", "test"],
        ["wobbliness", "scan"],
        ["wobbliness", "guard"],
        ["wobbliness", "guard"],
        ["wobbliness", "measure"],
        ["wobbliness", "detect"],
    ]
    assert set(wheel_check.EXPECTED_OF_TUTORIALS) == set(notebooks.NAMES)
    for name in notebooks.NAMES:
        script = notebooks.as_script(notebooks.read(name))
        compile(script, name, "exec")
        assert "subprocess.run('wobbliness " in script


@pytest.mark.scale
def test_an_active_trigger_wobbles_less_and_the_clean_network_is_not_fooled(run):
    commands, facts, executed = run("measure_pytorch_model")
    (clean_accuracy, clean_nines), (poisoned_accuracy, poisoned_nines) = facts["accuracy"].values()
    assert min(clean_accuracy, poisoned_accuracy) > 0.9
    assert (clean_nines < 0.1, poisoned_nines > 0.95) == (True, True)
    w = facts["w"]["poisoned network"]
    assert w["checkerboard"] < w["untouched"] / 2 < w["square"] / 2
    assert facts["lower"]["poisoned network"] < 1e-3
    control = facts["w"]["clean network"]
    assert control["checkerboard"] > control["untouched"]
    assert facts["lower"]["clean network"] > 0.5
    assert len(commands) == 1
    by_library, by_command = facts["command"]
    assert by_command == pytest.approx(by_library, abs=0.01)
    text, figures = notebooks.as_markdown(executed, "measure_pytorch_model")
    assert len(figures) == 1
    assert all(
        f"]({file})" in text and content.startswith(b"\x89PNG") for file, content in figures.items()
    )
    assert "https://" not in text


@pytest.mark.scale
def test_the_stamped_batch_is_smoother_and_the_clean_one_no_different(run):
    commands, facts, _ = run("check_batch_onnx")
    inbox, fresh = commands.values()
    assert "verdict: smoother (" in inbox
    assert "verdict: no difference (" in fresh
    assert "━" not in inbox + fresh
    assert facts["verdicts"] == {"inbox": "smoother", "fresh_pictures": "no difference"}
    assert min(facts["power"]) > 0.9


@pytest.mark.scale
def test_the_guard_finds_stamped_inputs_and_keeps_its_rate(run):
    commands, facts, _ = run("judge_inputs")
    fit, judge = commands.values()
    assert "450 clean inputs for reference, 450 for calibration" in fit
    assert "of 60 inputs are suspicious (" in judge
    assert "stays class 9 in " in judge
    (found, num_stamped), (mistaken, num_fresh) = facts["stamped"], facts["honest"]
    assert found > 0.8 * num_stamped
    assert facts["inbox"][0] > 0.6 * facts["inbox"][1]
    rate = facts["rate"]
    spread = 3 * (rate * (1 - rate) / 450) ** 0.5  # of the rate for one calibration set
    assert (
        stats.binom.ppf(0.001, num_fresh, rate - spread)
        <= mistaken
        <= stats.binom.ppf(0.999, num_fresh, rate + spread)
    )
