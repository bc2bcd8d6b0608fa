"""Torch modules compiled or eager, with the reason, and the same promises on each path."""

import numpy as np
import onnx
import pytest
import torch
from scipy import special, stats

import wobbliness
from wobbliness.classifiers.compile import export as compiled
from wobbliness.classifiers.compile.graph import OnnxGraph, over_blocks
from wobbliness.classifiers.execution import MAX_BLOCK, MIN_BLOCK, Execution, default_block_size
from wobbliness.runtime.process_state import quiet_thread
from wobbliness.runtime.threads import default_workers, for_each, num_cores
from wobbliness.study.training.networks import build_network


class HalfSpaceModule(torch.nn.Module):
    """Logits (0, w . x - b)."""

    def __init__(self, half_space):
        super().__init__()
        self.register_buffer("normal", torch.tensor(half_space.normal, dtype=torch.float32))
        self.offset = float(half_space.offset)

    def forward(self, images):
        margin = images.flatten(1) @ self.normal - self.offset
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class Undecided(HalfSpaceModule):
    """Looks at its values to choose a branch, which no exporter can follow."""

    def forward(self, images):
        return super().forward(images) if images.sum() > -1e9 else images.flatten(1)[:, :2]


class Disguised(HalfSpaceModule):
    """Answers an exporter differently."""

    def forward(self, images):
        scores = super().forward(images)
        return scores + 1 if torch.compiler.is_exporting() else scores


def onnx_file(module, folder):
    path = folder / "half_space.onnx"
    with quiet_thread(*compiled.EXPORTERS):
        batch = torch.export.Dim("batch")
        example = torch.rand(2, 1, 8, 8)
        torch.onnx.export(
            module, (example,), str(path), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    return path


@pytest.fixture(params=["compiled", "eager", "untraceable", "float64", "ONNX file", "callable"])
def path(request, half_space, tmp_path):
    """A half-space by each of the ways to run it, and the backend that must do it."""
    module = HalfSpaceModule(half_space).eval()
    return {
        "compiled": lambda: (module, "onnxruntime"),
        "eager": lambda: (wobbliness.open_classifier(module, compiled=False), "torch"),
        "untraceable": lambda: (Undecided(half_space), "torch"),
        "float64": lambda: (torch.nn.Sequential(torch.nn.Flatten(), linear(half_space)), "torch"),
        "ONNX file": lambda: (
            wobbliness.open_classifier(onnx_file(module, tmp_path)),
            "onnxruntime",
        ),
        "callable": lambda: (half_space, "callable"),
    }[request.param]()


@pytest.mark.parametrize("num_images", [5, 8, 19])
def test_loop_over_blocks_gives_the_scores_of_the_plain_graph(num_images, tmp_path):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0).eval()
    images = np.random.default_rng(0).uniform(size=(num_images, 1, 8, 8)).astype(np.float32)
    plain = OnnxGraph(onnx_file(network, tmp_path))
    looped = compiled.compile_module(network, images).graph
    np.testing.assert_array_equal(looped.run(images, 8), plain.run(images, 8))


def test_loop_over_blocks_refuses_names_it_uses_itself(tmp_path):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0).eval()
    model = onnx.load(onnx_file(network, tmp_path))
    model.graph.input[0].name = "blocks"
    with pytest.raises(ValueError, match="other names"):
        over_blocks(model)


def linear(half_space):
    layer = torch.nn.Linear(64, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(64), torch.tensor(half_space.normal)]))
        layer.bias.copy_(torch.tensor([0.0, -half_space.offset]))
    return layer


@pytest.mark.parametrize("sigma", [pytest.param(0.05, marks=pytest.mark.scale), 0.3])
def test_closed_form_on_every_path(path, half_space, sigma):
    classifier, backend = path
    images = np.random.default_rng(1).uniform(size=(200, 1, 8, 8)).astype(np.float32)
    votes = wobbliness.measure(classifier, images, sigma, num_classes=2)
    p = half_space.probability(images, sigma)
    exact = special.entr(np.stack([p, 1 - p])).sum(axis=0)
    assert (np.abs(votes.wobbliness - exact) <= 5 * votes.standard_error).all()
    p = half_space.probability(images, 2 * sigma)
    wrong = special.entr(np.stack([p, 1 - p])).sum(axis=0)
    assert (np.abs(votes.wobbliness - wrong) > 5 * votes.standard_error).any(), "control"
    assert votes.execution.backend == backend


def test_invariances_on_every_path(path, images):
    classifier, _ = path
    reference = wobbliness.measure(classifier, images, 0.3, draws=100, num_classes=2)
    backwards = wobbliness.measure(
        classifier, images[::-1].copy(), 0.3, draws=100, num_classes=2, workers=1
    )
    some = wobbliness.measure(classifier, images[5:8], 0.3, draws=100, num_classes=2)
    sweep = wobbliness.sweep(classifier, images, [0.1, 0.3, 0.5], draws=100, num_classes=2)
    assert np.array_equal(backwards.counts[::-1], reference.counts)
    assert np.array_equal(some.counts, reference.counts[5:8])
    assert np.array_equal(sweep[0.3].counts, reference.counts)
    for block_size in (1, 7, 1000):
        other = wobbliness.measure(
            classifier, images, 0.3, draws=100, num_classes=2, block_size=block_size
        )
        assert np.abs(other.counts - reference.counts).sum() / 2 <= 1
        assert other.execution.block_size == block_size


def test_paths_agree_with_each_other(half_space, images):
    module = HalfSpaceModule(half_space)
    fast = wobbliness.measure(module, images, 0.3)
    slow = wobbliness.measure(wobbliness.open_classifier(module, compiled=False), images, 0.3)
    assert np.abs(fast.counts - slow.counts).sum() / 2 <= 1


@pytest.mark.parametrize(
    "architecture",
    ["small_cnn", pytest.param("large_cnn", marks=pytest.mark.scale), "resnet18_width16"],
)
def test_compiled_networks_name_what_eager_ones_do(digits, architecture):
    network = build_network(architecture, (1, 8, 8), 10, seed=0)
    images, sigma = digits.test.images[:20], 3.0 if architecture.startswith("resnet") else 0.3
    fast = wobbliness.measure(network, images, sigma)
    slow = wobbliness.measure(wobbliness.open_classifier(network, compiled=False), images, sigma)
    assert fast.execution.backend == "onnxruntime"
    assert fast.execution.reason is None
    assert (slow.execution.backend, slow.execution.reason) == ("torch", "eager as asked")
    assert np.abs(fast.counts - slow.counts).sum() / 2 <= 2
    assert fast.wobbliness.std() > 0, "control: there is something to agree on"


def test_the_reason_for_eager_is_told(half_space, images):
    votes = wobbliness.measure(Undecided(half_space), images, 0.1, draws=20)
    assert votes.execution.reason.startswith("no ONNX export: GuardOnDataDependentSymNode")
    votes = wobbliness.measure(Disguised(half_space), images, 0.1, draws=20)
    assert votes.execution.backend == "torch"
    assert votes.execution.reason.startswith("scores of the graph differ by ")
    votes = wobbliness.measure(HalfSpaceModule(half_space).double(), images, 0.1, draws=20)
    assert votes.execution.reason == "its parameters are torch.float64, not torch.float32"


def test_a_wrong_graph_is_not_used(half_space, images, monkeypatch):
    """Control of the check: a graph of other weights is found out."""
    module, other = HalfSpaceModule(half_space), HalfSpaceModule(half_space)
    other.offset += 0.01
    wrong = compiled.compile_module(other.eval(), images)
    replaced = "wobbliness.classifiers.torch_module.compile_module"
    monkeypatch.setattr(replaced, lambda *_, **__: wrong)
    votes = wobbliness.measure(module, images, 0.1, draws=20)
    assert votes.execution.backend == "torch"
    assert "more than" in votes.execution.reason


def test_new_weights_are_compiled_anew(half_space, images):
    module = HalfSpaceModule(half_space)
    before = wobbliness.measure(module, images, 0.3, draws=50)
    module.normal.neg_()
    after = wobbliness.measure(module, images, 0.3, draws=50)
    eager = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=False), images, 0.3, draws=50
    )
    assert after.execution.backend == "onnxruntime"
    assert np.abs(after.counts - eager.counts).sum() <= 2
    assert not np.array_equal(after.counts, before.counts)


def test_no_hook_is_left(images):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    wobbliness.measure(network, images[:2], 0.1, draws=5)
    assert not any(part._forward_hooks for part in network.modules())


def test_votes_tell_how_they_were_made(half_space, images):
    module = HalfSpaceModule(half_space)
    one = wobbliness.measure(module, images, 0.3, draws=100)
    assert one.execution == Execution(
        backend="onnxruntime", values_per_image=one.execution.values_per_image, block_size=100
    )
    two = wobbliness.measure(module, images, 0.3, draws=100, first_draw=100)
    assert (one + two).execution == one.execution
    eager = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=False), images, 0.3, draws=100, first_draw=200
    )
    assert (one + two + eager).execution is None
    assert len((one + two + eager).executions) == 2


@pytest.mark.parametrize("values", [10, 10_000, 43_264, 10**7])
@pytest.mark.parametrize("draws", [1, 10, 97, 250, 1000])
def test_the_block_rule(values, draws):
    size = default_block_size(draws, values)
    assert 1 <= size <= min(draws, MAX_BLOCK)
    if values == 10**7:
        assert size <= MIN_BLOCK
    if draws == 250:
        assert draws % size == 0


def test_a_share_of_the_cores_is_respected(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert (num_cores(), default_workers()) == (1, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "not a number")
    assert num_cores() >= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_each_item_is_done_once_and_errors_arrive(workers):
    done, steps = [], []
    for_each(done.append, 200, workers=workers, advance=steps.append)
    assert sorted(done) == list(range(200))
    assert sum(steps) == 200

    def fail(item):
        if item == 7:
            raise KeyError(item)

    with pytest.raises(KeyError):
        for_each(fail, 10**6, workers=workers, advance=steps.append)


def test_noise_reaches_the_classifier_as_it_is_drawn(images):
    """End to end: a callable's input minus the image is Gaussian with the stated std."""
    seen = []

    def record(batch):
        seen.append(batch)
        return np.zeros(len(batch), np.int64)

    wobbliness.measure(record, images[:1], 0.25, draws=500, num_classes=2)
    # the first ones are a probe's
    noise = (np.concatenate(seen)[-500:].astype(np.float64) - images[:1]) / 0.25
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.001
