"""Quantised twins of graphs: close to the original, made of 8-bit integers, refused where not."""

import numpy as np
import onnx
import pytest
import torch
from model_files import save_onnx
from onnx import TensorProto, helper, numpy_helper
from residual_networks import PICTURE, residual_network

import wobbliness
from wobbliness.classifiers.base import QuantisableClassifier
from wobbliness.classifiers.compile import graph, processor
from wobbliness.classifiers.compile.quantised import (
    COST_OF_PRODUCTS,
    COST_OF_VALUES,
    quantise,
    relative_cost,
)
from wobbliness.classifiers.torch_module import TorchClassifier
from wobbliness.perturbations import Dropout

IMAGES = np.random.default_rng(0).random((40, *PICTURE), dtype=np.float32)


@pytest.fixture(scope="module")
def network():
    return residual_network()


@pytest.fixture
def path(network, tmp_path):
    return save_onnx(network, tmp_path / "network.onnx", torch.from_numpy(IMAGES[:2]))


def require_close(twin, classifier, images, block_size=8):
    scores, low = (each.answers(images, block_size) for each in (classifier, twin))
    assert scores.shape == low.shape
    assert 0.9 < np.corrcoef(scores.ravel(), low.ravel())[0, 1] < 1


def integers_of(content):
    model = onnx.load_model_from_string(content)
    return {tensor.name for tensor in model.graph.initializer if tensor.data_type in (2, 3)}


def test_the_twin_of_a_file_is_close_and_not_equal(path):
    classifier = wobbliness.open_classifier(path)
    assert isinstance(classifier, QuantisableClassifier)
    twin = classifier.twin(IMAGES)
    require_close(twin.classifier, classifier, IMAGES)
    assert twin.relative_cost > COST_OF_PRODUCTS


def test_the_twin_of_a_module_is_close_and_not_equal(network):
    classifier = TorchClassifier(network)
    classifier.keeps_network = True
    with classifier.session(IMAGES):
        twin = classifier.twin(IMAGES)
        require_close(twin.classifier, classifier, IMAGES)
        # whole blocks, and a shorter one
        np.testing.assert_array_equal(
            twin.classifier.answers(IMAGES, 7), twin.classifier.answers(IMAGES, 40)
        )


def test_ranges_of_other_images_spoil_the_twin(path):
    classifier = wobbliness.open_classifier(path)
    scores = classifier.answers(IMAGES, 8)
    errors = [
        np.abs(classifier.twin(factor * IMAGES).classifier.answers(IMAGES, 8) - scores).mean()
        for factor in (1, 0.05)
    ]
    assert errors[1] > 3 * errors[0]


def test_a_module_whose_graph_was_not_kept_has_no_twin():
    classifier = TorchClassifier(residual_network())
    with (
        classifier.session(IMAGES),
        pytest.raises(ValueError, match="expected a compiled graph of floats"),
    ):
        classifier.twin(IMAGES)


def test_a_graph_of_a_fixed_batch_has_a_twin_of_that_batch(network, tmp_path):
    example = torch.from_numpy(IMAGES[:6])
    path = save_onnx(network, tmp_path / "fixed.onnx", example, fixed=True)
    classifier = wobbliness.open_classifier(path)
    require_close(classifier.twin(IMAGES).classifier, classifier, IMAGES)


def test_weights_are_integers_and_the_same_images_give_the_same_graph(path):
    model = onnx.load(path)
    content, name = model.SerializeToString(), model.graph.input[0].name
    first, again = (quantise(content, IMAGES, name=name) for _ in range(2))
    assert first == again
    assert len(integers_of(first.content)) > 4 > len(integers_of(content))
    other = quantise(content, 2 * IMAGES, name=name)
    assert other.content != first.content


def test_weights_may_lie_in_another_file_but_not_be_too_many(path, monkeypatch):
    assert path.with_name(f"{path.name}.data").exists()
    classifier = wobbliness.open_classifier(path)
    monkeypatch.setattr(graph, "MAX_QUANTISED_BYTES", 1000)
    with pytest.raises(ValueError, match="expected at most 1000 bytes to be quantised"):
        classifier.twin(IMAGES)


def test_a_graph_with_gates_has_no_twin(path):
    gated = wobbliness.open_classifier(path).gated(Dropout(0.1).nodes, IMAGES).classifier
    with pytest.raises(ValueError, match="expected a graph without gates"):
        gated.twin(IMAGES.reshape(len(IMAGES), -1))


def test_what_is_no_graph_is_refused():
    with pytest.raises(ValueError, match="expected a graph that can be quantised"):
        quantise(b"no graph", IMAGES, name="x")


def convolution(channels, side, *, is_transposed=True):
    """A convolution 3 x 3 of `channels` to as many, then a product with ten columns."""
    rng, flat = np.random.default_rng(0), channels * side * side
    weights = {
        "filter": rng.normal(size=(channels, channels, 3, 3)),
        "matrix": rng.normal(size=(10, flat) if is_transposed else (flat, 10)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "filter"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix"], ["y"], transB=int(is_transposed)),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (16, 8), (64, 4)])
def test_the_cost_follows_products_and_values(channels, side, is_transposed):
    flat = channels * side * side
    num_values, num_products = 2 * flat + 10, flat * 9 * channels + 10 * flat
    expected = COST_OF_PRODUCTS + COST_OF_VALUES * num_values / num_products
    found = relative_cost(convolution(channels, side, is_transposed=is_transposed))
    assert found == pytest.approx(expected)


def test_a_graph_that_multiplies_nothing_has_no_cost():
    model = convolution(1, 8)
    del model.graph.initializer[:]
    with pytest.raises(ValueError, match="no step multiplies by weights"):
        relative_cost(model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni sse\nflags\t: fpu\n", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("flags\t\t: fpu avx2 avx512f\nvmx flags : avx_vnni\n", False),
        ("processor : 0\n", False),
    ],
)
def test_dot_products_are_read_from_the_flags(monkeypatch, tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    processor.has_int8_dot_products.cache_clear()
    try:
        assert processor.has_int8_dot_products() is expected
    finally:
        processor.has_int8_dot_products.cache_clear()
