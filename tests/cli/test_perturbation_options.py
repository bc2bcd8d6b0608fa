"""`--perturbation` and the list of perturbations on the command line."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from model_files import linear_model, save_onnx
from residual_networks import linear_residual

import wobbliness
from wobbliness.cli import main as cli
from wobbliness.detectors.batches.batch_test import DEFAULT_SIGMAS
from wobbliness.perturbations import BoxMix, Columns, Dropout, Scale, TokenDrop
from wobbliness.perturbations.find import perturbation_kinds, training_kinds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A linear graph, images and overlays; the working folder."""
    rng = np.random.default_rng(0)
    linear_model(tmp_path / "model.onnx", rng.normal(size=(64, 4)))
    for name, number in (("images", 5), ("clean", 9)):
        np.save(tmp_path / f"{name}.npy", rng.random((number, 1, 8, 8), dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0, *capsys.readouterr()


def test_a_measurement_under_several_is_the_librarys(folder, monkeypatch, capsys):
    code, out, err = run(
        monkeypatch,
        capsys,
        *("measure", "model.onnx", "images.npy", "--sigma", 0.1, "--draws", 30, "--json"),
        *("--perturbation", "scale:3,5,7", "--perturbation", "box-mix:clean.npy,0.3,0.6"),
    )
    assert (code, err) == (0, "")
    overlays, images = (np.load(folder / f"{name}.npy") for name in ("clean", "images"))
    made = [0.1, Scale(3, 5, 7), BoxMix(overlays, 0.3, 0.6)]
    expected = wobbliness.sweep("model.onnx", images, made, 30)
    found = json.loads(out)["measurements"]
    assert [row["perturbation"] for row in found] == [v.perturbation for v in expected.votes]
    assert [row["draws"] for row in found] == [30, 3, 30]
    for row, votes in zip(found, expected.votes, strict=True):
        assert row["counts"] == votes.counts.tolist()


def test_a_perturbation_of_the_network(folder, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=shape).astype(np.float32) for shape in ((64, 64), (64, 4))]
    linear_residual(folder / "residual.onnx", *matrices)
    arguments = ("measure", "residual.onnx", "images.npy", "--perturbation", "dropout:0.4")
    code, out, err = run(monkeypatch, capsys, *arguments, "--draws", 30, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["measurements"]
    votes = wobbliness.measure("residual.onnx", np.load("images.npy"), Dropout(0.4), 30)
    assert found["perturbation"] == "dropout-0.4"
    assert found["counts"] == votes.counts.tolist()
    assert votes.wobbliness.max() > 0
    code, out, err = run(monkeypatch, capsys, *arguments, "--perturbation", "amplify:3")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "at least 7 batch normalisations in its graph, got 0, for amplify-3-5-1.5" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain:3", "expected a perturbation out of affine, amplify"),
        ("uniform:-1", "expected a standard deviation of at least 0, got -1"),
        ("superpose:none.npy", "none.npy"),
        ("label-flip:0.1", "measure it by wobbliness.sampling.trainings.measure_trainings"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_one_gets_one_line(monkeypatch, capsys, text, message):
    code, out, err = run(
        monkeypatch, capsys, "measure", "model.onnx", "images.npy", "--perturbation", text
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_the_list_names_every_family_with_its_settings(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "perturbations")
    assert code == 0
    assert "box-mix:OVERLAYS,smallest=0.36,largest=0.82" in out.splitlines()
    assert "scale:FACTOR,..." in out.splitlines()
    assert "amplify:LAYERS,members=5,factor=1.5" in out.splitlines()
    code, out, _ = run(monkeypatch, capsys, "perturbations", "--json")
    rows = json.loads(out)
    kinds = {*perturbation_kinds(), *training_kinds()} - {"custom"}
    assert {row["kind"] for row in rows} == kinds
    (flips,) = (row for row in rows if row["kind"] == "label-flip")
    assert flips["usage"] == "LabelFlip(SHARE)"
    assert "Rosenfeld" in flips["source"]
    assert all(row["summary"].endswith(".") for row in rows)


@pytest.fixture
def batches(folder):
    """Clean and suspect images, and overlays that are neither."""
    rng = np.random.default_rng(1)
    for name, number in (("reference", 60), ("suspect", 20), ("overlays", 12)):
        np.save(folder / f"{name}.npy", rng.random((number, 1, 8, 8), dtype=np.float32))
    return [np.load(folder / f"{name}.npy") for name in ("reference", "suspect", "overlays")]


def test_a_batch_is_tested_as_the_library_tests_it(folder, batches, monkeypatch, capsys):
    reference, suspect, overlays = batches
    test = ["test", "model.onnx", "--clean", "reference.npy", "--suspect", "suspect.npy"]
    test += ["--draws", 20, "--perturbation", "box-mix:overlays.npy"]
    name = BoxMix(overlays).name
    expected = wobbliness.compare_batches(
        "model.onnx", reference, suspect, sigmas=[BoxMix(overlays)], draws=20
    )
    code, out, err = run(monkeypatch, capsys, *test, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["sigma"], found["perturbation"]) == (None, name)
    assert (found["levene_sigma"], found["levene_perturbation"]) == (None, name)
    assert (found["at"][0]["sigma"], found["at"][0]["perturbation"]) == (None, name)
    assert found["at"][0]["smoother"]["pvalue"] == expected[name].smoother.pvalue
    code, out, _ = run(monkeypatch, capsys, *test, "--report", "page.html")
    assert code == 0
    head, row, *_ = out.splitlines()
    assert head.split()[0] == "perturbation"
    assert row.split()[0] == f"*L{name}"
    assert (
        head.index("clean W") + len("clean W") == row.index(f"{expected.at[0].clean_mean:.4f}") + 6
    )
    assert f"nats under {name} (p = " in out
    page = (folder / "page.html").read_text()
    assert f"<b>{name}, that of the verdict</b>" in page
    assert "The perturbation of the verdict" in page
    assert "sigma" not in page.partition("<main>")[2].replace("data-sigma", "")


@pytest.mark.usefixtures("batches")
def test_noise_and_others_are_chosen_from(monkeypatch, capsys):
    test = ["test", "model.onnx", "--clean", "reference.npy", "--suspect", "suspect.npy"]
    test += ["--draws", 10, "--sigma", 0.3, "--sigma", 0.1, "--perturbation", "scale:3,5"]
    code, out, _ = run(monkeypatch, capsys, *test, "--json")
    rows = json.loads(out)["at"]
    assert code == 0
    assert [row["sigma"] for row in rows] == [0.1, 0.3, None]
    assert [row["perturbation"] for row in rows] == ["gaussian-0.1", "gaussian-0.3", "scale-3-5"]
    code, out, _ = run(monkeypatch, capsys, *test)
    assert code == 0
    assert "* perturbation of the verdict, L of Levene's test, both chosen on 30 clean" in out
    code, out, _ = run(monkeypatch, capsys, *test[:-2], "--json")
    assert not any("perturbation" in key for key in (*json.loads(out), *json.loads(out)["at"][0]))
    gaussian = [*test[:-6], "--perturbation", "gaussian:0.3", "--perturbation", "gaussian:0.1"]
    assert run(monkeypatch, capsys, *gaussian, "--json")[1] == out, "noise by its family's name"


def test_a_guard_keeps_what_it_was_fitted_with(folder, batches, monkeypatch, capsys):
    reference, suspect, overlays = batches
    fit = ["guard", "fit", "model.onnx", "reference.npy", "--draws", 20, "--seed", 3]
    fit += ["--guard", "smoothness"]
    made = ["--perturbation", "box-mix:overlays.npy,0.3,0.6", "--perturbation", "scale:3,5"]
    code, _, err = run(monkeypatch, capsys, *fit, *made, "--out", "guard")
    assert code == 0
    assert err.startswith("warning: few clean inputs to compare with are predicted as class 0: 1,")
    sigmas = [BoxMix(overlays, 0.3, 0.6), Scale(3, 5)]
    guard = wobbliness.SmoothnessGuard("model.onnx", sigmas=sigmas, draws=20, seed=3).fit(reference)
    expected = guard.judge(suspect)
    judge = ["guard", "judge", "guard", "model.onnx", "suspect.npy"]
    (folder / "overlays.npy").unlink()  # the guard has its own
    code, out, err = run(monkeypatch, capsys, *judge, "--json", "--out", "verdicts.csv")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["pvalue"] for row in found["inputs"]] == expected.pvalue.tolist()
    assert (found["sigmas"], found["draws"]) == ([None, None], 20)
    assert found["perturbations"] == [
        {"perturbation": sigmas[0].name, "draws": 20},
        {"perturbation": "scale-3-5", "draws": 2},
    ]
    columns = (folder / "verdicts.csv").read_text().splitlines()[0].split(",")
    assert {f"wobbliness_{sigmas[0].name}", "agrees_scale-3-5"} < {*columns}
    head = run(monkeypatch, capsys, *judge)[1].splitlines()[0]
    assert head.endswith(f"  W {sigmas[0].name}  W scale-3-5   smoothed label   name")
    code, out, _ = run(monkeypatch, capsys, *judge, "--quick", "--json")
    assert (code, json.loads(out)["most_draws"]) == (0, 22)


@pytest.mark.parametrize(
    ("options", "profile", "smoothness"),
    [
        ([], [None, None, 0.1, 0.2, None], [0.05, 0.1, 0.15, 0.2, 0.3]),
        (["--perturbation", "scale:3,5"], [None], [None]),
        (["--perturbation", "scale:3,5", "--sigma", 0.1], [0.1, None], [0.1, None]),
        (["--sigma", 0.1, "--sigma", 0.4], [0.1, 0.4], [0.1, 0.4]),
    ],
)
@pytest.mark.usefixtures("batches")
def test_what_is_asked_for_takes_the_place_of_the_default(
    monkeypatch, capsys, folder, options, profile, smoothness
):
    fit = ["guard", "fit", "model.onnx", "reference.npy", "--draws", 5, "--out", "guard"]
    for kind, sigmas in (([], profile), (["--guard", "smoothness"], smoothness)):
        code, *_ = run(monkeypatch, capsys, *fit, *options, *kind)
        assert code == 0
        assert json.loads((folder / "guard" / "guard.json").read_text())["sigmas"] == sigmas


GUARD = ("guard", "fit", "model.onnx", "reference.npy", "--draws", "5", "--out", "guard")
TEST = (
    "test",
    "model.onnx",
    "--clean",
    "reference.npy",
    "--suspect",
    "suspect.npy",
    "--draws",
    "5",
)


@pytest.mark.parametrize("command", [GUARD, TEST])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain:3", "expected a perturbation out of affine"),
        ("box-mix:none.npy", "none.npy"),
        ("box-mix:other.npy", "expected pictures of 8 x 8 pixels"),
        ("superpose:reference.npy", "expected overlays that are not among the clean inputs, got"),
    ],
)
def test_wrong_ones_get_one_line_and_write_nothing(
    folder, batches, monkeypatch, capsys, command, text, message
):
    np.save(folder / "other.npy", batches[0][:, :, :4])
    code, out, err = run(monkeypatch, capsys, *command, "--perturbation", text)
    assert (code, err.count("\n")) == (2, 1), out
    assert message in err
    assert not (folder / "guard").exists()


OWN = """
from wobbliness.perturbations import Custom
mine = Custom(lambda image, rng: image + rng.normal(0, 0.3, image.shape), name="mine")
"""


@pytest.mark.usefixtures("batches")
def test_ones_own_can_be_tested_and_not_kept(folder, monkeypatch, capsys):
    (folder / "own.py").write_text(OWN)
    code, out, _ = run(monkeypatch, capsys, *TEST, "--perturbation", "own.py:mine", "--json")
    assert (code, json.loads(out)["perturbation"]) == (0, "mine")
    code, out, err = run(monkeypatch, capsys, *GUARD, "--perturbation", "own.py:mine")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected perturbations of this package" in err
    assert "got mine" in err
    assert not (folder / "guard").exists()


@pytest.fixture(scope="module")
def made_files(tmp_path_factory):
    """A graph of token ids, ids in two kinds of file, and a table of numbers."""
    folder = tmp_path_factory.mktemp("tokens")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Embedding(50, 3), torch.nn.Flatten(), torch.nn.Linear(36, 3)
    ).eval()
    ids = np.random.default_rng(1).integers(0, 50, (5, 12))
    save_onnx(network, folder / "texts.onnx", torch.from_numpy(ids[:2]))
    np.save(folder / "ids.npy", ids)
    np.savez(folder / "ids.npz", tokens=ids, labels=np.arange(5))
    np.save(folder / "rows.npy", 40 + ids.reshape(5, 12) / 7)
    linear = torch.nn.Sequential(torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 3)).eval()
    linear[0].running_mean.fill_(43)
    save_onnx(linear, folder / "rows.onnx", torch.rand(2, 12))
    return folder, ids


@pytest.fixture
def token_files(made_files, folder):
    """Copies of these files in the working folder."""
    shutil.copytree(made_files[0], folder, dirs_exist_ok=True)
    return made_files[1]


def test_token_ids_are_read_as_stored(token_files, monkeypatch, capsys):
    drop = ("--perturbation", "token-drop:0.3,token=0", "--draws", 60, "--json")
    expected = wobbliness.measure("texts.onnx", token_files, TokenDrop(0.3, 0), 60)
    for source in ("ids.npy", "ids.npz", "ids.npz:tokens"):
        code, out, err = run(monkeypatch, capsys, "measure", "texts.onnx", source, *drop)
        assert (code, err) == (0, "")
        (row,) = json.loads(out)["measurements"]
        assert row["counts"] == expected.counts.tolist()


@pytest.mark.usefixtures("token_files")
def test_tables_are_read_as_stored(monkeypatch, capsys):
    arguments = ("measure", "rows.onnx", "rows.npy", "--perturbation", "columns:2", "--draws", 60)
    code, out, err = run(monkeypatch, capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["measurements"]
    votes = wobbliness.measure("rows.onnx", np.load("rows.npy"), Columns(2), 60)
    assert row["counts"] == votes.counts.tolist()
    assert votes.wobbliness.max() > 0
    code, out, err = run(monkeypatch, capsys, *arguments, "--sigma", 1)
    assert (code, out, err.count("\n")) == (2, "", 1), "control: with noise for images, too"
    assert "expected floats in [0, 1], got values from 40" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("images.npy", "--perturbation", "token-drop:0.3,0"),
            "token ids as integers, got float32",
        ),
        (("ids.npy", "--sigma", 0.1), "say what 0 and 1 become"),
        (
            ("ids.npy", "--perturbation", "token-drop:0.3,0", "--sigma", 0.1),
            "token ids alone beside token-drop-0.3-token-0, got gaussian-0.1",
        ),
        (("pictures", "--perturbation", "token-drop:0.3,0"), "a .npy or .npz array of tables"),
        (
            ("ids.npy", "--perturbation", "token-drop:0.3,0", "--size", "8x8"),
            "expected a .npy or .npz array of tables or token ids, got a size of pictures",
        ),
    ],
)
@pytest.mark.usefixtures("token_files")
def test_other_inputs_of_a_perturbation_of_tokens_get_one_line(
    monkeypatch, capsys, arguments, message
):
    code, out, err = run(monkeypatch, capsys, "measure", "texts.onnx", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.usefixtures("batches")
def test_by_default_two_tests_are_made_and_noise_alone_where_it_is_asked_for(
    folder, batches, monkeypatch, capsys
):
    test = ["test", "model.onnx", "--clean", "reference.npy", "--suspect", "suspect.npy"]
    test += ["--draws", 10]
    expected = wobbliness.compare_batches("model.onnx", *batches[:2], draws=10)
    code, out, _ = run(monkeypatch, capsys, *test, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["pvalue"], found["verdict"]) == (expected.pvalue, expected.verdict)
    box_mix = found["box_mix"]
    assert (box_mix["num_overlays"], box_mix["num_clean"]) == (12, 48)
    assert box_mix["at"]["perturbation"].startswith("box-mix-")
    assert box_mix["at"]["sigma"] is None
    assert [row["sigma"] for row in found["at"]] == [row.sigma for row in expected.at]
    code, out, _ = run(monkeypatch, capsys, *test, "--report", "page.html")
    assert code == 0
    assert "*box mix" in out
    assert "12 clean images are mixed with, 48 others compared with" in out
    smoother = expected.smoother_pvalues.min()
    assert f"corrected for two tests (Holm): p smoother {smoother:.2g}, p wobblier" in out
    page = (folder / "page.html").read_text()
    assert "that of two tests" in page
    assert page.count("that of the verdict</b>") == 2
    noise = [word for sigma in DEFAULT_SIGMAS for word in ("--sigma", sigma)]
    code, out, _ = run(monkeypatch, capsys, *test, *noise, "--json")
    alone = json.loads(out)
    assert (alone["box_mix"], alone["at"]) == (None, found["at"])
    code, out, _ = run(monkeypatch, capsys, *test, *noise, "--report", "page.html")
    assert "box mix" not in out + (folder / "page.html").read_text()


@pytest.mark.usefixtures("batches")
def test_where_votes_go_is_said_where_it_is_asked_for(folder, batches, monkeypatch, capsys):
    test = ["test", "model.onnx", "--clean", "reference.npy", "--suspect", "suspect.npy"]
    test += ["--draws", 10]
    code, out, _ = run(monkeypatch, capsys, *test, "--json")
    plain = json.loads(out)
    assert (code, plain["destinations"]) == (0, None)
    code, out, _ = run(monkeypatch, capsys, *test, "--destinations", "--json")
    found = json.loads(out)
    assert code == 0
    assert {*plain} == {*found}
    assert (found["at"], found["box_mix"]) == (plain["at"], plain["box_mix"])
    expected = wobbliness.compare_batches("model.onnx", *batches[:2], draws=10, destinations=True)
    assert found["destinations"]["pvalue"] == expected.destinations.pvalue
    assert found["destinations"]["verdict"] == expected.corrected_destinations.verdict
    assert found["pvalue"] == expected.pvalue >= plain["pvalue"]
    code, out, _ = run(monkeypatch, capsys, *test, "--destinations", "--report", "page.html")
    assert code == 0
    verdict = expected.corrected_destinations
    assert f"destinations: {verdict.verdict} (p {verdict.pvalue:.2g}, corrected for three" in out
    page = (folder / "page.html").read_text()
    assert "The votes around the suspect inputs go" in page
    assert "and for that of the destinations" in page
    # images of another kind: dark ones stray elsewhere
    np.save("suspect.npy", (batches[1] * 0.05).astype(np.float32))
    stop = ("--fail-on-trigger", "--destinations", "--json")
    code, out, _ = run(monkeypatch, capsys, *test, *stop)
    found = json.loads(out)
    assert (code, found["destinations"]["verdict"]) == (cli.EXIT_TRIGGER, "elsewhere")
    code, out, _ = run(monkeypatch, capsys, *test, "--fail-on-trigger", "--json")
    assert (code, json.loads(out)["verdict"] == "smoother") in {(0, False), (3, True)}, "control"
