"""Every command and code block of the README, the start page and the guide, run as printed."""

import dataclasses
import json
import os
import re
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import small_study
import torch
from model_files import save_onnx
from PIL import Image
from residual_networks import residual_network
from safetensors.torch import save_file

import wobbliness
from wobbliness.cli import main as cli
from wobbliness.detectors.base import Detector
from wobbliness.reports.scan_pictures import pattern_png
from wobbliness.study import recipes
from wobbliness.study.report import figures

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/index.md", "docs/guide.md")
# the guide's study is whole; to watch the part that the README asks for would never end
REVERSED = PAGES[::-1]
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FACTORY = """
from wobbliness.study.training.networks import build_network


def build():
    return build_network("small_cnn", (1, 8, 8), 10, seed=0)
"""
ELSEWHERE = {
    "make demo": "the guide's study run",
    "make test": "runs this file",
    "pip install .": "make wheel-check",
}
IN_SHORT = {
    "wobbliness bench": ["--repeats", "1", "--scale", "0.01"],
    "wobbliness scan": ["--steps", "4", "--draws", "20"],
    # a worker takes longer to start than a short study to end
    "wobbliness study run": ["--workers", "1"],
}
EXIT_CODES = {"--fail-on-trigger": cli.EXIT_TRIGGER}
SAID = {
    "wobbliness test": "verdict: smoother (",
    "wobbliness scan": "report: scan/report.html",
    "wobbliness guard fit": "clean inputs for reference",
    "wobbliness guard judge": "inputs are suspicious",  # -ly smooth, of the guard of noise alone
    "wobbliness measure": "mean W",
    "wobbliness detect": "top-score judges inputs",
    "wobbliness bench": "small_cnn",
    "wobbliness study list": "fashion-mnist",
    "wobbliness study run": "report: runs/",
    "wobbliness study status": "done",
    "wobbliness study report": "report: runs/",
    "wobbliness study unpack": "report: runs/",
}


def blocks(page):
    """Language and text of each fenced block, in order."""
    return BLOCKS.findall((ROOT / page).read_text(encoding="utf-8"))


def commands(page):
    """Lines of the blocks that are typed into a shell, without their comments."""
    lines = [
        line
        for language, text in blocks(page)
        if not language
        for line in text.splitlines()
        if line.strip()
    ]
    return [
        " ".join(shlex.split(line, comments=True))
        for line in lines
        if line.split()[0] in {"wobbliness", "make", "pip"}
    ]


def own_study():
    """The guide's file with a recipe of one's own."""
    (text,) = (text for _, text in blocks("docs/guide.md") if text.startswith("# my_study.py"))
    return text


@pytest.fixture(scope="module")
def digits_split(digits):
    """Honest pictures that are not of the attacked class, and others with the trigger on them."""
    others = digits.test.images[digits.test.labels != 5]
    return others[:300], wobbliness.trigger("checkerboard").apply(others[300:400])


@pytest.fixture(scope="module")
def backdoored(trained):
    return trained(recipes.digits().effect_networks[0]).eval()


@pytest.fixture(scope="module")
def folder(digits, digits_split, backdoored, tmp_path_factory):
    """A reader's files: a model, pictures, arrays, a sticker, and the repository's documents."""
    out = tmp_path_factory.mktemp("reader")
    clean, suspect = digits_split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        torch.onnx.export(
            backdoored,
            (torch.from_numpy(clean[:2]),),
            out / "model.onnx",
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
        )
    save_file(
        {name: tensor.contiguous() for name, tensor in backdoored.state_dict().items()},
        out / "network.safetensors",
    )
    (out / "my_model.py").write_text(FACTORY, encoding="utf-8")
    (out / "my_study.py").write_text(own_study(), encoding="utf-8")
    (out / "sticker.png").write_bytes(pattern_png(wobbliness.trigger("checkerboard"), (1, 8, 8)))
    arrays = {"clean": clean, "inbox": suspect, "images": suspect[:10]}
    arrays["others"] = digits.test.images[digits.test.labels != 5][400:]
    for name, batch_of in arrays.items():
        np.save(out / f"{name}.npy", batch_of)
    for name, batch_of in (("clean_pictures", clean), ("inbox", suspect)):
        (out / name).mkdir()
        for index, image in enumerate(batch_of):
            Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(
                out / name / f"{index:03d}.png"
            )
    (out / "docs").symlink_to(ROOT / "docs")
    return out


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wobbliness", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_known_kind(page):
    assert commands(page)
    for language, text in blocks(page):
        assert language in {"", "python"}
        first = text.split()[0]
        assert language == "python" or first in {"wobbliness", "make", "pip", "src/wobbliness/"}, (
            first
        )


@pytest.fixture
def short_studies(monkeypatch):
    """Replaces the study of the digits, which takes minutes, by one of some seconds."""

    def digits(seed=0):
        """Some seconds."""
        return dataclasses.replace(small_study.small(seed), name="digits")

    # each takes half a second in each of five reports
    first = figures.all_figures()[:1]
    monkeypatch.setattr(figures, "all_figures", lambda: first)
    monkeypatch.setattr(recipes, "digits", digits)
    monkeypatch.setitem(recipes.RECIPES, "digits", digits)


@pytest.mark.usefixtures("short_studies")
def test_the_commands_run_as_printed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    distinct = dict.fromkeys(
        command for page in REVERSED for command in commands(page) if command not in ELSEWHERE
    )
    for command in distinct:
        (kind,) = (kind for kind in SAID if f"{command} ".startswith(f"{kind} "))
        expected = max(
            (code for option, code in EXIT_CODES.items() if option in command), default=0
        )
        code, out, err = run(
            monkeypatch, capsys, *shlex.split(command)[1:], *IN_SHORT.get(kind, [])
        )
        assert code == expected, (command, err)
        assert SAID[kind] in out, (command, out)
    assert {path.name for path in folder.glob("*.csv")} == {
        "scores.csv",
        "verdicts.csv",
        "votes.csv",
    }
    assert (folder / "verdicts.html").is_file()
    assert all(
        (folder / "runs" / name / "report.html").is_file()
        for name in ("digits", "mine", "published")
    )


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_the_python_blocks_run_one_after_another(
    page, folder, digits_split, backdoored, monkeypatch
):
    monkeypatch.chdir(folder)
    clean, suspect = digits_split
    names = {"wobbliness": wobbliness, "classifier": backdoored, "network": backdoored}
    names |= {"images": suspect[:20], "clean_images": clean, "suspect_images": suspect}
    for _, text in (block for block in blocks(page) if block[0] == "python"):
        # a folder read by a block before is too many for the next
        names |= {"images": suspect[:20]}
        exec(compile(text, f"{page}: {text[:40]!r}", "exec"), names)
    assert names["guard"].false_positive_rate == 0.05
    assert names["found"] is not None


def test_the_page_on_perturbations_runs(folder, digits_split, backdoored, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    clean, suspect = digits_split
    names = {"wobbliness": wobbliness, "classifier": backdoored}
    names |= {"images": suspect[:5], "clean_images": clean, "network": residual_network(channels=1)}
    text = (ROOT / "docs" / "perturbations.md").read_text(encoding="utf-8")
    found = BLOCKS.findall(text)
    exec("".join(block for language, block in found if language == "python"), names)
    assert (len(names["votes"]), names["noise"].sigma > 0) == (5, True)
    lines = [line for language, block in found if not language for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        code, out, err = run(monkeypatch, capsys, *shlex.split(line)[1:], "--json")
        assert code == 0, err
        assert json.loads(out)


def test_the_page_on_domains_runs(tmp_path, monkeypatch, capsys):
    """Each block as printed; the command on a graph of the page's own network."""
    monkeypatch.chdir(tmp_path)
    found = BLOCKS.findall((ROOT / "docs" / "domains.md").read_text(encoding="utf-8"))
    assert [language for language, _ in found] == ["python"] * 3 + ["", "python"]
    names = {"wobbliness": wobbliness}
    for _, text in (block for block in found if block[0]):
        exec(compile(text, f"docs/domains.md: {text[:40]!r}", "exec"), names)
    predicted = names["pipeline"].predict(names["rows"][400:420])
    assert np.mean(names["votes"].label == predicted) > 0.8
    assert names["votes"].wobbliness.max() > 0
    few, many, _ = (votes.wobbliness.mean() for votes in names["sweep"].votes)
    assert few < many
    clean, triggered = names["clean_votes"], names["triggered_votes"]
    assert (clean.label.mean(), triggered.label.mean()) == (0, 1)
    assert clean.wobbliness.mean() + 0.3 < triggered.wobbliness.mean()
    assert names["graph_votes"].wobbliness.max() > 0
    np.save("ids.npy", names["texts"])
    save_onnx(names["text_network"], "texts.onnx", torch.from_numpy(names["texts"][:2]))
    ((_, command),) = (block for block in found if not block[0])
    code, out, err = run(monkeypatch, capsys, *shlex.split(command)[1:], "--json")
    assert code == 0, err
    (row,) = json.loads(out)["measurements"]
    again = wobbliness.measure(names["text_network"], names["texts"], names["drop"])
    assert row["counts"] == again.counts.tolist()


def contributors_example(room):
    """The block of the section that says how to add to a room."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"## Add a {room}\n")[2].partition("\n## ")[0]
    ((_, example),) = BLOCKS.findall(section)
    return example


def test_the_detector_of_the_contributors_page_finds_a_trigger(
    digits_split, folder, monkeypatch, capsys
):
    (folder / "agreement.py").write_text(contributors_example("detector"), encoding="utf-8")
    monkeypatch.chdir(folder)
    arguments = ("model.onnx", "inbox.npy", "--clean", "clean.npy", "--json")
    code, out, err = run(
        monkeypatch, capsys, "detect", *arguments, "--detector", "agreement.py:Agreement"
    )
    assert code == 0, err
    found = json.loads(out)
    scores = np.array([row["score"] for row in found["rows"]])
    assert (found["detector"], len(scores)) == ("agreement", len(digits_split[1]))
    names = {}
    exec(contributors_example("detector"), names)
    detector = names["Agreement"]()
    assert isinstance(detector, Detector)
    assert names["Agreement"](0.5).name == "agreement-sigma-0.5"
    clean = detector.fit(str(folder / "model.onnx"), None).scores(digits_split[0])
    assert scores.mean() > clean.mean() + 0.05


def test_the_example_of_the_contributors_page_is_measured(digits_split, backdoored):
    """The mirrored copies of symmetric pictures are the pictures: unanimous votes."""
    names = {"classifier": backdoored, "images": digits_split[0][:6]}
    text = contributors_example("perturbation")
    exec(compile(text, "CONTRIBUTING.md", "exec"), names)
    assert names["votes"].perturbation == "mirror"
    assert (names["votes"].counts > 0).sum(axis=1).max() == 2, "two different copies of a picture"
    symmetric = np.maximum(names["images"], names["images"][..., ::-1])
    found = wobbliness.measure(backdoored, symmetric, names["Mirror"](), draws=20)
    assert found.wobbliness.max() == 0


def test_a_block_that_does_not_run_is_noticed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, _, err = run(
        monkeypatch,
        capsys,
        "test",
        "missing.onnx",
        "--clean",
        "clean_pictures/",
        "--suspect",
        "inbox/",
    )
    assert code != 0
    assert err.count("\n") == 1
    with pytest.raises(SyntaxError):
        compile("found = wobbliness.", "page", "exec")
    assert os.listdir(folder)
