"""Opened classifiers: equal votes in every form; what a form leaves open must be an option."""

import json
import pickle
import sys
import warnings
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from model_files import (
    CHANNELS,
    NUM_CLASSES,
    SIDE,
    ChannelsLast,
    Labels,
    make_network,
    save_exported,
    save_onnx,
    save_vit,
)
from onnx import TensorProto, helper
from safetensors.torch import save_file

import wobbliness
from wobbliness.classifiers.compile import export as compiled
from wobbliness.classifiers.signature.layouts import find_layout
from wobbliness.cli import main as cli
from wobbliness.runtime.process_state import quiet_thread
from wobbliness.study.training.networks import build_network


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(size=(24, CHANNELS, SIDE, SIDE)).astype(np.float32)


FORMS = {
    "onnx": lambda network, folder: save_onnx(
        network, folder / "m.onnx", torch.rand(2, CHANNELS, SIDE, SIDE)
    ),
    "onnx, fixed batch": lambda network, folder: save_onnx(
        network, folder / "m.onnx", torch.rand(7, CHANNELS, SIDE, SIDE), fixed=True
    ),
    "onnx, channels last": lambda network, folder: save_onnx(
        ChannelsLast(network), folder / "m.onnx", torch.rand(2, SIDE, SIDE, CHANNELS)
    ),
    "onnx, labels": lambda network, folder: save_onnx(
        Labels(network), folder / "m.onnx", torch.rand(2, CHANNELS, SIDE, SIDE)
    ),
    "pt2": lambda network, folder: save_exported(
        network, folder / "m.pt2", torch.rand(2, CHANNELS, SIDE, SIDE)
    ),
    "pt2, fixed batch": lambda network, folder: save_exported(
        network, folder / "m.pt2", torch.rand(7, CHANNELS, SIDE, SIDE), fixed=True
    ),
    "pt2, channels last": lambda network, folder: save_exported(
        ChannelsLast(network), folder / "m.pt2", torch.rand(2, SIDE, SIDE, CHANNELS)
    ),
}


@pytest.fixture(scope="module")
def reference(network, pictures):
    return wobbliness.measure(
        wobbliness.open_classifier(network, compiled=False), pictures, 0.3, draws=40, block_size=40
    )


def check_same(classifier, pictures, reference):
    """Checks that at most one vote of a hundred differs, and W only by what those can change."""
    votes = wobbliness.measure(classifier, pictures, 0.3, draws=40, num_classes=NUM_CLASSES)
    changed = np.abs(votes.counts - reference.counts).sum(axis=1) / 2 / 40
    assert changed.mean() <= 0.01
    bound = np.where(changed > 0, changed * np.log(NUM_CLASSES - 1) + entropy_of_two(changed), 0)
    assert (np.abs(votes.wobbliness - reference.wobbliness) <= bound + 1e-9).all()
    return votes


def entropy_of_two(share):
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return -share * np.log(share) - (1 - share) * np.log(1 - share)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_votes(form, network, pictures, reference, tmp_path):
    classifier = wobbliness.open_classifier(FORMS[form](network, tmp_path), num_classes=NUM_CLASSES)
    assert classifier.image_shape == (CHANNELS, SIDE, SIDE)
    votes = check_same(classifier, pictures, reference)
    if form == "onnx, fixed batch":
        assert votes.execution.block_size == 7
    assert reference.wobbliness.mean() > 0.1, "control: there is something to agree on"


def test_another_network_gives_other_votes(pictures, reference):
    """Control of the test above."""
    other = build_network("small_cnn", (CHANNELS, SIDE, SIDE), NUM_CLASSES, seed=4)
    votes = wobbliness.measure(other, pictures, 0.3, draws=40)
    assert np.abs(votes.counts - reference.counts).sum() > 100


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    (tmp_path / "user_code.py").write_text(
        "from wobbliness.study.training.networks import build_network\n\n\n"
        "def make():\n    return build_network("
        f"'small_cnn', ({CHANNELS}, {SIDE}, {SIDE}), {NUM_CLASSES}, seed=0)\n\n\n"
        "def other():\n    return build_network("
        f"'small_cnn', (1, {SIDE}, {SIDE}), {NUM_CLASSES}, seed=0)\n\n\n"
        "def broken():\n    raise KeyError('x')\n\n\nnothing = len\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "user_code"
    sys.modules.pop("user_code", None)


def test_weights_with_a_factory(network, pictures, reference, tmp_path, user_code):
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    check_same(wobbliness.open_classifier(path, factory=f"{user_code}:make"), pictures, reference)
    with pytest.raises(ValueError, match="expected a factory"):
        wobbliness.open_classifier(path)
    for wrong in ("other", "broken", "nothing", "missing"):
        with pytest.raises(ValueError, match="expected"):
            wobbliness.open_classifier(path, factory=f"{user_code}:{wrong}")
    state = dict(network.state_dict())
    state.pop("1.bias")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    with pytest.raises(ValueError, match="Missing key"):
        wobbliness.open_classifier(path, factory=f"{user_code}:make")


def test_the_command_line_opens_what_the_library_does(
    network, pictures, tmp_path, user_code, monkeypatch, capsys
):
    weights = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights)
    last = FORMS["onnx, channels last"](network, tmp_path)
    np.save(tmp_path / "pictures.npy", pictures[:4])
    answers = []
    for model, *options in (
        [weights, "--factory", f"{user_code}:make"],
        [last, "--layout", "nhwc"],
        [last],
    ):
        arguments = [
            "measure",
            model,
            tmp_path / "pictures.npy",
            "--sigma",
            0.1,
            "--draws",
            20,
            "--json",
            *options,
        ]
        monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] == answers[2]


def test_pickles_are_opened_only_when_trusted(network, pictures, reference, tmp_path, user_code):
    torch.save(network, tmp_path / "whole.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for name in ("whole.pt", "weights.pt"):
        with pytest.raises(ValueError, match="runs no code"):
            wobbliness.open_classifier(tmp_path / name)
    with pytest.warns(UserWarning, match="runs whatever code"):
        check_same(
            wobbliness.open_classifier(tmp_path / "whole.pt", trust_pickle=True),
            pictures,
            reference,
        )
    with pytest.warns(UserWarning, match="runs whatever code"):
        weights = wobbliness.open_classifier(
            tmp_path / "weights.pt", trust_pickle=True, factory=f"{user_code}:make"
        )
    check_same(weights, pictures, reference)
    with (
        pytest.warns(UserWarning, match="runs whatever code"),
        pytest.raises(ValueError, match="weights alone"),
    ):
        wobbliness.open_classifier(tmp_path / "weights.pt", trust_pickle=True)


def test_torch_script_is_opened_only_when_trusted(network, pictures, reference, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.rand(2, CHANNELS, SIDE, SIDE)).save(
            str(tmp_path / "script.pt")
        )
    with pytest.raises(ValueError, match="TorchScript"):
        wobbliness.open_classifier(tmp_path / "script.pt")
    with pytest.warns(UserWarning, match="runs whatever code"):
        classifier = wobbliness.open_classifier(
            tmp_path / "script.pt", trust_pickle=True, compiled=False
        )
    check_same(classifier, pictures, reference)


def test_scikit_learn_classifiers(digits):
    linear_model = pytest.importorskip("sklearn.linear_model")
    svm = pytest.importorskip("sklearn.svm")
    flat, names = (
        digits.train.images.reshape(len(digits.train.images), -1),
        digits.train.labels * 3 + 7,
    )
    images = digits.test.images[:30]
    for estimator in (
        linear_model.LogisticRegression(max_iter=200),
        svm.LinearSVC(dual=False, max_iter=100, tol=1e-2),
    ):
        with pytest.raises(ValueError, match="expected a fitted classifier"):
            wobbliness.open_classifier(estimator)
        estimator.fit(flat[:400], names[:400])
        classifier = wobbliness.open_classifier(estimator)
        assert (classifier.num_classes, classifier.image_shape) == (10, None)
        votes = wobbliness.measure(estimator, images, 1e-6, draws=2)
        assert np.array_equal(votes.label * 3 + 7, estimator.predict(images.reshape(30, -1)))
    with pytest.raises(ValueError, match="features"):
        wobbliness.measure(estimator, images[:, :, :4], 0.1, draws=2)
    with pytest.raises(ValueError, match="names one class"):
        wobbliness.open_classifier(linear_model.LinearRegression().fit(flat[:50], names[:50]))


def test_flat_graphs_labels_and_names(tmp_path):
    """Graphs of scikit-learn's converter: labels (words if classes have names), then scores."""
    weights = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    images = np.random.default_rng(1).uniform(size=(9, 3, 2, 2)).astype(np.float32)
    expected = (images.reshape(9, -1) @ weights).argmax(axis=1)
    for label_type in (TensorProto.INT64, TensorProto.STRING):
        to_words = helper.make_node(
            "LabelEncoder",
            ["best"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=[0, 1, 2],
            values_strings=["a", "b", "c"],
        )
        same = helper.make_node("Identity", ["best"], ["label"])
        steps = [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
            same if label_type == TensorProto.INT64 else to_words,
        ]
        graph = helper.make_graph(
            steps,
            "flat",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 12])],
            [
                helper.make_tensor_value_info("label", label_type, [None]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3]),
            ],
            [helper.make_tensor("w", TensorProto.FLOAT, [12, 3], weights.ravel())],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        onnx.save(
            helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "flat.onnx"
        )
        classifier = wobbliness.open_classifier(tmp_path / "flat.onnx")
        assert np.array_equal(classifier.classify(images, 4), expected)
        assert classifier.image_shape is None


class Enlarging(torch.nn.Module):
    """Sizes computed from the images' by steps that shape inference alone does not follow."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(4, NUM_CLASSES)

    def forward(self, images):
        larger = torch.nn.functional.interpolate(
            self.conv(images), scale_factor=2.0, mode="bilinear"
        )
        return self.dense(
            torch.nn.functional.adaptive_avg_pool2d(
                torch.nn.functional.pad(larger, (1, 1, 1, 1)), 1
            ).flatten(1)
        )


def test_graphs_that_leave_their_sizes_free(tmp_path):
    torch.manual_seed(0)
    module, path = Enlarging().eval(), tmp_path / "m.onnx"
    free = {
        axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))
    }
    with quiet_thread(*compiled.EXPORTERS):
        torch.onnx.export(
            module,
            (torch.rand(2, 3, 16, 20),),
            str(path),
            dynamo=True,
            dynamic_shapes=(free,),
            verbose=False,
        )
    classifier = wobbliness.open_classifier(path)
    assert classifier.image_shape == (3, None, None)
    images = np.random.default_rng(0).uniform(size=(30, 3, 12, 18)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).argmax(dim=1).numpy()
    assert np.mean(classifier.classify(images, 30) == expected) >= 0.9


def test_layouts_are_told_or_asked_for():
    assert find_layout([None, 3, 32, 32], None) == "nchw"
    assert find_layout([None, 32, 32, 3], None) == "nhwc"
    assert find_layout([None, None, None, 1], None) == "nhwc"
    assert find_layout([None, 3, 8, 3], None, hint="nhwc") == "nhwc"
    assert find_layout([None, 3, 32, 12], "nhwc") == "nhwc", "3 rows of 32 columns"
    assert find_layout([None, 8, 8, 8], "nhwc") == "nhwc"
    for shape, declared in (
        ([None, 3, 32, 32], "nhwc"),
        ([None, 1, None, None], "nhwc"),
        ([None, 28, 28, 1], "nchw"),
    ):
        with pytest.raises(ValueError, match="expected layout nchw for|expected layout nhwc for"):
            find_layout(shape, declared)
    assert find_layout([None, 12], None) == "nchw"
    for shape in ([None, 3, 32, 3], [None, None, None, None], [None, 10, 8, 10]):
        with pytest.raises(ValueError, match="expected a shape that tells where the channels are"):
            find_layout(shape, None)


def test_options_without_effect_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match="expected a layout of nchw or nhwc"):
        wobbliness.open_classifier(network, layout="hwc")
    with pytest.raises(ValueError, match="only for a model's file"):
        wobbliness.open_classifier(network, layout="nhwc")
    path = FORMS["onnx"](network, tmp_path)
    with pytest.raises(ValueError, match="expected no factory"):
        wobbliness.open_classifier(path, factory="a:b")
    with pytest.raises(ValueError, match="expected (images of shape|layout nchw)"):
        wobbliness.open_classifier(path, layout="nhwc").classify(
            np.zeros((2, CHANNELS, SIDE, SIDE), np.float32), 2
        )


def test_a_program_exported_in_training_mode_is_refused(tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 3))
    path = save_exported(module.train(), tmp_path / "train.pt2", torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match="exported in evaluation mode"):
        wobbliness.open_classifier(path)
    wobbliness.open_classifier(
        save_exported(module.eval(), tmp_path / "eval.pt2", torch.rand(2, 1, 8, 8))
    )


def test_hub_folder_classifies_as_its_own_pipeline(tmp_path):
    folder = save_vit(tmp_path / "vit", image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    import transformers

    classifier = wobbliness.open_classifier(folder)
    assert classifier.image_shape == (3, SIDE, SIDE)
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    pictures = np.random.default_rng(0).integers(0, 256, size=(20, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.no_grad():
        theirs = model(**processor(list(pictures), return_tensors="pt")).logits
        ours = classifier.module(torch.from_numpy(pictures.transpose(0, 3, 1, 2) / np.float32(255)))
        unprepared = model(
            torch.from_numpy(pictures.transpose(0, 3, 1, 2) / np.float32(255))
        ).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(unprepared, theirs, atol=1e-3), "control: the preparation matters"
    votes = wobbliness.measure(
        classifier, pictures[:3].transpose(0, 3, 1, 2) / np.float32(255), 0.3, draws=20
    )
    assert votes.counts.shape == (3, 5)
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\)"):
        wobbliness.measure(classifier, np.zeros((2, 1, SIDE, SIDE), np.float32), 0.3, draws=2)


PROCESSORS = {
    "warped, bicubic": (
        "ViTImageProcessorPil",
        {"size": {"height": 32, "width": 24}, "resample": 3},
    ),
    "shortest edge and crop": (
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 24}},
    ),
    "ConvNeXt": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 28}}),
    "large ConvNeXt": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
    "pixels up to 255": (
        "ViTImageProcessorPil",
        {"size": {"height": 32, "width": 32}, "do_rescale": False},
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preparations_do_what_the_processors_do(name):
    transformers = pytest.importorskip("transformers")
    from wobbliness.classifiers.signature.hugging_face import Preparation, check_preparation

    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, kind)(**settings)
    preparation = Preparation(processor.to_dict(), 3)
    check_preparation(preparation, processor)
    preparation.std *= 1.2
    with pytest.raises(ValueError, match="does more"):
        check_preparation(preparation, processor)


def test_missing_and_unknown_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "text.txt").write_text("a model")
    for source in (
        "missing.pt2",
        "missing.safetensors",
        "missing.pkl",
        tmp_path / "empty",
        tmp_path / "model.h5",
        "hf:no/such",
        3,
    ):
        with pytest.raises(ValueError, match="expected"):
            wobbliness.open_classifier(source)
    with pytest.raises(ValueError, match="tf2onnx"):
        wobbliness.open_classifier(tmp_path / "model.h5")
    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="a pickle file"):
        wobbliness.open_classifier(tmp_path / "pickle.onnx")


@pytest.mark.parametrize("name", ["sklearn.base", "torch", "torch.nn"])
def test_a_library_that_another_thread_is_importing_has_no_objects_yet(monkeypatch, name):
    """Its module is there before the classes in it."""
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    votes = wobbliness.measure(lambda batch: batch, np.zeros((3, 2), np.float32), 0.1, draws=4)
    assert votes.counts.sum(axis=1).tolist() == [4, 4, 4]


def test_objects_of_a_library_that_is_there_are_known(network):
    """Control of the test above."""
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    opened = [type(wobbliness.open_classifier(one)).__name__ for one in (network, estimator)]
    assert opened == ["TorchClassifier", "EstimatorClassifier"]
