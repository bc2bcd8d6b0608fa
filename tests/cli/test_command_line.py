"""The command line: outputs, exit codes, one line for bad input, light imports for --help."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import run
from model_files import linear_model
from PIL import Image
from small_study import small

import wobbliness
from wobbliness.cli import main as cli
from wobbliness.study import recipes
from wobbliness.study.report import figures

HELP_MAY_IMPORT = {
    "wobbliness",
    "lazy_loader",
    "packaging",
    "typer",
    "rich",
    "pygments",
    "markdown_it",
    "mdurl",
    "shellingham",
}
HELP_MAY_IMPORT |= {
    "attr",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "annotated_doc",
    "typing_extensions",
    "typing_inspection",
}


@pytest.fixture
def folder(tmp_path, images):
    weights = np.random.default_rng(0).normal(size=(64, 4))
    linear_model(tmp_path / "model.onnx", weights)
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "two.npz", good=images, labels=np.zeros(len(images), np.int64))
    np.save(tmp_path / "bytes.npy", (images * 255).astype(np.uint8))
    np.save(tmp_path / "wild.npy", images + 3)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY nothing")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "sevens.py").write_text("def classify(batch):\n    return [7] * len(batch)\n")
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


def test_measure_prints_and_writes_what_the_library_gives(monkeypatch, capsys, folder, images):
    out = folder / "votes.parquet"
    code, text, _ = run(
        monkeypatch,
        capsys,
        "measure",
        folder / "model.onnx",
        folder / "images.npy",
        "--sigma",
        0.1,
        "--sigma",
        0.2,
        "--out",
        out,
    )
    sweep = wobbliness.sweep(wobbliness.open_classifier(folder / "model.onnx"), images, [0.1, 0.2])
    written = pd.read_parquet(out)
    assert code == 0
    assert f"{sweep[0.1].wobbliness.mean():.4f}" in text
    for sigma in sweep:
        rows = written[written.sigma == sigma]
        assert np.array_equal(rows.filter(like="votes_").to_numpy(), sweep[sigma].counts)
        np.testing.assert_allclose(rows.wobbliness, sweep[sigma].wobbliness)


def test_measure_json_trigger_column_and_bytes(monkeypatch, capsys, folder, images):
    arguments = ["--sigma", 0.2, "--draws", 20, "--json", "--trigger", "square"]
    code, text, _ = run(
        monkeypatch,
        capsys,
        "measure",
        folder / "model.onnx",
        folder / "two.npz",
        "--column",
        "good",
        *arguments,
    )
    stamped = wobbliness.trigger("square").apply(images)
    votes = wobbliness.measure(
        wobbliness.open_classifier(folder / "model.onnx"), stamped, 0.2, draws=20
    )
    assert code == 0
    assert json.loads(text)["measurements"][0]["counts"] == votes.counts.tolist()
    code, text, _ = run(
        monkeypatch,
        capsys,
        "measure",
        folder / "model.onnx",
        folder / "bytes.npy",
        "--sigma",
        0.2,
        "--json",
    )
    assert code == 0
    assert len(json.loads(text)["measurements"][0]["wobbliness"]) == len(images)


def test_measure_reads_pictures_from_a_hub_table(monkeypatch, capsys, folder):
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(folder / "grey.png")
    content = (folder / "grey.png").read_bytes()
    pd.DataFrame({"image": [{"bytes": content, "path": None}] * 2}).to_parquet(
        folder / "table.parquet"
    )
    code, text, _ = run(
        monkeypatch,
        capsys,
        "measure",
        folder / "model.onnx",
        folder / "table.parquet",
        "--sigma",
        0.2,
        "--json",
    )
    assert code == 0
    assert len(json.loads(text)["measurements"][0]["label"]) == 2


@pytest.fixture
def batches(folder):
    """A batch of points near the boundaries of the model and one far from them."""
    scores = np.random.default_rng(1).random((400, 64)) @ np.random.default_rng(0).normal(
        size=(64, 4)
    )
    points = np.random.default_rng(1).random((400, 64)).astype(np.float32).reshape(-1, 1, 8, 8)
    margins = np.diff(np.sort(scores, axis=1)[:, -2:])[:, 0]
    order = np.argsort(margins)
    np.save(folder / "near.npy", points[order[:40]])
    np.save(folder / "far.npy", points[order[-40:]])
    return folder


def test_test_gives_the_librarys_verdict_and_exit_code(monkeypatch, capsys, batches):
    arguments = ["test", batches / "model.onnx", "--sigma", 0.1, "--draws", 50]
    smooth = ["--clean", batches / "near.npy", "--suspect", batches / "far.npy"]
    code, text, _ = run(monkeypatch, capsys, *arguments, *smooth, "--json", "--fail-on-trigger")
    clean, suspect = (np.load(batches / f"{name}.npy") for name in ("near", "far"))
    found = wobbliness.compare_batches(
        wobbliness.open_classifier(batches / "model.onnx"), clean, suspect, sigmas=[0.1], draws=50
    )
    assert (code, json.loads(text)["verdict"], found.verdict) == (
        cli.EXIT_TRIGGER,
        "smoother",
        "smoother",
    )
    assert json.loads(text)["at"][0]["smoother"]["pvalue"] == found[0.1].smoother.pvalue
    code, text, _ = run(monkeypatch, capsys, *arguments, *smooth)
    assert code == 0
    assert f"{found[0.1].smoother.pvalue:.2g}" in text
    assert found.explanation() in text
    wobbly = ["--clean", batches / "far.npy", "--suspect", batches / "near.npy"]
    code, text, _ = run(
        monkeypatch,
        capsys,
        *arguments,
        *wobbly,
        "--fail-on-trigger",
        "--report",
        batches / "page.html",
    )
    assert (code, "verdict: wobblier" in text) == (0, True)
    assert 'data-verdict="wobblier"' in (batches / "page.html").read_text()


def test_measure_names_the_pictures_of_a_folder_and_fits_them(monkeypatch, capsys, folder):
    from wobbliness.classifiers.onnx import OnnxClassifier

    monkeypatch.setattr(OnnxClassifier, "image_shape", (1, 8, 8), raising=False)
    for index, size in enumerate((8, 12)):
        (folder / "pictures" / f"kind {index}").mkdir(parents=True)
        Image.new("RGB", (size, size), (9, 9, 9)).save(
            folder / "pictures" / f"kind {index}" / "a.png"
        )
    arguments = [
        "measure",
        folder / "model.onnx",
        folder / "pictures",
        "--sigma",
        0.2,
        "--sigma",
        0.3,
        "--draws",
        9,
    ]
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "got 12 x 12" in err
    code, _, _ = run(monkeypatch, capsys, *arguments, "--resize", "--out", folder / "votes.csv")
    written = pd.read_csv(folder / "votes.csv")
    assert code == 0
    assert written["name"].tolist() == ["kind 0/a.png", "kind 1/a.png"] * 2
    assert written["given_label"].tolist() == [0, 1] * 2
    code, _, _ = run(
        monkeypatch,
        capsys,
        *arguments[:2],
        folder / "images.npy",
        *arguments[3:],
        "--out",
        folder / "votes.csv",
    )
    written = pd.read_csv(folder / "votes.csv")
    assert code == 0
    assert written["name"].tolist()[:2] == [0, 1]
    assert "given_label" not in written


BAD_CALLS = {
    "level out of range": (
        "test",
        "model.onnx",
        "--clean",
        "images.npy",
        "--suspect",
        "images.npy",
        "--level",
        "1",
    ),
    "no suspect batch": ("test", "model.onnx", "--clean", "images.npy"),
    "missing model": ("measure", "none.onnx", "images.npy", "--sigma", "0.1"),
    "damaged model": ("measure", "broken.onnx", "images.npy", "--sigma", "0.1"),
    "unknown kind of model": ("measure", "model.pkl", "images.npy", "--sigma", "0.1"),
    "missing network": ("measure", "none.safetensors", "images.npy", "--sigma", "0.1"),
    "missing images": ("measure", "model.onnx", "none.npy", "--sigma", "0.1"),
    "damaged images": ("measure", "model.onnx", "broken.npy", "--sigma", "0.1"),
    "images out of range": ("measure", "model.onnx", "wild.npy", "--sigma", "0.1"),
    "unknown column": ("measure", "model.onnx", "two.npz", "--sigma", "0.1", "--column", "none"),
    "unknown label column": (
        "measure",
        "model.onnx",
        "two.npz",
        "--sigma",
        "0.1",
        "--column",
        "good",
        "--label-column",
        "none",
    ),
    "damaged picture": ("measure", "model.onnx", "broken.png", "--sigma", "0.1"),
    "folder of other files": ("measure", "model.onnx", ".", "--sigma", "0.1"),
    "unknown data set": ("measure", "model.onnx", "hf:none[test]", "--sigma", "0.1"),
    "size to resize to is unknown": (
        "measure",
        "sevens:classify",
        "images.npy",
        "--sigma",
        "0.1",
        "--resize",
    ),
    "labels as images": (
        "measure",
        "model.onnx",
        "two.npz",
        "--sigma",
        "0.1",
        "--column",
        "labels",
    ),
    "unknown trigger": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--trigger",
        "star",
    ),
    "unreadable trigger": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--trigger",
        "broken.png",
    ),
    "negative sigma": ("measure", "model.onnx", "images.npy", "--sigma", "-0.1"),
    "sigma is no number": ("measure", "model.onnx", "images.npy", "--sigma", "much"),
    "no draws": ("measure", "model.onnx", "images.npy", "--sigma", "0.1", "--draws", "0"),
    "no sigma": ("measure", "model.onnx", "images.npy"),
    "odd output": ("measure", "model.onnx", "images.npy", "--sigma", "0.1", "--out", "votes.xlsx"),
    "output nowhere": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--out",
        "none/votes.csv",
    ),
    "unknown recipe": ("study", "run", "mnist", "--out", "run"),
    "recipe in no file": ("study", "run", "mine.py:recipe", "--out", "run"),
    "nothing to unpack": ("study", "unpack", "absent", "run"),
    "unknown claim": ("study", "run", "digits", "--out", "run", "--only", "C99"),
    "missing data set": ("study", "run", "fashion-mnist", "--out", "run"),
    "negative seed": ("study", "run", "digits", "--out", "run", "--seed", "-1"),
    "column of an array": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--column",
        "none",
    ),
    "labels out of range": (
        "measure",
        "sevens:classify",
        "images.npy",
        "--sigma",
        "0.1",
        "--num-classes",
        "5",
    ),
    "module that does not import": ("measure", "faulty:classify", "images.npy", "--sigma", "0.1"),
    "sigma beyond float32": ("measure", "model.onnx", "images.npy", "--sigma", "1e39"),
    "output is a folder": (
        "measure",
        "model.onnx",
        "images.npy",
        "--sigma",
        "0.1",
        "--out",
        "folder.csv",
    ),
    "foreign folder": ("study", "run", "digits", "--out", "."),
    "status of nothing": ("study", "status", "none"),
    "report of nothing": ("study", "report", "none"),
    "unknown command": ("studdy",),
    "unknown option": ("study", "list", "--colour"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_gets_one_line_and_exit_code_2(monkeypatch, capsys, folder, name):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WOBBLINESS_DATA", str(folder / "no data"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = sorted(path.name for path in folder.rglob("*"))
    code, out, err = run(monkeypatch, capsys, *BAD_CALLS[name])
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.rglob("*")) == before, "nothing is written"


def test_study_commands(monkeypatch, capsys, tmp_path):
    # with one of claim C2; each takes half a second in each report
    first = figures.all_figures()[:4]
    monkeypatch.setattr(figures, "all_figures", lambda: first)

    def digits(seed=0):
        """Some seconds."""
        return dataclasses.replace(small(seed), name="digits")

    monkeypatch.setitem(recipes.RECIPES, "digits", digits)
    code, text, _ = run(monkeypatch, capsys, "study", "list", "--json")
    assert code == 0
    assert {row["recipe"] for row in json.loads(text)} == {
        "digits",
        "fashion-mnist",
        "cifar10",
        "cifar10-slim",
        "noises",
        "noises-cifar10",
    }
    out = tmp_path / "runs" / "digits"
    code, text, _ = run(
        monkeypatch,
        capsys,
        "study",
        "run",
        "digits",
        "--out",
        out,
        "--only",
        "C2",
        "--workers",
        "1",
        "--json",
    )
    assert code == 0
    answer = json.loads(text)
    verdicts = {claim["id"]: claim["verdict"] for claim in answer["claims"]}
    others = {"not measured", "not in this study"}
    assert [claim for claim, verdict in verdicts.items() if verdict not in others] == ["C2"]
    assert [claim for claim, verdict in verdicts.items() if verdict == "not in this study"] == [
        "C5",
        "C6",
    ]
    (second,) = (claim for claim in answer["claims"] if claim["id"] == "C2")
    assert list(second["readings"]) == ["standard deviation", "interquartile range"]
    assert float(second["number"]) >= 0
    assert answer["report"] == str(out / "report.html")
    code, text, _ = run(monkeypatch, capsys, "study", "status", out, "--json")
    assert json.loads(text)["num_done"] == 2
    code, text, _ = run(
        monkeypatch, capsys, "study", "report", out, "--markdown", tmp_path / "results.md"
    )
    assert code == 0
    assert text.rstrip().endswith(str(out / "report.html"))
    code, _, _ = run(monkeypatch, capsys, "study", "pack", out, tmp_path / "packed")
    assert code == 0
    code, text, _ = run(
        monkeypatch, capsys, "study", "unpack", tmp_path / "packed", tmp_path / "again", "--json"
    )
    assert json.loads(text)["claims"] == answer["claims"]
    network = next((out / "networks").iterdir())
    np.save(tmp_path / "one.npy", np.zeros((1, 1, 8, 8)))
    code, text, _ = run(
        monkeypatch, capsys, "measure", network, tmp_path / "one.npy", "--sigma", 0.1
    )
    assert code == 0


def test_help_has_an_example_each(monkeypatch, capsys):
    studies = [["study", name] for name in ("list", "run", "status", "report", "pack", "unpack")]
    for command in (["measure"], *studies):
        code, text, _ = run(monkeypatch, capsys, *command, "--help")
        assert code == 0
        assert "Example: wobbliness " + " ".join(command) in " ".join(
            text.replace("│", " ").split()
        )


def imported_packages(code):
    script = (
        f"import sys\nbefore = set(sys.modules)\n{code}\n"
        "print(*sorted({n.split('.')[0] for n in set(sys.modules) - before}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split()) - set(sys.stdlib_module_names)


def command(*arguments):
    """Code that runs a command to its good end."""
    call = f"sys.argv = {['wobbliness', *arguments]}\nfrom wobbliness.cli.main import main"
    return f"{call}\ntry:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"


def test_help_imports_only_what_is_listed():
    packages = {name for name in imported_packages(command("--help")) if not name.startswith("_")}
    assert packages <= HELP_MAY_IMPORT


def test_importing_the_package_imports_nothing_heavy():
    assert imported_packages("import wobbliness") <= {"wobbliness", "lazy_loader", "packaging"}


def test_reading_a_study_imports_no_torch():
    assert "torch" not in imported_packages("import wobbliness.study.report.report")


def test_a_runner_imports_no_torch_but_who_is_handed_its_cells_does():
    imports = "import pickle\nfrom wobbliness.study.running.runner import _CellsAt, ON_THE_CPU"
    sent = f"{imports}\nsent = pickle.dumps(_CellsAt(ON_THE_CPU))"
    assert "torch" not in imported_packages(sent)
    assert "torch" in imported_packages(f"{sent}\npickle.loads(sent)")


def test_to_measure_a_graph_loads_neither_torch_nor_what_draws_and_tests(folder):
    arguments = (
        f"measure {folder / 'model.onnx'} {folder / 'images.npy'} --sigma 0.1 --draws 2".split()
    )
    assert {"onnxruntime", "torch", "matplotlib", "sklearn"} & imported_packages(
        command(*arguments)
    ) == {"onnxruntime"}


def test_a_command_ends_without_a_last_look_at_all_objects():
    code = (
        "import atexit, gc\n"
        # the last one to be called
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))\n"
        "from wobbliness.cli.main import main\n"
        "main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "study", "list"], check=True, capture_output=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "False True"


def test_public_names_are_all_there():
    for name in wobbliness.__all__:
        assert getattr(wobbliness, name) is not None
    assert {"measure", "sweep", "open_classifier", "levene_test", "trigger", "Votes"} <= set(
        wobbliness.__all__
    )


def test_a_device_is_taken_by_every_command_that_runs_a_model(monkeypatch, capsys, folder):
    plain, placed = (
        run(
            monkeypatch,
            capsys,
            "measure",
            folder / "model.onnx",
            folder / "images.npy",
            "--sigma",
            0.1,
            "--json",
            *device,
        )
        for device in ((), ("--device", "cpu"))
    )
    assert plain == placed
    assert plain[0] == 0
    model, images = folder / "model.onnx", folder / "images.npy"
    for arguments in (
        ("measure", model, images, "--sigma", 0.1),
        ("test", model, "--clean", images, "--suspect", images),
        ("scan", model, images, "--trigger", "dot"),
        ("guard", "fit", model, images, "--out", folder / "guard"),
        ("guard", "judge", folder / "guard", model, images),
    ):
        code, _, err = run(monkeypatch, capsys, *arguments, "--device", "cuda")
        assert (code, err) == (
            2,
            f"error: expected a torch module to run on cuda, got {model}\n",
        ), arguments
