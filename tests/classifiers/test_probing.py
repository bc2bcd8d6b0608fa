"""Labels that depend on the batch: refused or classified one copy at a time; others unchanged."""

import random

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import wobbliness
from wobbliness.classifiers.probing import NotRepeatableError
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations import Dropout
from wobbliness.perturbations.noise.gaussian import NormalStream
from wobbliness.study.training.networks import build_network

SETTINGS = {"sigma": 0.3, "draws": 40}
ALONE = "one copy at a time: the answer to an image depends on the others of its block"


@pytest.fixture
def few(images):
    return images[:5]


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


class AlwaysDropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 30)

    def forward(self, batch):
        return nn.functional.dropout(self.linear(batch.flatten(1)), 0.2, training=True)


class EagerDropping(AlwaysDropping):
    def forward(self, batch):
        return super().forward(batch) if batch.sum() > -1e9 else batch


class ByBatch(nn.Module):
    """Batch normalisation that keeps no statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Flatten(),
            nn.Linear(144, 3),
        )

    def forward(self, batch):
        return self.layers(batch)


class EagerByBatch(ByBatch):
    def forward(self, batch):
        return super().forward(batch) if batch.sum() > -1e9 else batch


class Calls(nn.Module):
    """Counts its calls, and answers by the count."""

    def __init__(self):
        super().__init__()
        self.num_calls = 0

    def forward(self, batch):
        self.num_calls += 1
        return batch.flatten(1)[:, 20:24] + torch.tensor(
            [float(np.array(self.num_calls).item()), 0, 0, 0]
        )


def quantised():
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    return torch.ao.quantization.quantize_dynamic(layers.eval(), {nn.Linear})


def on_device(module):
    return AcceleratedClassifier(module, device=torch.device("cpu"))


def as_callable(module):
    def call(batch):
        with torch.no_grad():
            return module(torch.as_tensor(batch)).numpy()

    return call


RANDOM = {
    "compiled module": lambda: seeded(AlwaysDropping),
    "eager module": lambda: seeded(EagerDropping),
    "module on a device": lambda: on_device(seeded(AlwaysDropping)),
    "callable": lambda: as_callable(seeded(AlwaysDropping)),
    "count of calls": lambda: seeded(Calls),
    "callable with a count of calls": lambda: as_callable(seeded(Calls)),
    "position in a row of calls": lambda: as_callable(RunningMean()),
}


class RunningMean:
    """Takes off the mean of all that it has seen."""

    def __init__(self):
        self.mean = 0.0

    def __call__(self, batch):
        self.mean = 0.9 * self.mean + 0.1 * float(batch.mean())
        return batch.flatten(1)[:, 20:24] - torch.tensor([self.mean, 0, 0, 0])


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("draws", [1, 40])
@pytest.mark.filterwarnings("ignore")
def test_what_is_random_or_remembers_is_refused(name, draws, few):
    with pytest.raises(
        ValueError,
        match=r"^expected a classifier that gives the same answer to the same images, got ",
    ):
        wobbliness.measure(RANDOM[name](), few, 0.3, draws=draws)


class Turning(nn.Module):
    """Turns its scores by a number that it asks for, of which an export makes a constant."""

    def __init__(self, turn):
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 3)
        self.turn = turn

    def forward(self, batch):
        kept = torch.relu(batch + self.convolution(batch))
        return self.linear(kept.flatten(1)).roll(self.turn() % 3, 1)


def test_a_clock_that_an_export_freezes_is_found(few, monkeypatch):
    """The clock stands still but while the module is exported; the control's always does."""
    ticks, export = [0], torch.onnx.export

    def export_slowly(*arguments, **options):
        program = export(*arguments, **options)
        ticks[0] += 1
        return program

    monkeypatch.setattr(torch.onnx, "export", export_slowly)
    with pytest.raises(NotRepeatableError, match="^expected a classifier that gives the same"):
        wobbliness.measure(seeded(lambda: Turning(lambda: ticks[0])), few, **SETTINGS)
    assert ticks == [1]
    votes = wobbliness.measure(seeded(lambda: Turning(lambda: 1)), few, **SETTINGS)
    assert (votes.execution.backend, votes.execution.reason, ticks) == ("onnxruntime", None, [2])


@pytest.mark.parametrize("measured", [0.3, Dropout(0.2)], ids=["plain", "gates"])
def test_chance_that_an_export_freezes_is_found(few, measured):
    """Whatever the number that the export met: one in three is that of the scores before it."""
    chance = random.Random(0)
    for _ in range(6):
        module = seeded(lambda: Turning(lambda: chance.randrange(3)))
        with pytest.raises(ValueError, match="^expected a classifier that gives the same answer"):
            wobbliness.measure(module, few, measured, draws=4)


def test_decisions_guards_and_sweeps_are_probed_too(few, images):
    module = seeded(AlwaysDropping)
    for run in (
        lambda: wobbliness.decide(module, few, 0.3, 0.1),
        lambda: wobbliness.decide_as_measured(module, few, 0.3, 0.1),
        lambda: wobbliness.sweep(module, few, [0.1, 0.3]),
        lambda: wobbliness.SmoothnessGuard(module, sigmas=(0.1,), draws=20).fit(images),
    ):
        with pytest.raises(ValueError, match="gives the same answer to the same images"):
            run()


def normalised_by_the_block(batch):
    scaled = (batch - batch.mean()) / batch.std()
    return scaled.reshape(len(batch), -1)[:, 20:24]


def by_place(batch):
    return batch.reshape(len(batch), -1)[:, 20:24] + 0.1 * np.arange(len(batch))[
        :, None
    ] * np.array([1, 0, 0, 0])


IN_COMPANY = {
    "batch normalisation": lambda: seeded(ByBatch),
    "batch normalisation, eager": lambda: seeded(EagerByBatch),
    "batch normalisation on a device": lambda: on_device(seeded(ByBatch)),
    "dynamic quantisation": lambda: seeded(quantised),
    "callable": lambda: normalised_by_the_block,
    "place in the block": lambda: by_place,
}


def slow_counts(call, images, num_classes):
    """One noisy copy at a time."""
    counts = np.zeros((len(images), num_classes), np.int64)
    for row, (image, key) in enumerate(zip(images, wobbliness.image_keys(images), strict=True)):
        for noise in NormalStream(0, int(key), image.shape).take(SETTINGS["draws"]).copy():
            counts[
                row,
                np.asarray(call((image + np.float32(SETTINGS["sigma"]) * noise)[None]))[0].argmax(),
            ] += 1
    return counts


@pytest.mark.parametrize("name", IN_COMPANY)
@pytest.mark.filterwarnings("ignore")
def test_what_depends_on_its_company_is_classified_alone(name, few):
    classifier = IN_COMPANY[name]()
    votes = wobbliness.measure(classifier, few, **SETTINGS)
    assert (votes.execution.block_size, votes.execution.company) == (1, ALONE)
    if "device" not in name:  # there the noise is another one
        call = as_callable(classifier) if isinstance(classifier, nn.Module) else classifier
        assert np.array_equal(votes.counts, slow_counts(call, few, votes.counts.shape[1]))
    assert wobbliness.measure(classifier, few, block_size=7, **SETTINGS).execution.block_size == 1
    assert np.array_equal(
        wobbliness.measure(classifier, few[::-1].copy(), **SETTINGS).counts[::-1], votes.counts
    )


def onnx_by_batch(path, batch):
    """Takes off the mean of the block."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["centred"]),
        helper.make_node("Abs", ["centred"], ["far"]),
        helper.make_node("MatMul", ["far", "weights"], ["logits"]),
    ]
    weights = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "by_batch",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(np.array([0]), "axes"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def test_a_graph_that_depends_on_its_company_runs_alone_or_not_at_all(few, tmp_path):
    votes = wobbliness.measure(onnx_by_batch(tmp_path / "free.onnx", "B"), few, **SETTINGS)
    assert (votes.execution.block_size, votes.execution.company) == (1, ALONE)
    with pytest.raises(
        ValueError, match="does not depend on the others of its block, got .* it takes blocks of 8$"
    ):
        wobbliness.measure(onnx_by_batch(tmp_path / "fixed.onnx", 8), few, **SETTINGS)


class FixedBlock:
    """Takes blocks of one size alone, as an engine for an accelerator does."""

    def __init__(self, size, *, by_batch):
        self.size, self.by_batch = size, by_batch

    def __call__(self, batch):
        if len(batch) != self.size:
            raise KeyError(f"a block of {len(batch)}")
        return (
            normalised_by_the_block(batch)
            if self.by_batch
            else batch.reshape(len(batch), -1)[:, 20:24]
        )


def test_a_callable_of_one_block_size_is_probed_at_it(few):
    votes = wobbliness.measure(FixedBlock(20, by_batch=False), few, block_size=20, **SETTINGS)
    assert votes.execution.block_size == 20
    with pytest.raises(ValueError, match="it takes blocks of 20$"):
        wobbliness.measure(FixedBlock(20, by_batch=True), few, block_size=20, **SETTINGS)
    with pytest.raises(KeyError, match="a block of 40"):
        wobbliness.measure(FixedBlock(20, by_batch=False), few, **SETTINGS)


LEGITIMATE = {
    "small CNN": lambda: build_network("small_cnn", (1, 8, 8), 10, seed=0),
    "ResNet": lambda: build_network("resnet18_width16", (1, 8, 8), 10, seed=0),
    "bfloat16": lambda: build_network("small_cnn", (1, 8, 8), 10, seed=0).to(torch.bfloat16),
    "float16": lambda: build_network("small_cnn", (1, 8, 8), 10, seed=0).half(),
    "float64": lambda: build_network("small_cnn", (1, 8, 8), 10, seed=0).double(),
    "on a device": lambda: on_device(build_network("large_cnn", (1, 8, 8), 10, seed=0)),
    "in bfloat16 there": lambda: AcceleratedClassifier(
        build_network("small_cnn", (1, 8, 8), 10, seed=0), device=torch.device("cpu"), autocast=True
    ),
    "infinite scores": lambda: (
        lambda batch: np.stack(
            [np.full(len(batch), -np.inf), batch.reshape(len(batch), -1)[:, 20]], axis=1
        )
    ),
    "labels": lambda: lambda batch: batch.reshape(len(batch), -1)[:, 20] > 0.5,
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_function_of_the_image_is_left_alone(name, few):
    classifier = LEGITIMATE[name]()
    votes = wobbliness.measure(
        classifier, few, num_classes=None if name != "labels" else 2, **SETTINGS
    )
    assert votes.execution.company is None
    assert votes.execution.block_size > 1


def test_the_probe_asks_little(few):
    asked = []

    def count(batch):
        asked.append(len(batch))
        return batch.reshape(len(batch), -1)[:, :3]

    wobbliness.measure(count, few[:1], 0.0, draws=1)
    assert sum(asked) <= 7
    asked.clear()
    for answer in (count, lambda batch: count(batch).argmax(axis=1)):
        asked.clear()
        wobbliness.measure(
            answer, np.resize(few, (100, *few.shape[1:])), 0.1, draws=250, num_classes=3
        )
        assert sum(asked) - 25_000 <= 0.01 * 25_000


def linear_labels(rows):
    weights = np.random.default_rng(1).normal(size=(64, 5))
    return ((rows - 0.3) @ weights).argmax(axis=1)


def quarter_of_the_last(rows):
    return 0.75 * rows + 0.25 * np.roll(rows, 1, axis=0)


BY_THE_BLOCK = {
    "less the mean": lambda rows: rows - rows.mean(axis=0) if len(rows) > 1 else rows,
    "from least to largest": lambda rows: (rows - rows.min()) / (rows.max() - rows.min()),
    "by the largest": lambda rows: rows / np.abs(rows).max(),
    "standardised": lambda rows: (rows - rows.mean()) / rows.std(),
    "mixed with the last": quarter_of_the_last,
    "in larger blocks alone": lambda rows: rows - rows.mean(axis=0) if len(rows) > 8 else rows,
}


def labels_of(arrange):
    return lambda batch: linear_labels(arrange(np.asarray(batch).reshape(len(batch), -1)))


@pytest.mark.parametrize("draws", [10, 150])
@pytest.mark.parametrize("name", BY_THE_BLOCK)
def test_labels_that_depend_on_their_company_are_classified_alone(name, draws, few):
    classifier = labels_of(BY_THE_BLOCK[name])
    settings = {"draws": draws, "num_classes": 5}
    votes = wobbliness.measure(classifier, few, 0.3, **settings)
    assert votes.execution.company == ALONE
    assert np.array_equal(
        votes.counts, wobbliness.measure(classifier, few, 0.3, block_size=1, **settings).counts
    )
    assert (
        wobbliness.measure(labels_of(lambda rows: rows), few, 0.3, **settings).execution.company
        is None
    ), "control"


def test_classifiers_that_refuse_unusual_images_are_probed_with_others(few):
    def call(batch):
        if np.asarray(batch).reshape(len(batch), -1).mean(axis=1).max() > 0.39:
            raise LookupError
        return labels_of(lambda rows: rows)(batch)

    dark = few * np.float32(0.5)
    votes = wobbliness.measure(call, dark, 0.1, draws=20, num_classes=5)
    assert np.array_equal(votes.counts.sum(axis=1), [20] * len(few))
    assert (votes.execution.block_size, votes.execution.company) == (20, None)


@pytest.mark.parametrize("block_size", [2, 7, None])
def test_labels_are_probed_in_blocks_that_a_measurement_may_have(block_size, few):
    sizes = []

    def call(batch):
        sizes.append(len(batch))
        return labels_of(lambda rows: rows)(batch)

    votes = wobbliness.measure(call, few, 0.3, draws=40, num_classes=5, block_size=block_size)
    assert votes.execution.company is None
    assert max(sizes) <= (block_size or 40)


def otherwise_in_large_blocks(size):
    """Turns its scores round in blocks above a size."""

    def call(batch):
        scores = np.asarray(batch).reshape(len(batch), -1)[:, 20:24]
        return scores if len(batch) <= size else -scores

    return call


class OtherwiseInLargeBlocks(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, batch):
        scores = batch.flatten(1)[:, 20:24]
        return scores if len(batch) <= self.size else -scores


LARGE_BLOCKS = {
    "scores": otherwise_in_large_blocks,
    "labels": lambda size: lambda batch: otherwise_in_large_blocks(size)(batch).argmax(axis=1),
    "module": OtherwiseInLargeBlocks,
}


@pytest.mark.parametrize("name", LARGE_BLOCKS)
@pytest.mark.parametrize(("size", "draws"), [(8, 40), (129, 150)])
@pytest.mark.filterwarnings("ignore")
def test_blocks_larger_than_those_of_the_probe_are_watched(name, size, draws, few):
    right, seen = (
        wobbliness.measure(LARGE_BLOCKS[name](10**6), few, 0.3, draws=draws, num_classes=4),
        [],
    )
    assert right.execution.company is None, "control"
    for workers in (1, 2):
        votes = wobbliness.measure(
            LARGE_BLOCKS[name](size),
            few,
            0.3,
            draws=draws,
            num_classes=4,
            workers=workers,
            progress=lambda *done: seen.append(done),
        )
        assert np.array_equal(votes.counts, right.counts)
        assert (votes.execution.block_size, votes.execution.company) == (1, ALONE)
        assert seen[-1] == (len(few), len(few))


def test_large_blocks_are_watched_on_a_device_and_in_decisions(few):
    right = wobbliness.measure(on_device(OtherwiseInLargeBlocks(10**6)), few, 0.3, draws=60)
    votes = wobbliness.measure(on_device(OtherwiseInLargeBlocks(8)), few, 0.3, draws=60)
    assert np.array_equal(votes.counts, right.counts)
    assert (votes.execution.company, right.execution.company) == (ALONE, None)
    for classifier in (
        otherwise_in_large_blocks,
        lambda size: on_device(OtherwiseInLargeBlocks(size)),
    ):
        free, held = (
            wobbliness.decide_as_measured(classifier(size), few, 0.3, 0.3, max_draws=40)
            for size in (10**6, 8)
        )
        assert np.array_equal(held.counts, free.counts)
        assert (held.execution.company, free.execution.company) == (ALONE, None)
