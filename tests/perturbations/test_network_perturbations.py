"""Amplify and Dropout: gates in the compiled graph against copies of the network and hooks."""

import functools
import itertools

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from residual_networks import (
    NUM_CLASSES,
    PICTURE,
    amplified,
    balanced,
    batch_norms,
    chain,
    linear_graph,
    linear_residual,
    residual_network,
)
from sklearn.linear_model import LogisticRegression
from torch import nn

import wobbliness
from wobbliness.classifiers import open_classifier
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations import Amplify, BoxNoise, Dropout, Gaussian
from wobbliness.perturbations.base import Scratch, Stream, image_keys
from wobbliness.sampling import readouts
from wobbliness.sampling.gating import GatedImages
from wobbliness.sampling.matching import matched
from wobbliness.study.training.networks import BasicBlock

measure = functools.partial(wobbliness.measure, progress=lambda *_: None)
MEMBERS = Amplify(2, members=4, factor=3)


@pytest.fixture(scope="module")
def network():
    return residual_network()


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).random((40, *PICTURE), dtype=np.float32)


def gates(perturbation, num_gates, draws, *, key=5, seed=0):
    out = np.full((draws, num_gates), np.nan, np.float32)
    stream = Stream(seed, key, scratch=Scratch())
    perturbation.copies(stream, np.ones(num_gates, np.float32), draws, out)
    return out


def softmax(module, images):
    with torch.inference_mode():
        return module(torch.as_tensor(images)).softmax(dim=1).numpy()


def rows_of(images, num_gates):
    return GatedImages(images, num_gates)[:]


def scores_with_ones(module, nodes, images):
    """Scores of the plain graph, and of the one with gates of 1."""
    gated = open_classifier(module).gated(nodes, images)
    plain = open_classifier(module)
    with plain.session(images):
        expected = plain.answers(images, len(images))
    return expected, gated.classifier.answers(rows_of(images, gated.num_gates), len(images))


def test_amplify_writes_the_factor_at_one_layer_more_in_each_member():
    assert gates(Amplify(2, members=3, factor=2.5), 4, 3).tolist() == [
        [1, 1, 2.5, 2.5],
        [1, 2.5, 2.5, 2.5],
        [2.5, 2.5, 2.5, 2.5],
    ]


def test_dropout_keeps_the_mean_and_drops_its_rate():
    drawn = gates(Dropout(0.3), 1000, 200)
    kept = drawn.max()
    assert set(np.unique(drawn)) == {0, kept}
    assert kept == pytest.approx(1 / 0.7, rel=1e-4)
    # z = 5
    error = 5 * np.sqrt(0.3 * 0.7 / drawn.size)
    assert abs((drawn == 0).mean() - 0.3) < error
    assert abs(drawn.mean() - 1) < error * kept
    # neither values of one draw nor draws of one value go together
    assert len({row.tobytes() for row in drawn}) == 200
    assert np.abs(np.corrcoef(drawn[:, :20].T) - np.eye(20)).max() < 6 / np.sqrt(200)


def test_the_ends_of_the_rate():
    assert (gates(Dropout(0), 33, 7) == 1).all()
    assert (gates(Dropout(1), 33, 7) == 0).all()
    assert (gates(Dropout(2**-16), 2**16, 8) == 0).sum() < 40  # eight are expected


@pytest.mark.parametrize("nodes", [MEMBERS.nodes, Dropout(0.5).nodes], ids=["norms", "sums"])
def test_gates_of_1_change_labels_nowhere_and_scores_by_rounding(network, pictures, nodes):
    """The runtime adds the shortcut within a convolution, unless a gate lies between them."""
    expected, found = scores_with_ones(network, nodes, pictures)
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * np.finfo(np.float32).eps * 4)


def test_gates_of_1_change_no_bit_without_residual_sums(pictures):
    expected, found = scores_with_ones(chain(), Amplify(1, members=2).nodes, pictures)
    assert np.array_equal(found, expected)


def test_factor_1_and_rate_0_are_the_network_itself(network, pictures):
    plain = measure(network, pictures, 0.0, 5, keep_clean=True)
    for same in (Amplify(2, factor=1), Dropout(0)):
        votes = measure(network, pictures, same, 5, keep_clean=True)
        assert np.array_equal(votes.counts, plain.counts)
        assert np.array_equal(votes.clean_label, plain.clean_label)
    for other in (MEMBERS, Dropout(0.3)):
        votes = measure(network, pictures, other, 5, keep_clean=True)
        assert not np.array_equal(votes.counts, plain.counts)
        assert np.array_equal(votes.clean_label, plain.clean_label), "gates of 1"


def test_amplified_networks_are_deep_copies_with_other_numbers(network, pictures):
    """IBD-PSC as published, one copy of the network a member."""
    votes = measure(network, pictures, MEMBERS, scores="logits", keep_clean=True)
    clean = softmax(network, pictures)
    label = clean.argmax(axis=1)
    members = [softmax(amplified(network, 2 + j, 3), pictures) for j in range(4)]
    retained = np.mean([each[np.arange(40), label] for each in members], axis=0)
    np.testing.assert_allclose(readouts.retained_confidence(votes), retained, atol=1e-6)
    counts = sum(np.eye(NUM_CLASSES, dtype=int)[each.argmax(axis=1)] for each in members)
    assert np.array_equal(votes.counts, counts)
    assert len({each.tobytes() for each in counts}) > 4, "the members disagree about some"
    # control: one layer less
    fewer = measure(network, pictures, Amplify(1, members=4, factor=3), scores="logits")
    assert np.abs(readouts.retained_confidence(fewer) - retained).max() > 0.01


class Described(nn.Module):
    """Gives its scores under a name, and is in training mode when it is handed over."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return {"logits": self.network(images), "sums": images.sum(dim=(1, 2, 3))}


def test_layers_that_no_convolution_takes_up(pictures):
    """At the input, between linear layers, and behind both: three places, in their order."""
    layers = (
        *(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(144, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, NUM_CLASSES)),
    )
    network = balanced(nn.Sequential(*layers), seed=3)
    members = [softmax(amplified(network, 1 + j, 3), pictures) for j in range(3)]
    votes = measure(
        Described(network).train(), pictures, Amplify(1, members=3, factor=3), scores="logits"
    )
    np.testing.assert_allclose(votes.scores.probabilities, sum(members), atol=1e-5)
    distances = [np.abs(a - b).max() for a, b in itertools.pairwise(members)]
    assert min(distances) > 0.01, "each layer matters"


def masked(network, masks):
    """A copy of the network whose sums are multiplied by a mask each, by hooks."""
    made = amplified(network, 0, 1)
    blocks = [part for part in made if isinstance(part, BasicBlock)]
    for block, mask in zip(blocks, masks, strict=True):
        # The sum is not a module of its own: the last step of each branch is multiplied.
        for branch in (block.body, block.shortcut):
            branch.register_forward_hook(lambda _, __, given, mask=mask: given * mask)
    return made


def test_dropout_is_that_of_hooks_with_the_same_masks(network, pictures):
    """PSBD as published: p_y less the mean of p_y over passes with dropout."""
    dropout, shapes = Dropout(0.4), [(4, 8, 8), (8, 4, 4)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    votes = measure(network, pictures, dropout, 3, scores="logits")
    clean = softmax(network, pictures)
    retained, counts = [], np.zeros((40, NUM_CLASSES), int)
    for row, key in enumerate(image_keys(pictures)):
        drawn = gates(dropout, sum(sizes), 3, key=int(key))
        parts = np.split(drawn, [sizes[0]], axis=1)
        masks = [torch.tensor(p).reshape(3, *s) for p, s in zip(parts, shapes, strict=True)]
        passes = softmax(masked(network, masks), np.repeat(pictures[row : row + 1], 3, axis=0))
        retained.append(passes[:, clean[row].argmax()].mean())
        np.add.at(counts[row], passes.argmax(axis=1), 1)
    drop = readouts.clean_confidence(votes) - readouts.retained_confidence(votes)
    np.testing.assert_allclose(drop, clean.max(axis=1) - retained, atol=1e-6)
    assert np.array_equal(votes.counts, counts)
    assert np.abs(drop).max() > 0.05
    other = measure(network, pictures, dropout, 3, seed=1, scores="logits")
    assert np.abs(other.scores.probabilities - votes.scores.probabilities).max() > 0.05


@pytest.fixture
def linear(tmp_path):
    """Scores (x + x A) B of four features and two classes."""
    rng = np.random.default_rng(35)
    first, last = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 4), (4, 2)))
    return linear_residual(tmp_path / "linear.onnx", first, last), first, last


def test_dropout_on_a_linear_residual_network_in_closed_form(linear):
    """All 16 masks with their probabilities give those of the classes, and the mean scores."""
    path, first, last = linear
    rows = np.random.default_rng(3).random((6, 4), dtype=np.float32)
    rate, draws = 0.3, 20_000
    votes = measure(path, rows, Dropout(rate), draws)
    masks = np.array(list(itertools.product((0, 1), repeat=4)))
    chances = np.prod(np.where(masks, 1 - rate, rate), axis=1)
    scores = (rows + rows @ first)[:, None] * masks / (1 - rate) @ last
    np.testing.assert_allclose(chances @ scores, (rows + rows @ first) @ last, rtol=1e-4)
    # The first class wins the tie of the mask without any value.
    second = (scores[..., 1] > scores[..., 0]) @ chances
    error = 5 * np.sqrt(0.25 / draws)  # z = 5, with room for the rounded rate
    np.testing.assert_allclose(votes.probabilities[:, 1], second, rtol=0, atol=error)
    assert second.min() < 0.3
    assert second.max() > 0.7


SCALES = {"features": {}, "doubles": {"kind": TensorProto.DOUBLE}, "blocks of 4": {"batch": 4}}


@pytest.mark.parametrize("case", [*SCALES, "opset 9"])
def test_files_of_any_type_block_and_age(tmp_path, case):
    rng = np.random.default_rng(2)
    options = {"opset": 9} if case == "opset 9" else SCALES[case]
    dtype = np.float64 if case == "doubles" else np.float32
    matrices = [rng.normal(size=shape).astype(dtype) for shape in ((4, 4), (4, 3))]
    path = linear_residual(tmp_path / "linear.onnx", *matrices, **options)
    rows = rng.random((9, 4), dtype=np.float32)
    plain, gated = open_classifier(path), open_classifier(path).gated(Dropout(0.5).nodes, rows)
    assert gated.num_gates == 4
    answers = gated.classifier.answers(rows_of(rows, 4), 4)
    assert np.array_equal(answers, plain.answers(rows, 4))
    assert answers.dtype == dtype
    # A gate of 2 doubles the scores, and one of 0 leaves none, exactly.
    doubled = rows_of(rows, 4) * np.array([1] * 4 + [2] * 4, np.float32)
    assert np.array_equal(gated.classifier.answers(doubled, 4), 2 * answers)
    assert (gated.classifier.answers(doubled * (np.arange(8) < 4), 4) == 0).all()


def pictures_file(path):
    """Channels last, 8 bits: a normalisation, and a mean of each channel."""
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("BatchNormalization", ["first", "s", "b", "m", "v"], ["normal"]),
        helper.make_node("GlobalAveragePool", ["normal"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    numbers = {"s": [1, 2, 3], "b": [-1, 0.5, 0], "m": [100, 120, 130], "v": [90, 80, 70]}
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 8, 8, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_files_of_8_bits_with_channels_last(tmp_path, pictures):
    path = pictures_file(tmp_path / "pictures.onnx")
    gated = open_classifier(path).gated(Amplify(1, members=1).nodes, pictures)
    plain = open_classifier(path).answers(pictures, 40)
    rows = rows_of(pictures, 1)
    assert np.array_equal(gated.classifier.answers(rows, 40), plain)
    rows[:, -1] = 3
    np.testing.assert_allclose(gated.classifier.answers(rows, 40), 3 * plain, rtol=1e-5)
    assert gated.classifier.preprocessing() == open_classifier(path).preprocessing()
    votes = measure(path, pictures, Amplify(1, members=1, factor=0), keep_clean=True)
    assert votes.counts[:, 0].tolist() == [1] * 40, "all scores are 0, and the first class wins"
    assert set(votes.clean_label) != {0}


def test_only_sums_of_two_values_of_the_image_get_gates(tmp_path):
    """No bias, no sum with a shape, none of another shape, and none of whole numbers."""
    nodes = [
        ("Add", ["x", "bias"], ["biased"]),
        ("Shape", ["x"], ["shape"]),
        ("Expand", ["bias", "shape"], ["expanded"]),
        ("Add", ["biased", "expanded"], ["placed"]),
        ("MatMul", ["placed", "column"], ["one"]),
        ("Add", ["placed", "one"], ["wide"]),
        ("ArgMax", ["wide"], ["places"]),
        ("Add", ["places", "places"], ["twice"]),
        ("Add", ["wide", "placed"], ["y"]),
    ]
    tensors = {
        "bias": np.arange(4, dtype=np.float32),
        "column": np.ones((4, 1), np.float32),
    }
    path = linear_graph(tmp_path / "sums.onnx", nodes, tensors, width=4)
    rows = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    gated = open_classifier(path).gated(Dropout(0.5).nodes, rows)
    assert gated.num_gates == 4
    without = rows_of(rows, 4)
    without[:, 4:] = 0
    assert (gated.classifier.answers(without, 5) == 0).all(), "the gate is at the last sum"


def test_the_graph_follows_the_numbers_of_the_module(pictures):
    network = chain(1)
    before = measure(network, pictures, Amplify(1, members=2, factor=4))
    with torch.no_grad():
        batch_norms(network)[-1].bias.neg_()
    after = measure(network, pictures, Amplify(1, members=2, factor=4))
    assert not np.array_equal(after.counts, before.counts)
    members = [amplified(network, 1 + j, 4) for j in range(2)]
    labels = [softmax(member, pictures).argmax(axis=1) for member in members]
    assert np.array_equal(after.counts, sum(np.eye(NUM_CLASSES, dtype=int)[y] for y in labels))


def test_a_sweep_gives_what_each_gives_alone_in_the_order_asked(network, pictures):
    made = [Dropout(0.3), Gaussian(0.1), MEMBERS, BoxNoise(0.2)]
    settings = {"scores": "logits", "check_repeatable": True}
    steps = []
    sweep = wobbliness.sweep(
        network, pictures, made, 30, **settings, progress=lambda *step: steps.append(step)
    )
    assert [votes.perturbation for votes in sweep.votes] == [each.name for each in made]
    assert [votes.draws for votes in sweep.votes] == [30, 30, 4, 30]
    for each, votes in zip(made, sweep.votes, strict=True):
        alone = measure(network, pictures, each, 30, scores="logits")
        assert np.array_equal(votes.counts, alone.counts)
        assert np.array_equal(votes.keys, image_keys(pictures))
        assert np.array_equal(votes.scores.probabilities, alone.scores.probabilities)
        assert votes.spans == alone.spans
    assert steps[-1] == (240, 240), "three plans, twice each"


def test_rows_are_made_when_they_are_asked_for(pictures):
    rows = GatedImages(pictures, 5)
    assert len(rows) == 40
    assert rows[3].shape == (197,)
    assert np.array_equal(rows[3], [*pictures[3].ravel(), 1, 1, 1, 1, 1])
    assert np.array_equal(rows[2:5][1], rows[3])
    assert np.array_equal(rows[-1], rows[39])
    chosen = rows[np.array([7, 3])]
    assert len(chosen) == 2
    assert np.array_equal(chosen[1], rows[3])


def test_the_votes_of_decisions_are_those_of_measure(network, pictures):
    votes = measure(network, pictures, Dropout(0.3), 100)
    threshold = float(np.median(votes.wobbliness))
    settings = {"max_draws": 100, "error_rate": 1e-6, "progress": lambda *_: None}
    decided = wobbliness.decide_as_measured(network, pictures, Dropout(0.3), threshold, **settings)
    assert np.array_equal(decided.is_below, votes.wobbliness < threshold)
    with pytest.raises(ValueError, match="any number of draws, got amplify-2-4-3 with 4"):
        wobbliness.decide(network, pictures, MEMBERS, 0.3)


def test_rates_are_matched_like_any_level(network, pictures):
    made = matched(Dropout, network, pictures, shift=0.2)
    settings = {"draws": 50, "keep_clean": True}
    changed = 1 - readouts.agreement(measure(network, pictures, made, **settings)).mean()
    assert changed == pytest.approx(0.2, abs=0.01)


class Undecided(nn.Module):
    """Looks at its values to choose a branch, which no exporter can follow."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images) if images.sum() > -1e9 else images.flatten(1)[:, :4]


def estimator(pictures):
    return LogisticRegression().fit(pictures.reshape(40, -1), np.arange(40) % 4)


REFUSED = {
    "a callable": (
        lambda *_: lambda images: images.mean(axis=(1, 2, 3)) > 0.5,
        Dropout(0.1),
        "a torch module on the CPU or an ONNX file for dropout-0.1, .* got FunctionClassifier",
    ),
    "scikit-learn": (
        lambda _, pictures: estimator(pictures),
        Amplify(1),
        "a torch module on the CPU or an ONNX file for amplify-1-5-1.5, .* got EstimatorClassifier",
    ),
    "a device": (
        lambda network, _: AcceleratedClassifier(network, device=torch.device("cpu")),
        Dropout(0.1),
        "a torch module on the CPU or .* for dropout-0.1, .* got AcceleratedClassifier",
    ),
    "too few layers": (
        lambda network, _: network,
        Amplify(3),
        "at least 7 batch normalisations in its graph, got 6, for amplify-3-5-1.5",
    ),
    "no sums": (
        lambda *_: chain(),
        Dropout(0.1),
        "at least 1 residual sum in its graph, got 0, for dropout-0.1",
    ),
    "no export": (
        lambda network, _: Undecided(network),
        Dropout(0.1),
        "a module that can be exported, got no ONNX export: .*, for dropout-0.1",
    ),
    "eager": (
        lambda network, _: open_classifier(network, compiled=False),
        Dropout(0.1),
        "a module that can be compiled, got one that is not: eager as asked, for dropout-0.1",
    ),
    "doubles": (
        lambda network, _: amplified(network, 0, 1).double(),
        Dropout(0.1),
        "got one that is not: its parameters are torch.float64, not torch.float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_networks_without_the_nodes_get_one_line(network, pictures, case):
    make, perturbation, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"^expected .*{message}") as raised:
        measure(make(network, pictures), pictures, perturbation)
    assert "\n" not in str(raised.value)


def test_files_without_the_nodes_get_one_line(linear):
    rows = np.random.default_rng(3).random((6, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="at least 5 batch normalisations in its graph, got 0"):
        measure(linear[0], rows, Amplify(1))
    with pytest.raises(ValueError, match="expected images of shape"):
        measure(linear[0], rows[:, :3], Dropout(0.1))
