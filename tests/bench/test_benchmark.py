"""The benchmark command: every contender runs, ratios follow from rates; no speed is asserted."""

import functools
import importlib.util
import json

import numpy as np
import pytest
import torch
from command_line import run
from residual_networks import PICTURE, residual_network

from wobbliness.bench import benchmark
from wobbliness.bench.benchmark import run_benchmark
from wobbliness.bench.families import every_family, families_of
from wobbliness.bench.methods import IBD_PSC, METHODS, methods_of, teco_loop
from wobbliness.bench.published_corruptions import corrupted_picture
from wobbliness.bench.results import NetworkResult, Rate
from wobbliness.perturbations import Corrupt, Gaussian, Scale
from wobbliness.perturbations.base import Scratch, Stream, image_keys
from wobbliness.perturbations.find import perturbation_kinds
from wobbliness.perturbations.pictures.corrupt import KINDS, SEVERITIES
from wobbliness.runtime.field_limits import kind_of
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.training.networks import build_network


def test_the_command_gives_every_contender_and_consistent_ratios(monkeypatch, capsys):
    measured = []

    def once(*arguments, **settings):
        """The second command shows what the first one measured."""
        measured.append((arguments, settings))
        return kept(repr(measured[-1]))

    kept = functools.cache(lambda _: run_benchmark(*measured[-1][0], **measured[-1][1]))
    monkeypatch.setattr(benchmark, "run_benchmark", once)
    arguments = ["bench", "--network", "small_cnn", "--repeats", 2, "--scale", 0.01]
    code, out, _ = run(monkeypatch, capsys, *arguments, "--json")
    assert code == 0
    (network,) = json.loads(out)["networks"]
    names = [rate["contender"] for rate in network["rates"]]
    assert names[:2] == ["ours", "loop"]
    assert any(name.startswith("bare") for name in names)
    assert any(name.startswith("ART") for name in names) == (
        importlib.util.find_spec("art") is not None
    )
    assert all(
        len(rate["per_second"]) == 2 and min(rate["per_second"]) > 0 for rate in network["rates"]
    )
    assert "checked" in names
    assert network["precision"].split(":")[0] in {"checked", "float32"}
    assert 500_000 < network["flops"] < 5_000_000
    assert {decision["question"] for decision in json.loads(out)["decisions"]} == {
        "true W",
        "all draws",
    }
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "ours / loop" in out
    assert "ours / precision checked" in out
    assert "times fewer" in out
    assert len(measured) == 2
    assert kept.cache_info().misses == 1


def test_ratios_are_of_the_same_repeat_and_the_best_setting():
    rates = {
        "ours": (10.0, 20.0, 30.0),
        "STRIP, ours": (9.0, 8.0, 8.0),
        "STRIP, published loop": (3.0, 4.0, 1.0),
        "loop": (5.0, 5.0, 5.0),
        "bare 25": (20.0, 20.0, 60.0),
        "bare 50": (1.0, 1.0, 1.0),
    }
    result = NetworkResult(
        network="x",
        flops=2.0,
        rates=tuple(
            Rate(contender=name, per_second=found, peak_bytes=None) for name, found in rates.items()
        ),
        sgemm=(40.0, 40.0, 40.0),
    )
    assert result.ratio("loop") == 4.0
    assert result.ratio("bare") == 0.5
    assert result.ratio("ART") is None
    assert result.method_ratios() == {"STRIP": 3.0}
    assert result.sgemm_share == 1.0


def corrupted_as_ours(picture, kind, severity, _):
    """A stored picture, corrupted by the perturbation."""
    image = picture.astype(np.float32) / np.float32(255)
    stream = Stream(0, int(image_keys(image[None])[0]), scratch=Scratch())
    made = np.empty((1, *image.shape), np.float32)
    Corrupt(kind, (severity,)).copies(stream, image, 1, made)
    return np.rint(made[0] * 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_of_the_published_loop_are_those_of_the_family(kind):
    """To the step where nothing is drawn; where something is, in mean and variance."""
    rng = np.random.default_rng(0)
    picture = np.rint(255 * rng.random((3, 32, 32)) ** 2).astype(np.uint8)
    for severity in SEVERITIES:
        ours = corrupted_as_ours(picture, kind, severity, None).astype(float)
        published = corrupted_picture(picture, kind, severity, rng).astype(float)
        if kind.endswith("noise"):
            assert ours.mean() == pytest.approx(published.mean(), abs=3)
            spread = np.std(published - picture)
            assert np.std(ours - picture) == pytest.approx(spread, rel=0.15)
            assert not np.array_equal(ours, published)
        else:
            assert np.abs(ours - published).max() <= 1
            # ours counts a value just below its step, by rounding, as that step
            assert np.mean(ours != published) < 0.15


@pytest.mark.parametrize("method", [*METHODS, IBD_PSC], ids=lambda method: method.name)
def test_both_sides_of_a_method_compute_the_same_statistic(method):
    shape = PICTURE if method is IBD_PSC else (1, 28, 28)
    small = build_network("small_cnn", shape, 10, seed=1).eval()
    network = residual_network() if method is IBD_PSC else small
    images = np.random.default_rng(0).random((20, *shape), dtype=np.float32) ** 3
    # in whole steps, as the published loop of TeCo stores pictures; with the draws of our side
    images = np.floor(images * 255).astype(np.float32) / np.float32(255)
    loop_of = functools.partial(teco_loop, corrupted=corrupted_as_ours)
    make_loop = loop_of if method.name == "TeCo" else method.loop
    ours, loop = method.ours(network, shape)(images), make_loop(network, shape)(images)
    assert ours.shape == loop.shape == (20,)
    assert np.ptp(loop) > 0, "control: the statistic differs from image to image"
    assert ours == pytest.approx(loop, abs=1e-5)


def test_families_and_methods_of_networks_are_for_those_with_the_nodes():
    plain, residual = (
        build_network(name, (3, 8, 8), 10, seed=1) for name in ("small_cnn", "resnet18")
    )
    assert families_of(plain, PICTURE) == every_family(PICTURE)
    of_network = families_of(residual, PICTURE)[len(every_family(PICTURE)) :]
    assert [kind_of(type(made)) for made in of_network] == ["amplify", "dropout"]
    assert families_of(residual, PICTURE, "cuda") == every_family(PICTURE)
    assert (methods_of(plain), methods_of(residual)) == (METHODS, (*METHODS, IBD_PSC))


@pytest.fixture
def few_decisions(monkeypatch):
    monkeypatch.setattr(benchmark, "_decisions", lambda _scale: ())


@pytest.mark.usefixtures("few_decisions")
def test_each_family_is_a_row_with_its_own_number_of_copies(monkeypatch, capsys):
    found = run_benchmark(
        ("small_cnn",), repeats=1, scale=0.01, families=True, progress=ignore_progress
    )
    (result,) = found.networks
    names = [made.name for made in every_family((1, 28, 28))]
    assert list(result.family_ratios()) == names
    assert {kind_of(type(made)) for made in every_family((1, 28, 28))} == (
        set(perturbation_kinds())
        - {"amplify", "columns", "custom", "dropout", "edge-flip", "token-drop"}
    )
    assert min(result.family_ratios().values()) > 0
    assert list(result.method_ratios()) == ["STRIP", "SCALE-UP", "TeCo"]
    assert min(result.method_ratios().values()) > 0
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *_, **__: found)
    code, out, _ = run(monkeypatch, capsys, "bench", "--families")
    assert code == 0
    assert all(f"  {name} / bare " in out for name in names)
    assert "  STRIP: ours / published loop " in out


@pytest.mark.usefixtures("few_decisions")
def test_families_are_timed_on_the_device_of_the_benchmark(monkeypatch):
    """`cpu:0` is the processor under another name."""
    asked, ours = [], benchmark.contenders.ours

    def recorded(network, draws, *, device, perturbation):
        asked.append((device, perturbation))
        return ours(network, draws, device="cpu", perturbation=perturbation)

    few = (Scale(3, 5), Gaussian(0.1))
    monkeypatch.setattr(benchmark.contenders, "ours", recorded)
    bare = benchmark.Side(name="bare 2", contender=np.sum, images=np.zeros((2, 1, 28, 28)))
    monkeypatch.setattr(benchmark, "_contenders", lambda *_: iter((bare,)))
    monkeypatch.setattr(benchmark, "families_of", lambda *_: few)
    monkeypatch.setattr(benchmark, "methods_of", lambda _: ())
    options = {"repeats": 1, "scale": 0.01, "families": True, "progress": ignore_progress}
    for device in ("cpu", "cpu:0"):
        asked.clear()
        run_benchmark(("small_cnn",), device=device, **options)
        assert asked == [(device, made) for made in few]


def test_a_family_is_compared_with_the_bare_forward_beside_it():
    """A machine that becomes slower during the round of all families slows both sides."""
    rates = (
        Rate(contender="bare 25", per_second=(100.0, 100.0, 100.0), peak_bytes=None),
        Rate(
            contender="under scale-3",
            per_second=(45.0, 18.0, 9.5),
            peak_bytes=None,
            bare_beside=(50.0, 20.0, 10.0),
        ),
    )
    found = NetworkResult(network="small_cnn", flops=1.0, rates=rates, sgemm=(1.0,) * 3)
    assert found.family_ratios() == {"scale-3": pytest.approx(0.9)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("few_decisions")
def test_each_family_is_timed_on_a_card():
    found = run_benchmark(
        ("small_cnn",),
        repeats=1,
        scale=0.3,
        device="cuda",
        families=True,
        progress=ignore_progress,
    )
    ratios = found.networks[0].family_ratios()
    assert list(ratios) == [made.name for made in every_family((1, 28, 28))]
    assert min(ratios.values()) > 0


def test_bad_arguments(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "bench", "--network", "transformer")
    assert code == 2
    assert err.startswith("error: expected networks out of small_cnn")
    with pytest.raises(ValueError, match="at least 1 repeat"):
        run_benchmark(("small_cnn",), repeats=0)
