"""The study of other noise: three batches under every family, and the matched filter."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest

import wobbliness.perturbations as families
from wobbliness.attacks.patch import trigger
from wobbliness.attacks.poisoning import t1
from wobbliness.perturbations.find import perturbation_kinds
from wobbliness.runtime.field_limits import kind_of
from wobbliness.study.cells.noise import _points
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe, noise_families, recipe_by_name
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.record import Record, read_record
from wobbliness.study.report.report import _write_tables, write_report
from wobbliness.study.running.runner import run_study
from wobbliness.study.specs import LadderSpec, NetworkSpec, NoiseSpec, cell_name
from wobbliness.study.specs.noise import BATCHES, Noise, Setting
from wobbliness.study.tables.finished_cells import FinishedCell
from wobbliness.study.tables.ladders import RISEN, crossing, ladder_rows, matched_filter_rows
from wobbliness.study.tables.noises import comparison, noise_rows, verdict
from wobbliness.study.tables.tables import form_tables
from wobbliness.study.training.data import load_data

BASE = {
    "dataset": "digits",
    "architecture": "small_cnn",
    "epochs": 8,
    "batch_size": 32,
    "learning_rate": 3e-3,
}
CLEAN = NetworkSpec(**BASE, threat=None, trigger=None, seed=0)
POISONED = NetworkSpec(**BASE, threat=t1(5), trigger="checkerboard", seed=0)
DOT = dataclasses.replace(POISONED, trigger="dot")
OVERLAYS = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
KINDS = ("gaussian", "box-mix", "shift", "superpose-sum", "corrupt-zoom-blur")
FAINT = Noise(
    name="faint", kind="scale", settings=(Setting(name="factors", value=1.0, per_level=1.0),),
    most=0.001,
)  # fmt: skip


def small(seed=0):
    """A clean and a poisoned network, five families, one that reaches no shift, and two ladders."""
    wanted = [noise for noise in noise_families() if noise.name in KINDS]
    return Recipe(
        name="small-noises",
        seed=seed,
        sigmas=(0.05, 0.2, 0.8),
        draws=40,
        noise_networks=(CLEAN, POISONED),
        noises=(*wanted, FAINT),
        noise_images=50,
        noise_points=60,
        ladder_networks=(POISONED, DOT),
        ladder_points=40,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "noises"
    run_study(small(), out, workers=1)
    return out, write_report(out)


@pytest.fixture
def rows(study):
    frame = study[1].tables.noises
    return frame.assign(threat=frame.network.str.split().str[0]).set_index(["threat", "family"])


def test_each_network_and_family_has_a_row_with_its_level_and_share(rows):
    assert len(rows) == 2 * (len(KINDS) + 1)
    assert rows.network.nunique() == 2
    for threat in ("clean,", "T1"):
        gaussian = rows.loc[(threat, "gaussian")]
        assert gaussian.is_matched
        assert gaussian.changed == pytest.approx(0.2, abs=0.01)
        faint = rows.loc[(threat, "faint")]
        assert (faint.is_matched, faint.level) == (False, FAINT.most)
        assert faint.changed < 0.05
        fixed = rows.loc[(threat, "superpose-sum")]
        assert not fixed.is_matched
        assert math.isnan(fixed.level)
        assert fixed.draws == 40
        assert rows.loc[(threat, "corrupt-zoom-blur")].draws == 5


def test_the_planted_backdoor_is_smooth_and_its_controls_are_not(rows):
    active = rows.loc[("T1", "gaussian")]
    assert active.is_active
    assert active.active_success > 0.95
    assert active.active_median < active.clean_median
    assert active.active_verdict == "smoothing"
    assert active.active_pvalue < 1e-3
    assert rows.loc["T1"].active_verdict["shift"] == "opposite", "a moved trigger is none"
    # a level that changes nothing tells nothing, and neither does a trigger never trained on
    assert set(rows.xs("faint", level="family").active_verdict) == {"none"}
    control = rows.loc["clean,"]
    assert not control.is_active.any()
    assert control.active_success.isna().all()
    assert not {*control.active_verdict, *control.inactive_verdict} & {"smoothing"}
    assert rows.loc["T1"].inactive_verdict["gaussian"] != "smoothing"
    assert (rows.inactive_trigger == "square").all()


def test_the_page_has_both_questions_and_their_figures_alone(study):
    out, report = study
    assert [finding.claim.id for finding in report.findings] == ["X4", "X5"]
    assert {"noises", "matched-filter"} <= {figure.name for figure in report.figures}
    assert report.findings[0].statements[0].startswith("smoothing on all backdoored networks under")
    assert report.findings[1].statements[0].startswith("too few triggers")
    page = (out / "report.html").read_text()
    for finding in report.findings:
        assert all(f"<li>{text.split('(')[0].strip()}" in page for text in finding.statements[:1])


def test_norms_are_those_of_what_the_trigger_changes(study):
    """A dot is one white pixel: it changes 1 - x of the lower right one and nothing else."""
    out, report = study
    (name,) = (
        cell.name for cell in plan(small()) if cell.kind == "ladder" and cell.spec.network == DOT
    )
    table = read_record(out / "records", name).table
    triggered = table[table.is_triggered]
    images = load_data("digits").test.images[triggered.point]
    np.testing.assert_allclose(triggered.l2, 1 - images[:, 0, -1, -1], atol=1e-6)
    np.testing.assert_allclose(triggered.contrast, triggered.l2, atol=1e-6)
    assert (table[~table.is_triggered][["l2", "contrast"]] == 0).all(axis=None)
    found = report.tables.matched_filter.set_index("trigger")
    assert found.l2["dot"] == pytest.approx(triggered.l2.mean())
    assert found.l2["checkerboard"] > found.l2["dot"]


def test_packed_and_unpacked_it_has_the_same_tables(study, tmp_path):
    out, _ = study
    pack_study(out, tmp_path / "packed")
    unpack_study(tmp_path / "packed", tmp_path / "again")
    assert table_bytes(tmp_path / "again", tmp_path) == table_bytes(out, tmp_path)


def test_a_lost_record_is_made_again_alike(study, tmp_path):
    import shutil

    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    before = table_bytes(out, tmp_path)
    for kind in ("noise", "ladder"):
        path = min((out / "records").glob(f"{kind}-*.json"))
        path.unlink()
    run_study(small(), out, workers=1)
    assert table_bytes(out, tmp_path) == before


def table_bytes(out, folder):
    _write_tables(form_tables(out), folder / "tables")
    return {path.name: path.read_bytes() for path in sorted((folder / "tables").iterdir())}


def noise_spec(**changes):
    settings = {
        "network": POISONED,
        "noise": noise_families()[0],
        "trigger": "checkerboard",
        "inactive": "square",
        "shift": 0.2,
        "num_images": 50,
        "num_points": 4,
        "draws": 10,
        "seed": 0,
    }
    return NoiseSpec(**(settings | changes))


# Of ten votes: all for one class, an even split of two.
CALM, SPLIT = [10, 0, 0], [5, 5, 0]
PLANTED = {
    "smoother": (SPLIT, CALM, SPLIT, ("smoothing", "none")),
    "wobblier": (CALM, SPLIT, CALM, ("opposite", "none")),
    "nothing": (SPLIT, SPLIT, SPLIT, ("none", "none")),
    "both": (SPLIT, CALM, CALM, ("smoothing", "smoothing")),
}
RESULTS = {"level": 0.1, "is_matched": True, "changed": 0.2, "draws": 10}


def planted(batches, num_points=30):
    votes = np.repeat(np.array(batches), num_points, axis=0)
    numbers = np.arange(len(votes))
    keys = {
        "point": numbers,
        "label": numbers % 3,
        "batch": np.repeat(np.arange(3), num_points),
        "clean_label": np.repeat([0, 2, 1], num_points),
    }
    return pd.DataFrame(keys | {f"votes_{index}": votes[:, index] for index in range(3)})


def finished(spec, results, table):
    spec.check_record(results, table)
    record = Record(spec=spec, results=results, provenance={}, table=table)
    return FinishedCell(claims=("X4",), spec=spec, record=record)


@pytest.mark.parametrize("case", PLANTED)
def test_rows_of_planted_votes(case):
    *batches, verdicts = PLANTED[case]
    network = dataclasses.replace(POISONED, threat=t1(2))
    cell = finished(noise_spec(network=network, num_points=30), RESULTS, planted(batches))
    row = noise_rows([cell]).iloc[0]
    medians = [row[f"{name}_median"] for name in BATCHES]
    expected = [0.0 if votes == CALM else math.log(2) for votes in batches]
    assert medians == pytest.approx(expected, abs=1e-12)
    assert (row.active_verdict, row.inactive_verdict) == verdicts
    area = {"smoothing": 1.0, "opposite": 0.0, "none": 0.5}
    assert [row.active_auc, row.inactive_auc] == [area[one] for one in verdicts]
    # all active points are predicted as class 2, the attacker's, and no inactive one
    assert (row.active_success, row.inactive_success) == (1.0, 0.0)
    assert (row.family, row.level, row.active_trigger) == ("gaussian", 0.1, "checkerboard")


def test_areas_are_shares_of_pairs_and_verdicts_follow_the_interval():
    rng = np.random.default_rng(3)
    clean, triggered = rng.random(40).round(1), rng.random(30).round(1) * 0.6
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(clean, triggered)]
    found = comparison(clean, triggered)
    assert found["auc"] == pytest.approx(np.mean(pairs))
    assert found["auc_lower"] < found["auc"] < found["auc_upper"]
    assert found["verdict"] == "smoothing"
    assert comparison(triggered, clean)["verdict"] == "opposite"
    # one-sided: the two directions are almost complements, but for the correction of continuity
    both = found["pvalue"] + comparison(triggered, clean)["pvalue"]
    assert both == pytest.approx(1.0, abs=0.01)
    assert found["pvalue"] < 0.05
    assert [verdict(*ends) for ends in ((0.51, 0.6), (0.4, 0.49), (0.5, 0.6), (0.4, 0.5))] == [
        *("smoothing", "opposite", "none", "none")
    ]


def test_crossings_are_interpolated_in_the_logarithm():
    sigmas = np.array([0.1, 0.2, 0.4, 0.8])
    w = np.log(sigmas / 0.1)  # linear in the logarithm: exact anywhere
    assert crossing(sigmas, w, 0.9) == pytest.approx(0.1 * math.exp(0.9))
    assert crossing(sigmas, w, 0.0) == 0.1
    assert crossing(sigmas, w, 3.0) is None
    assert crossing(sigmas, np.array([0.0, 1.0, 0.0, 1.0]), 1.0) == 0.2, "the first time"


def test_the_ladder_of_planted_votes():
    """Triggered points are calm at the first sigma and split at the second."""
    network = dataclasses.replace(POISONED, threat=t1(1))
    spec = LadderSpec(
        network=network, trigger="dot", sigmas=(0.1, 0.4), num_points=3, draws=10, seed=0
    )
    votes = np.array([SPLIT] * 3 + [[0, 10, 0]] * 3 + [SPLIT] * 6)
    keys = {
        "point": np.arange(12),
        "label": np.arange(12) % 2,
        "is_triggered": np.tile(np.repeat([False, True], 3), 2),
        "l2": 1.5,
        "contrast": 0.5,
        "sigma": np.repeat([0.1, 0.4], 6),
    }
    table = pd.DataFrame(keys | {f"votes_{index}": votes[:, index] for index in range(3)})
    losses = {"losses": [1.0], "num_poisoned": 3, "clean_accuracy": 0.9}
    for accuracy, is_functioning in ((0.99, True), (0.9, False)):
        trained = losses | {"backdoor_accuracy": accuracy}
        cells = [finished(network, trained, pd.DataFrame()), finished(spec, {}, table)]
        ladders = ladder_rows(cells)
        assert ladders.success.tolist() == [1.0, 0.5]
        assert ladders.triggered_median.tolist() == pytest.approx([0.0, math.log(2)])
        (row,) = matched_filter_rows(cells, ladders).itertuples()
        # half of log 2 is half of the way, and 0.2 is half of the way from 0.1 to 0.4
        assert pytest.approx(math.log(2) / 2) == RISEN
        assert row.sigma_risen == pytest.approx(0.2)
        assert (row.l2, row.contrast, row.is_functioning) == (1.5, 0.5, is_functioning)


def test_points_of_the_parts_are_disjoint_and_attacked_ones_are_not_of_the_target():
    data = load_data("digits")
    points = _points(noise_spec(num_points=60), data)
    parts = [points.matched_on, points.overlays, points.clean, points.attacked]
    assert [len(part) for part in parts] == [50, 50, 60, 60]
    assert len(set(np.concatenate(parts))) == 220
    assert 5 not in data.test.labels[points.attacked]
    assert 5 in data.test.labels[points.clean], "control: clean points are of all classes"
    with pytest.raises(ValueError, match="expected at most 94 test points to put a trigger"):
        _points(noise_spec(num_points=400), data)


@pytest.mark.parametrize("noise", noise_families(), ids=lambda noise: noise.name)
def test_each_family_is_made_at_every_level(noise):
    for share in (0.0, 0.3, 1.0):
        level = share * (noise.most or 0.0)
        if level == 0 and noise.kind in ("scale", "contrast", "blur"):
            continue  # a ladder without an end: its rungs would be the same
        made = noise.at(level, overlays=OVERLAYS, draws=4)
        assert kind_of(type(made)) == noise.kind
    if noise.most is not None:
        names = {noise.at(level, overlays=OVERLAYS, draws=4).name for level in (0.25, 0.5)}
        assert len(names) == 2, "control: the level is a part of it"


def test_levels_are_settings_of_their_families():
    made = {noise.name: noise.at(0.25, overlays=OVERLAYS, draws=4) for noise in noise_families()}
    assert made["gaussian"] == families.Gaussian(0.25)
    assert made["keep-feature"] == families.KeepFeature(0.75)
    assert made["keep-box"] == families.KeepBox(OVERLAYS, 0.75, 0.75)
    assert made["rotation"] == families.Affine(rotation=45)
    assert made["scale"] == families.Scale(1.0625, 1.125, 1.1875, 1.25)
    assert made["blur"] == families.Blur(0.0625, 0.125, 0.1875, 0.25)
    assert made["superpose-sum"] == families.Superpose(OVERLAYS, mix="sum")
    assert made["occlude"] == families.Occlude(0.25, places=10)
    assert len({noise.name for noise in noise_families()}) == len(made)
    assert {noise.kind for noise in noise_families()} <= perturbation_kinds().keys()


def test_bad_settings_get_one_line():
    with pytest.raises(ValueError, match="expected Noise.kind out of affine, .* got 'rain'"):
        Noise(name="rain", kind="rain")
    with pytest.raises(ValueError, match="expected an inactive trigger other than square, got"):
        noise_spec(trigger="square")
    with pytest.raises(ValueError, match="expected different names in Recipe.noises"):
        dataclasses.replace(small(), noises=(FAINT, FAINT))


BROKEN = {
    "another batch": lambda table: table.assign(batch=0),
    "votes that do not add up": lambda table: table.assign(votes_0=table.votes_0 + 1),
    "a label that is no class": lambda table: table.assign(clean_label=3),
    "fewer rows": lambda table: table.iloc[1:],
    "another column": lambda table: table.rename(columns={"batch": "kind"}),
    "points that are no numbers": lambda table: table.assign(point=0.5),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_records_are_refused(case):
    spec, table = noise_spec(num_points=30), planted([SPLIT, CALM, SPLIT])
    spec.check_record(RESULTS, table)
    with pytest.raises(ValueError, match="a table"):
        spec.check_record(RESULTS, BROKEN[case](table))


@pytest.mark.parametrize(
    "results", [{"level": "much"}, {"is_matched": 1}, {"changed": None}, {"draws": 0}]
)
def test_damaged_results_are_refused(results):
    with pytest.raises(ValueError, match=r"no number for|of another kind|other draws"):
        noise_spec(num_points=30).check_record(RESULTS | results, planted([SPLIT, CALM, SPLIT]))


@pytest.mark.parametrize(
    ("name", "published", "own"),
    [("noises", "fashion-mnist", 4), ("noises-cifar10", "cifar10-slim", 3)],
)
def test_networks_are_those_of_the_published_studies(name, published, own):
    recipe = recipe_by_name(name, 0)
    known = {cell.name for cell in plan(recipe_by_name(published, 0)) if cell.kind == "train"}
    assert {cell_name(spec) for spec in recipe.noise_networks} <= known
    assert len(recipe.noise_networks) == own
    assert recipe.noise_networks[0].threat is None, "the control"
    threats = {spec.threat.name for spec in recipe.ladder_networks}
    assert threats == {"T1"}
    triggers = [spec.attack for spec in recipe.ladder_networks]
    assert triggers[:6] == [trigger(of) for of in ("checkerboard", "cross", "dot", "square")] + [
        trigger(of) for of in ("smiley", "stripes")
    ]


def test_a_family_more_renames_no_cell():
    before = {cell.name for cell in plan(small())}
    more = dataclasses.replace(FAINT, name="fainter", most=0.0005)
    after = {
        cell.name for cell in plan(dataclasses.replace(small(), noises=(*small().noises, more)))
    }
    assert before < after
    assert len(after - before) == 2
