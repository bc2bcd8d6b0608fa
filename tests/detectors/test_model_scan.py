"""The model scan: planted triggers, clean networks, black boxes, pictures, page and command."""

import copy
import json
import re
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import wobbliness
from wobbliness.attacks.gradients.frozen_network import NoGradients
from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.cli import main as cli
from wobbliness.detectors.model_scan.scan import MIN_BLACK, MIN_WHITE
from wobbliness.reports.html import number
from wobbliness.reports.model_scan import scan_json, write_scan
from wobbliness.reports.scan_pictures import pattern_png, picture_png
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.recipes import digits as digits_recipe
from wobbliness.study.training.networks import build_network

TARGET = 5
SETTINGS = {"sigmas": (0.15, 0.2), "draws": 60, "max_steps": 50, "progress": ignore_progress}
SHORT = {"sigmas": (0.2,), "draws": 5, "max_steps": 2, "restarts": 1, "progress": ignore_progress}


@pytest.fixture(scope="module")
def backdoored(trained):
    return trained(digits_recipe().effect_networks[0])


@pytest.fixture(scope="module")
def clean_network(trained):
    return trained(digits_recipe().parameter_networks[0])


@pytest.fixture(scope="module")
def pictures(digits):
    return digits.test.images[:500]


@pytest.fixture(scope="module")
def suspected():
    return [wobbliness.trigger(name) for name in ("checkerboard", "square")]


@pytest.fixture(scope="module")
def found(backdoored, pictures, suspected):
    return wobbliness.scan_model(
        backdoored, pictures, triggers=suspected, model="planted", **SETTINGS
    )


@pytest.fixture(scope="module")
def found_on_clean(clean_network, pictures, suspected):
    return wobbliness.scan_model(clean_network, pictures, triggers=suspected, **SETTINGS)


@pytest.fixture(scope="module")
def black_box(backdoored):
    """The same network as one that gives labels alone."""

    def classify(images):
        with torch.inference_mode(), torch_threads(1):
            return backdoored(torch.from_numpy(images)).argmax(dim=1).numpy()

    return classify


def white_box(side, name="white"):
    return wobbliness.Trigger(
        name=name,
        pattern=np.ones((1, side, side), np.float32),
        mask=np.ones((side, side), np.float32),
    )


def flagged(scan):
    return [finding.target_class for finding in scan.candidates if finding.is_flagged]


def at_chosen(effect):
    return effect.comparison[effect.comparison.sigma]


def test_a_planted_trigger_is_flagged_and_found_smooth(found):
    assert flagged(found) == [TARGET]
    checkerboard, square = found.triggers
    assert checkerboard.target_class == TARGET
    assert checkerboard.sent_share > 0.95
    assert checkerboard.comparison.verdict == "smoother"
    assert square.comparison.verdict != "smoother", "control: a trigger that was not planted"
    assert square.sent_share < 0.5
    text = " ".join(found.to_look_at())
    assert f"Class {TARGET} is a likely target" in text
    assert "Trigger checkerboard sends" in text
    assert "square" not in text


def test_a_clean_network_is_not_accused(found_on_clean):
    assert flagged(found_on_clean) == []
    assert all(effect.comparison.verdict != "smoother" for effect in found_on_clean.triggers)
    assert not any(effect.sends_most for effect in found_on_clean.triggers)
    assert not any("likely target of a backdoor" in line for line in found_on_clean.to_look_at())


def test_parts_do_not_overlap_and_levels_are_shared_out(found, pictures):
    assert found.num_crafted_on + found.num_clean + found.num_suspect == len(pictures)
    assert {effect.comparison.level for effect in found.effects} == {found.level / 12}
    assert {effect.comparison.sigma for effect in found.effects} == {found.comparison.sigma}
    assert {len(w) for effect in found.effects for w in effect.w.values()} == {found.num_suspect}
    assert found.comparison.num_clean + found.comparison.num_for_sigma == found.num_clean


def test_counts_are_those_of_the_network(found, backdoored, pictures):
    """Recounted from the pictures of the seed's own split."""
    order = np.random.default_rng(np.random.SeedSequence(0)).permutation(len(pictures))
    suspect = pictures[order[found.num_crafted_on :][: found.num_suspect]]

    def named(images):
        with torch.inference_mode():
            return backdoored(torch.from_numpy(images)).argmax(dim=1).numpy()

    before = named(suspect)
    for effect in found.effects:
        after, others = named(effect.trigger.apply(suspect)), before != effect.target_class
        assert effect.num_changed == (before != after).sum()
        assert (effect.num_others, effect.num_sent) == (
            others.sum(),
            (after[others] == effect.target_class).sum(),
        )
        assert (suspect == effect.clean).all(axis=(1, 2, 3)).any()
        np.testing.assert_array_equal(effect.stamped, effect.trigger.apply(effect.clean[None])[0])


def test_w_is_that_of_measure_with_the_noise_of_the_clean_twin(found, backdoored, pictures):
    order = np.random.default_rng(np.random.SeedSequence(0)).permutation(len(pictures))
    suspect = pictures[order[found.num_crafted_on :][: found.num_suspect]]
    keys = wobbliness.image_keys(suspect)
    stamped = found.triggers[0].trigger.apply(suspect)
    votes = wobbliness.measure(backdoored, stamped, 0.2, draws=60, keys=keys)
    # rounding at another block size
    assert np.abs(found.triggers[0].w[0.2] - votes.wobbliness).mean() < 0.001


def test_what_is_not_reached_is_said(pictures):
    class Constant(torch.nn.Module):
        """Gradients that lead nowhere."""

        def forward(self, images):
            return images.new_tensor([1.0, 0.0, 0.0]) + 1e-3 * images.flatten(1)[:, :3]

    scan = wobbliness.scan_model(Constant(), pictures[:60], **SHORT | {"max_steps": 8})
    assert [finding.candidate is None for finding in scan.candidates] == [False, True, True]
    assert [finding.anomaly_index for finding in scan.candidates] == [None] * 3
    assert scan_json(scan)["failed_classes"] == [1, 2]
    alone = wobbliness.scan_model(Constant(), pictures[:60], **SHORT, classes=[2])
    assert (alone.effects, alone.comparison) == ((), None)
    assert alone.to_look_at()[0].startswith("Nothing can be said"), "not that nothing stands out"
    assert scan.to_look_at()[-1] == "The search failed, and says nothing, for class 1, 2."


def test_a_network_without_gradients_is_not_reported_as_clean(backdoored, suspected, pictures):
    class Blind(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = backdoored

        @torch.no_grad()
        def forward(self, images):
            return self.network(images)

    with pytest.raises(
        NoGradients,
        match="^expected a network with gradients for its images, "
        "got one without: it cuts them off",
    ):
        wobbliness.scan_model(Blind(), pictures[:60], **SHORT)
    scan = wobbliness.scan_model(Blind(), pictures[:300], triggers=suspected[:1], **SETTINGS)
    assert scan.why_no_candidates.startswith("expected a network with gradients")
    assert scan.candidates == ()
    assert scan.triggers[0].target_class == TARGET
    assert "Trigger checkerboard sends" in scan.to_look_at()[0]


def test_copies_of_images_count_once(black_box, suspected, pictures):
    few = np.ascontiguousarray(
        np.unique(pictures[:80].reshape(80, -1), axis=0)[:40].reshape(40, 1, 8, 8)
    )
    settings = SHORT | {"triggers": suspected[:1], "num_classes": 10}
    alone = wobbliness.scan_model(black_box, few, **settings)
    doubled = wobbliness.scan_model(black_box, np.concatenate([few, few[:30]]), **settings)
    assert (doubled.num_clean, doubled.num_suspect) == (alone.num_clean, alone.num_suspect)
    assert doubled.triggers[0].w[0.2].tolist() == alone.triggers[0].w[0.2].tolist()
    for images, reason in (
        (np.concatenate([few[:30], few[:20]]), "at least 32 different images"),
        (np.repeat(few[:10], 8, axis=0), "clean images that differ, got 80 of which 10 do"),
        (
            np.repeat(
                np.linspace(0, 1, 60, dtype=np.float32)[:, None, None, None], 64, axis=1
            ).reshape(60, 1, 8, 8),
            "with content",
        ),
        (
            np.concatenate([few, few[:8] * np.float32(np.nan)]),
            r"images in \[0, 1\], got values from nan to nan",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            wobbliness.scan_model(black_box, images, **settings)


@pytest.mark.parametrize(
    "wrap", [lambda scores: (scores, None), lambda scores: {"loss": None, "logits": scores}]
)
def test_modules_of_several_outputs_are_scanned(backdoored, pictures, wrap):
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = backdoored

        def forward(self, images):
            return wrap(self.network(images))

    settings = SHORT | {"max_steps": 12, "classes": [TARGET]}
    found, expected = (
        wobbliness.scan_model(module, pictures[:120], **settings)
        for module in (Wrapped(), backdoored)
    )
    assert found.candidates[0].candidate.mask_l1 == pytest.approx(
        expected.candidates[0].candidate.mask_l1, rel=0.02
    )


def one_score(last):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1), last)


def test_one_score_of_two_classes_is_scanned(pictures):
    """A sigmoid tells its threshold; any other score needs one, and gives the same with it."""
    settings = SHORT | {"max_steps": 12}
    declared = one_score(torch.nn.Sigmoid())
    opened = wobbliness.open_classifier(one_score(torch.nn.Sigmoid()), threshold=0.5)
    scans = [wobbliness.scan_model(one, pictures[:120], **settings) for one in (declared, opened)]
    norms = [[found.candidate.mask_l1 for found in scan.candidates] for scan in scans]
    assert len(norms[0]) == 2
    assert norms[0] == norms[1]
    with pytest.raises(ValueError, match="--threshold"):
        wobbliness.scan_model(one_score(torch.nn.Identity()), pictures[:120], **settings)
    with pytest.raises(ValueError, match="make it two scores, 0 and score - threshold"):
        wobbliness.craft_candidates(declared, pictures[:120], num_classes=2)
    with pytest.raises(ValueError, match=r"got \(2, 3\)$"):
        wobbliness.craft_candidates(Blind(), pictures[:120], num_classes=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_half_and_double_precision_are_scanned(backdoored, pictures, dtype):
    other = copy.deepcopy(backdoored).to(dtype)
    scan = wobbliness.scan_model(
        other, pictures[:120], **SHORT | {"max_steps": 12, "classes": [TARGET]}
    )
    assert scan.candidates[0].effect.sent_share > 0.9


def test_a_black_box_gets_the_suspected_triggers_alone(black_box, found, suspected, pictures):
    settings = {**SETTINGS, "sigmas": (found.comparison.sigma,), "draws": 30}
    scan = wobbliness.scan_model(
        black_box, pictures[:300], triggers=suspected, num_classes=10, **settings
    )
    assert scan.candidates == ()
    assert "no gradients" in scan.why_no_candidates
    assert scan.num_crafted_on == 0
    assert scan.triggers[0].target_class == TARGET
    assert [effect.comparison.verdict == "smoother" for effect in scan.triggers] == [True, False]
    assert not any("anomaly" in line for line in scan.limits())
    with pytest.raises(
        ValueError,
        match=r"^expected a torch network or a suspected trigger at least .* got neither",
    ):
        wobbliness.scan_model(black_box, pictures)
    with pytest.raises(
        ValueError, match=r"^expected no classes to craft candidates for, got \(1,\)"
    ):
        wobbliness.scan_model(black_box, pictures, triggers=suspected, classes=[1])


def test_a_tensor_and_a_function_of_tensors(backdoored, suspected, pictures):
    def classify(images):
        assert isinstance(images, torch.Tensor)
        return backdoored(images).argmax(dim=1)

    tensors = torch.from_numpy(pictures[:60])
    with torch_threads(1):
        scan = wobbliness.scan_model(
            classify, tensors, triggers=suspected[:1], num_classes=10, **SHORT
        )
    assert scan.triggers[0].sent_share > 0.9


def test_an_exported_program_is_a_white_box(backdoored, pictures, tmp_path):
    example, batch = (torch.from_numpy(pictures[:2]),), torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            torch.export.export(backdoored, example, dynamic_shapes=({0: batch},)),
            tmp_path / "model.pt2",
        )
    settings = {**SHORT, "max_steps": 12, "classes": [TARGET]}
    scans = [
        wobbliness.scan_model(wobbliness.open_classifier(source), pictures[:120], **settings)
        for source in (tmp_path / "model.pt2", backdoored)
    ]
    exported, module = (scan.candidates[0] for scan in scans)
    assert exported.effect.sent_share > 0.9
    assert exported.candidate.mask_l1 == pytest.approx(module.candidate.mask_l1, rel=0.05)


def test_a_pattern_can_be_read_back_as_a_trigger(found, tmp_path):
    for effect in (found.effects[0], found.triggers[0]):
        (tmp_path / "pattern.png").write_bytes(pattern_png(effect.trigger, effect.clean.shape))
        again = wobbliness.trigger_from_png(tmp_path / "pattern.png")
        np.testing.assert_allclose(again.apply(effect.clean[None])[0], effect.stamped, atol=2 / 255)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGB")])
def test_pictures_have_their_pixels(channels, mode, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.float32) / 255
    (tmp_path / "picture.png").write_bytes(picture_png(image))
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.mode == mode
        pixels = np.asarray(picture).reshape(5, 7, -1)
    np.testing.assert_array_equal(
        pixels, np.moveaxis(np.round(255 * image), 0, -1)[..., : pixels.shape[-1]]
    )


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_page_asks_no_one_and_has_the_same_bytes_twice(found, tmp_path):
    pages = [write_scan(found, tmp_path / name) for name in ("one", "two")]
    one, two = (written(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert {
        "report.html",
        "scan.json",
        "scan.csv",
        "pictures/candidate-5.png",
        "pictures/trigger-1-triggered.png",
    } <= set(one)
    text = pages[0].read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', text))
    images = re.findall(r"<img[^>]*>", text)
    assert len(images) == 3 * 12 + 1
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    for line in (*found.to_look_at(), *found.limits()):
        assert line in text
    assert number(at_chosen(found.triggers[0]).suspect_mean) in text


def test_a_scan_is_replaced_by_another_and_nothing_else(
    found, found_on_clean, black_box, suspected, pictures, tmp_path
):
    write_scan(found, tmp_path / "scan")
    scan = wobbliness.scan_model(
        black_box, pictures[:60], triggers=suspected[:1], num_classes=10, **SHORT
    )
    write_scan(scan, tmp_path / "scan")
    assert {path.stem for path in (tmp_path / "scan" / "pictures").iterdir()} == {
        *("trigger-1", "trigger-1-clean", "trigger-1-triggered", "w")
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="^expected a new or empty folder, or one of a scan"):
        write_scan(found_on_clean, tmp_path / "other")


def test_names_in_the_page_are_text(black_box, pictures, tmp_path):
    scan = wobbliness.scan_model(
        black_box,
        pictures[:60],
        triggers=[white_box(2, "<b>&")],
        num_classes=10,
        model="<script>",
        **SHORT,
    )
    text = write_scan(scan, tmp_path / "scan").read_text()
    assert "<script>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_json_and_table_hold_the_numbers(found, tmp_path):
    write_scan(found, tmp_path / "scan")
    content = json.loads((tmp_path / "scan" / "scan.json").read_text())
    table = pd.read_csv(tmp_path / "scan" / "scan.csv")
    assert content["flagged_classes"] == [TARGET]
    assert len(content["patterns"]) == len(table) == 12 * 2
    effect = found.triggers[0]
    row = next(
        row for row in content["patterns"] if row["pattern"] == "checkerboard" and row["is_chosen"]
    )
    assert row["pvalue_smoother"] == at_chosen(effect).smoother.pvalue
    assert (row["mask_l1"], row["is_flagged"]) == (None, None)
    assert table.suspect_mean[table.pattern == "candidate 5"].tolist() == pytest.approx(
        [found.candidates[5].effect.comparison[sigma].suspect_mean for sigma in (0.15, 0.2)]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 0.0}, r"expected a level in \(0, 1\), got 0.0"),
        ({"seed": -1}, "expected a seed of at least 0, got -1"),
        ({"sigmas": ()}, "expected distinct sigmas, at least one"),
        ({"restarts": 0}, "expected restarts of at least 1, got 0"),
        ({"classes": [10]}, "expected different classes in 0 to 9"),
        ({"images": np.zeros((60, 64), np.float32)}, r"expected pictures \(N, C, H, W\)"),
        (
            {"images": np.zeros((MIN_WHITE - 1, 1, 8, 8), np.float32)},
            f"expected at least {MIN_WHITE} images",
        ),
        ({"images": np.full((60, 1, 8, 8), 2.0)}, r"expected images in \[0, 1\]"),
        ({"triggers": [white_box(9)]}, "expected images that hold 9 x 9 pixels"),
    ],
)
def test_bad_arguments_are_refused(backdoored, pictures, changes, message):
    arguments = {**SHORT, "images": pictures[:60], **changes}
    with pytest.raises(ValueError, match=message):
        wobbliness.scan_model(backdoored, arguments.pop("images"), **arguments)


def test_few_images_are_enough_as_said(black_box, backdoored, suspected, pictures):
    settings = {**SHORT, "sigmas": (0.1, 0.2)}
    wobbliness.scan_model(
        black_box, pictures[:MIN_BLACK], triggers=suspected[:1], num_classes=10, **settings
    )
    wobbliness.scan_model(backdoored, pictures[:MIN_WHITE], classes=[1], **settings)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, backdoored, pictures):
    """A folder with the network's graph, and its weights beside it."""
    folder = tmp_path_factory.mktemp("exported")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        example = (torch.from_numpy(pictures[:2]),)
        torch.onnx.export(
            backdoored,
            example,
            folder / "model.onnx",
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
        )
    return folder


@pytest.fixture
def folder(tmp_path, exported, backdoored, pictures):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    save_file(
        {name: values.contiguous() for name, values in backdoored.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    np.save(tmp_path / "images.npy", pictures[:150])
    (tmp_path / "sticker.png").write_bytes(
        pattern_png(wobbliness.trigger("checkerboard"), (1, 8, 8))
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    return tmp_path


def small_cnn():
    """A factory for the command."""
    return build_network("small_cnn", (1, 8, 8), 10, seed=0)


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


def test_the_command_tries_a_png_on_an_onnx_file(monkeypatch, capsys, folder):
    arguments = [
        "scan",
        folder / "model.onnx",
        folder / "images.npy",
        "--sigma",
        0.2,
        "--draws",
        50,
    ]
    code, text, _ = run(
        monkeypatch,
        capsys,
        *arguments,
        "--trigger",
        folder / "sticker.png",
        "--out",
        folder / "scan",
    )
    assert code == 0
    assert "Trigger sticker sends" in text
    assert "no candidates: this model gives answers but no gradients" in text
    assert text.rstrip().endswith(f"report: {folder / 'scan' / 'report.html'}")
    assert "model.onnx" in (folder / "scan" / "report.html").read_text()
    code, text, _ = run(
        monkeypatch, capsys, *arguments, "--trigger", folder / "sticker.png", "--json"
    )
    answer = json.loads(text)
    assert (code, answer["report"], answer["patterns"][0]["target_class"]) == (0, None, TARGET)
    for bad in (
        (),
        ("--trigger", "star"),
        ("--trigger", "square", "--out", folder / "full"),
        ("--trigger", "square", "--level", 1),
    ):
        code, out, err = run(monkeypatch, capsys, *arguments, *bad)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: expected ")


def test_the_command_crafts_on_weights_with_a_factory(monkeypatch, capsys, folder):
    arguments = [
        "scan",
        folder / "model.safetensors",
        folder / "images.npy",
        "--factory",
        f"{__name__}:small_cnn",
    ]
    settings = [
        "--sigma",
        0.2,
        "--draws",
        20,
        "--steps",
        15,
        "--restarts",
        1,
        "--target",
        1,
        "--target",
        5,
        "--seed",
        1,
    ]
    code, text, err = run(monkeypatch, capsys, *arguments, *settings)
    assert (code, err) == (0, "")
    assert text.splitlines()[1].split()[:2] == ["candidate", "1"]
    assert text.splitlines()[2].split()[:2] == ["candidate", "5"]
    assert "note: A candidate is not the implanted trigger" in text


@torch.no_grad()
def answer(images):
    return images.flatten(1)[:, :3]


class Blind(torch.nn.Module):
    def forward(self, images):
        return answer(images)


blind = Blind()


class Infinite(torch.nn.Module):
    """Gradients that are NaN wherever a pixel is black."""

    def forward(self, images):
        return images.abs().sqrt().flatten(1)[:, :10]


infinite = Infinite()


def test_the_command_fails_in_one_line_without_gradients(monkeypatch, capsys, folder):
    arguments = [
        "scan",
        f"{__name__}:blind",
        folder / "images.npy",
        "--sigma",
        0.2,
        "--draws",
        5,
        "--steps",
        2,
    ]
    code, out, err = run(monkeypatch, capsys, *arguments, "--out", folder / "scan")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        "error: expected a network with gradients for its images, got one without"
    )
    assert not (folder / "scan").exists()
    code, out, _ = run(monkeypatch, capsys, *arguments, "--trigger", "square")
    assert code == 0
    said = [
        line for line in out.splitlines() if not line.startswith(("pattern", "square", "warning"))
    ]
    assert said[0].startswith("no candidates: expected a network with gradients"), "said first"


def test_the_command_says_that_gradients_are_not_finite(monkeypatch, capsys, folder):
    arguments = [
        "scan",
        f"{__name__}:infinite",
        folder / "images.npy",
        "--sigma",
        0.2,
        "--draws",
        5,
        "--steps",
        2,
    ]
    code, _, err = run(monkeypatch, capsys, *arguments, "--json")
    last = err.splitlines()[-1]
    assert (
        code,
        last.endswith("some are not finite (NaN or infinite); nothing can be crafted"),
    ) == (1, True)


def test_help_has_an_example(monkeypatch, capsys):
    code, text, _ = run(monkeypatch, capsys, "scan", "--help")
    assert code == 0
    assert "Example: wobbliness scan " in " ".join(text.replace("│", " ").split())
