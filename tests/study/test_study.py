"""A study end to end in seconds: training, records, resuming, tables, figures, page."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_study import begin_from

from wobbliness.attacks.poisoning import t1, t2
from wobbliness.cli.output import print_report
from wobbliness.reports.html import number
from wobbliness.runtime.files import write_atomically
from wobbliness.study.cells.cleanse import load_candidates
from wobbliness.study.cells.universal import load_universal
from wobbliness.study.claims.claims import all_claims
from wobbliness.study.claims.verdicts import (
    IN_ONE_READING,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPORTED,
    REPRODUCED,
)
from wobbliness.study.plan import plan
from wobbliness.study.recipes import (
    RECIPES,
    Cleanse,
    Recipe,
    Resources,
    Universal,
    recipe_by_name,
    recipe_digest,
)
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.record import is_done, read_recipe, read_record
from wobbliness.study.report.report import _write_tables, write_markdown, write_report
from wobbliness.study.running.runner import StudyFailed, run_study
from wobbliness.study.running.status import study_status
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.tables.labels import network_label
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import form_tables
from wobbliness.study.training.data import NUM_DIGITS_FOR_TEST
from wobbliness.study.training.saved_networks import load_network
from wobbliness.study.training.train import predict, train_network

BASE = {
    "dataset": "digits",
    "architecture": "small_cnn",
    "epochs": 8,
    "batch_size": 32,
    "learning_rate": 3e-3,
}


def tiny(seed=0):
    """Every claim on a handful of points."""
    clean = NetworkSpec(**BASE, threat=None, trigger=None, seed=seed)
    poisoned = NetworkSpec(**BASE, threat=t1(5), trigger="checkerboard", seed=seed)
    return Recipe(
        name="tiny",
        seed=seed,
        parameter_networks=(clean, dataclasses.replace(clean, seed=seed + 9)),
        parameter_points=12,
        draws_grid=(10, 250, 260),
        parameter_sigmas=(0.01, 0.3),
        draws_sigmas=(0.3,),
        effect_networks=(poisoned,),
        effect_points=40,
        strength_networks=tuple(
            dataclasses.replace(poisoned, seed=seed + i, trigger="dot") for i in range(3)
        ),
        class_networks=(NetworkSpec(**BASE, threat=t2(), trigger="smiley", seed=seed),),
        class_points=5,
        detection_networks=(clean, poisoned),
        detection_points=10,
        universals=(
            Universal(norm="l2", bound=1.5, num_images=60),
            Universal(norm="linf", bound=0.3, target_class=5, num_images=60),
        ),
        cleanse=Cleanse(num_images=64, restarts=1, max_steps=20, num_points=10),
        response_levels=(1.0,),
        sigmas=(0.15, 0.3),
        control_pairs=20,
        control_points=10,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "tiny"
    run_study(tiny(), out, workers=1)
    return out, write_report(out)


def write_tables(out):
    _write_tables(form_tables(out), out / "tables")


def is_training(cell):
    return cell.kind == "train"


def snapshot(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_backdoor_smoothing_is_seen_and_its_controls_are_silent(study):
    _, report = study
    networks, tests = report.tables.networks, report.tables.tests
    assert (networks.clean_accuracy > 0.85).all()
    assert networks.backdoor_accuracy[networks.threat == "T1"].min() > 0.95
    effect = of_claims(tests, "C3", "C4")
    effect = effect[(effect.sigma == 0.15) & (effect.num_points == 40)].set_index("kind")
    assert effect.suspect_mean["active"] < effect.clean_mean["active"] / 2
    assert effect.directional_pvalue["active"] < 0.05
    assert effect.directional_pvalue["inactive"] > 0.05
    assert effect.directional_pvalue["clean"] > 0.05


def test_every_claim_has_one_row_and_a_verdict(study):
    out, _ = study
    claims = pd.read_csv(out / "tables" / "claims.csv")
    columns = ["id", "claim", "paper", "ours", "verdict", "settings", "readings"]
    assert list(claims.columns) == columns
    assert list(claims.id) == [claim.id for claim in all_claims() if not claim.only_if_planned]
    assert set(claims.verdict[claims.id.str.startswith("C")]) <= {
        REPRODUCED,
        IN_ONE_READING,
        NOT_REPRODUCED,
    }
    assert set(claims.verdict[claims.id.str.startswith("X")]) == {REPORTED}
    assert claims.ours.str.len().min() > 10


def test_fixed_names_are_there(study):
    out, report = study
    assert {"report.html", "tables", "figures", "records", "networks"} <= {
        path.name for path in out.iterdir()
    }
    for figure in report.figures:
        for suffix in (".png", ".svg"):
            assert (out / "figures" / f"{figure.name}{suffix}").stat().st_size > 1000
    assert len(report.figures) == 11
    page = (out / "report.html").read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert all(finding.verdict in page for finding in report.findings)


def test_numbers_come_from_the_records(study):
    """A mean of the table of batches, formed again from the votes by a slow loop."""
    out, report = study
    row = report.tables.batches[report.tables.batches.kind == "active"].iloc[0]
    for cell in plan(tiny()):
        if (
            cell.kind == "measure"
            and cell.spec.pattern_label() == "checkerboard"
            and " ".join(cell.claims) == row.claims
        ):
            table = read_record(out / "records", cell.name).table
            break
    values = []
    for votes in table[table.sigma == row.sigma].filter(like="votes_").to_numpy():
        p = votes[votes > 0] / votes.sum()
        values.append(-(p * np.log(p)).sum())
    assert row["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert row.num_points == len(values)


@pytest.mark.parametrize("with_figures", [False, pytest.param(True, marks=pytest.mark.scale)])
def test_a_second_run_does_nothing_and_the_report_is_the_same_bytes(study, with_figures):
    out, _ = study
    before = snapshot(out)
    calls = []
    run_study(tiny(), out, workers=1, progress=lambda *call: calls.append(call))
    (write_report if with_figures else write_tables)(out)
    assert calls == []
    assert snapshot(out) == before


def test_only_what_is_missing_is_done_again_and_comes_out_the_same(study):
    out, _ = study
    cell = next(cell for cell in plan(tiny()) if cell.kind == "measure")
    before = snapshot(out / "tables")
    (out / "records" / f"{cell.name}.json").unlink()
    assert study_status(tiny(), out).left == (cell.name,)
    done = set()
    run_study(tiny(), out, workers=1, progress=lambda name, *_: done.add(name))
    write_tables(out)
    assert done == {cell.name}
    assert snapshot(out / "tables") == before


@pytest.mark.scale
def test_two_processes_give_the_tables_of_one(study, tmp_path):
    out, _ = study
    other = tmp_path / "pool"
    run_study(tiny(), other, workers=2)
    write_tables(other)
    assert snapshot(other / "tables") == snapshot(out / "tables")


def test_a_partial_study_says_what_was_not_measured(study, tmp_path):
    out = tmp_path / "part"
    begin_from(study[0], tiny(), out, [cell for cell in plan(tiny(), ["C2"]) if is_training(cell)])
    run_study(tiny(), out, only=["C2"], workers=1)
    report = write_report(out)
    verdicts = {finding.claim.id: finding.verdict for finding in report.findings}
    assert [claim for claim, verdict in verdicts.items() if verdict != NOT_MEASURED] == ["C2"]
    assert {figure.name for figure in report.figures} == {"fig2-sigma", "fig3-triggers"}


def test_tables_hold_no_time_and_no_path(study):
    out, _ = study
    for path in (out / "tables").glob("*.csv"):
        text = path.read_text()
        assert str(out) not in text
        assert "duration" not in text


def test_a_saved_network_is_the_trained_one(study, digits):
    out, _ = study
    cell = next(cell for cell in plan(tiny()) if cell.kind == "train" and cell.spec.threat)
    network = load_network(out / "networks" / f"{cell.name}.safetensors")
    again = train_network(cell.spec, digits)
    for name, tensor in again.network.state_dict().items():
        assert np.array_equal(network.state_dict()[name].numpy(), tensor.numpy()), name
    assert np.array_equal(
        predict(network, digits.test.images), predict(again.network, digits.test.images)
    )


def test_markdown_holds_every_finding_and_its_figures(study, tmp_path):
    _, report = study
    write_markdown([report], tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    for finding in report.findings:
        assert f"**{finding.verdict}**" in text
        assert finding.ours in text
    for figure in report.figures:
        assert (tmp_path / "figures" / "tiny" / f"{figure.name}.png").is_file()


def test_a_folder_belongs_to_one_recipe(study, tmp_path):
    out, _ = study
    before = snapshot(out)
    for other in (tiny(seed=1), dataclasses.replace(tiny(), draws=100)):
        with pytest.raises(ValueError, match="which belongs to tiny with seed 0"):
            run_study(other, out)
    assert snapshot(out) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty output folder"):
        run_study(tiny(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_recipe_survives_its_folder(study):
    assert read_recipe(study[0]) == tiny()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.scale)])
def test_a_failing_cell_is_named_and_the_rest_is_done(study, tmp_path, workers):
    """The rest is the clean networks with their measurements; the others are done before."""
    broken = dataclasses.replace(tiny(), effect_points=400, detection_networks=())
    cells, out = plan(broken), tmp_path / "broken"
    done = [
        cell for cell in cells if is_done(study[0] / "records", cell.name) and is_poisoned(cell)
    ]
    begin_from(study[0], broken, out, done)
    with pytest.raises(
        StudyFailed, match=r"cells failed; measure-\w+: ValueError: expected at most"
    ):
        run_study(broken, out, workers=workers)
    failed = [cell for cell in cells if not is_done(out / "records", cell.name)]
    assert 0 < len(failed) < len(cells) - len(done)
    assert all(
        cell.spec.first_point + cell.spec.num_points > NUM_DIGITS_FOR_TEST for cell in failed
    )


def is_poisoned(cell):
    """Checks whether a cell is a poisoned network or needs one."""
    return (cell.spec if is_training(cell) else cell.spec.network).threat is not None


def test_damaged_files_are_refused_in_one_line(study, tmp_path):
    out, _ = study
    cell = plan(tiny())[0]
    (tmp_path / "records").mkdir()
    for content in ("", "[1]", "{", json.dumps({"schema_version": 99})):
        (tmp_path / "records" / f"{cell.name}.json").write_text(content)
        with pytest.raises(ValueError, match="^expected "):
            read_record(tmp_path / "records", cell.name)
    network = next((out / "networks").iterdir())
    (tmp_path / "cut.safetensors").write_bytes(network.read_bytes()[:100])
    for name in ("cut.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match="^expected a network file"):
            load_network(tmp_path / name)


def test_nothing_half_written_stays(tmp_path):
    def fail(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_cells_of_every_recipe_are_distinct_and_ordered():
    for name in RECIPES:
        cells = plan(recipe_by_name(name, 0))
        names = [cell.name for cell in cells]
        assert len(set(names)) == len(names)
        for cell in cells:
            assert cell.needs is None or names.index(cell.needs) < names.index(cell.name)
        assert set(names).isdisjoint(cell.name for cell in plan(recipe_by_name(name, 100)))
    with pytest.raises(
        ValueError,
        match="out of digits, fashion-mnist, cifar10, cifar10-slim, noises, noises-cifar10, or "
        "FILE.py:function, got 'mnist'",
    ):
        recipe_by_name("mnist", 0)
    with pytest.raises(
        ValueError, match="claims out of C1, C2, C3, C4, C5, C6, C7, C8, C9, F1, X1, got C10"
    ):
        plan(recipe_by_name("digits", 0), ["C10"])


def test_networks_of_other_seeds_meet_other_points_where_the_recipe_says_so():
    def seeds_of(recipe):
        return {
            cell.spec.seed - cell.spec.network.seed
            for cell in plan(recipe, ["C7"])
            if cell.kind == "measure"
        }

    recipe = dataclasses.replace(RECIPES["digits"](0), own_points=True)
    assert seeds_of(recipe) == {0}
    assert seeds_of(dataclasses.replace(recipe, own_points=False)) == {0, -1, -2}


def test_a_folder_does_not_ask_what_its_cells_were_granted():
    recipe = RECIPES["digits"](0)
    granted = dataclasses.replace(recipe, resources=Resources(cpus=2.0, memory_gib=4.0))
    assert recipe_digest(granted) == recipe_digest(recipe)
    assert recipe_digest(dataclasses.replace(recipe, draws=251)) != recipe_digest(recipe)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (1e-9, "1.0e-09"),
        (1.0, "1"),
        (0.9996, "0.9996"),
        (1 - 1e-9, "0.9999"),
        (1.0002, "1"),
        (float("nan"), ""),
        (7, "7"),
        (None, ""),
    ],
)
def test_numbers_never_round_to_a_false_zero_or_one(value, text):
    assert number(value) == text


def test_a_packed_study_gives_the_same_tables_figures_and_page(study, tmp_path):
    out, _ = study
    pack_study(out, tmp_path / "packed")
    pack_study(out, tmp_path / "packed")
    assert max(path.stat().st_size for path in (tmp_path / "packed").iterdir()) < 1_000_000
    unpack_study(tmp_path / "packed", tmp_path / "again")
    write_report(tmp_path / "again")
    for folder in ("tables", "figures"):
        assert snapshot(tmp_path / "again" / folder) == snapshot(out / folder)
    assert (tmp_path / "again" / "report.html").read_bytes() == (out / "report.html").read_bytes()


def test_what_cannot_be_packed_or_unpacked_is_refused(study, tmp_path):
    out, _ = study
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a packed study, got"):
        pack_study(out, tmp_path)
    with pytest.raises(ValueError, match="new or empty folder"):
        unpack_study(out, tmp_path)
    with pytest.raises(ValueError, match="expected a packed study"):
        unpack_study(out, tmp_path / "new")


def test_a_recipe_of_the_users_own_file_runs(tmp_path):
    path = tmp_path / "my_study.py"
    path.write_text(
        "from dataclasses import replace\nfrom wobbliness.study.recipes import digits\n"
        "def small(seed):\n    return replace(digits(seed), name='small', cleanse=None)\n"
        "def wrong(seed):\n    return seed\n"
    )
    recipe = recipe_by_name(f"{path}:small", 3)
    assert (recipe.name, recipe.seed, recipe.cleanse) == ("small", 3, None)
    for name, text in (
        ("wrong", "to give a Recipe, got int"),
        ("absent", "expected absent in .*my_study.py"),
    ):
        with pytest.raises(ValueError, match=text):
            recipe_by_name(f"{path}:{name}", 0)
    with pytest.raises(ValueError, match="does not exist"):
        recipe_by_name(f"{tmp_path}/none.py:small", 0)


def test_crafted_patterns_in_the_tables_are_those_in_the_files(study, digits):
    """A fooling rate and a candidate's success, counted again from the files the study keeps."""
    out, report = study
    row = report.tables.universals[report.tables.universals.norm == "l2"].iloc[0]
    perturbation = load_universal(out / "perturbations" / f"{row.cell}.safetensors")
    assert np.linalg.norm(perturbation.values) == pytest.approx(row.norm_reached)
    assert row.norm_reached <= row.bound * (1 + 1e-6)
    network = load_network(out / "networks" / f"{cell_of_network(row.network)}.safetensors")
    before, after = (
        predict(network, images)
        for images in (digits.test.images, perturbation.apply(digits.test.images))
    )
    assert (before != after).mean() == pytest.approx(row.fooling_rate_on_test)
    found = report.tables.candidates[report.tables.candidates.form == "smallest"].iloc[3]
    candidate = load_candidates(out / "perturbations" / f"{found.cell}.safetensors", "smallest")[3]
    network = load_network(out / "networks" / f"{cell_of_network(found.network)}.safetensors")
    assert (predict(network, candidate.apply(digits.test.images)) == 3).mean() == pytest.approx(
        found.success_on_test
    )
    assert candidate.mask.sum() == pytest.approx(found.mask_l1, rel=1e-5)


def cell_of_network(label):
    return next(
        cell.name
        for cell in plan(tiny())
        if cell.kind == "train" and network_label(cell.spec) == label
    )


@pytest.mark.parametrize(("width", "shows_paper"), [(80, False), (160, True)])
def test_the_table_of_claims_fits_the_terminal(study, monkeypatch, capsys, width, shows_paper):
    monkeypatch.setenv("COLUMNS", str(width))
    report = study[1]
    print_report(report, as_json=False)
    table, _, page = capsys.readouterr().out.partition("report: ")
    assert Path(page.strip()) == report.folder / "report.html"
    assert max(map(len, table.splitlines())) <= width
    assert ("paper" in table.splitlines()[2]) == shows_paper
    assert all(
        finding.claim.id in table and finding.verdict in table for finding in report.findings
    )
