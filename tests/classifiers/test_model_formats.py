"""The same verdicts on one poisoned network in every model format, Hugging Face included."""

import sys
import warnings

import numpy as np
import pytest
import torch
from model_files import SIDE, ChannelsLast, Labels, save_exported, save_onnx, save_vit
from safetensors.torch import save_file

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.study import recipes
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.train import train_network

NUM_CLASSES, SIGMA = 10, 0.2
TARGETS = {"digits": 5, "fashion_mnist": 0}
MOST_CHANGED = 0.002  # share of labels that a form's own rounding may change
POINTS = 60

MODULE = """
import torch
from safetensors.torch import load_file
from wobbliness.study.training.networks import build_network


def make():
    return build_network("small_cnn", SHAPE, 10, seed=0)


network = make()
network.load_state_dict(load_file(FILE))
network.eval()


def scores(images):
    with torch.no_grad():
        return network(torch.as_tensor(images))
"""


@pytest.fixture(
    scope="module", params=["digits", pytest.param("fashion_mnist", marks=pytest.mark.scale)]
)
def data(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def network(data, trained):
    """T1; of Fashion-MNIST 20,000 images, one epoch."""
    if data.name == "digits":
        return trained(recipes.digits().effect_networks[0])
    train = Split(
        images=data.train.images[:20_000],
        labels=data.train.labels[:20_000],
        num_classes=NUM_CLASSES,
    )
    spec = NetworkSpec(
        dataset="fashion_mnist",
        architecture="small_cnn",
        epochs=1,
        batch_size=32,
        learning_rate=3e-3,
        threat=t1(TARGETS[data.name]),
        trigger="checkerboard",
        seed=0,
    )
    made = train_network(spec, ImageData(name="fashion_mnist", train=train, test=data.test))
    assert made.backdoor_accuracy > 0.95
    return made.network


@pytest.fixture(scope="module")
def batches(data):
    """Clean, other clean and triggered points of attacked classes."""
    points = np.random.default_rng(0).permutation(
        np.flatnonzero(data.test.labels != TARGETS[data.name])
    )[: 4 * POINTS]
    clean, fresh, suspect = np.split(data.test.images[points], [2 * POINTS, 3 * POINTS])
    return clean, fresh, wobbliness.trigger("checkerboard").apply(suspect)


@pytest.fixture(scope="module")
def forms(network, data, tmp_path_factory):
    """Each form as the arguments of `open_classifier`."""
    shape = data.test.images.shape[1:]
    folder, example = tmp_path_factory.mktemp("forms"), torch.rand(2, *shape)
    last = example.permute(0, 2, 3, 1)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "weights.safetensors",
    )
    (folder / "kept_network.py").write_text(
        MODULE.replace("FILE", repr(str(folder / "weights.safetensors"))).replace(
            "SHAPE", repr(shape)
        )
    )
    torch.save(network, folder / "whole.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, example).save(str(folder / "script.pt"))
    sys.path.insert(0, str(folder))
    yield {
        "torch module, compiled": {"source": network},
        "onnx": {"source": save_onnx(network, folder / "model.onnx", example)},
        "onnx, fixed batch": {
            "source": save_onnx(network, folder / "fixed.onnx", torch.rand(25, *shape), fixed=True)
        },
        "onnx, channels last": {
            "source": save_onnx(ChannelsLast(network), folder / "last.onnx", last)
        },
        "onnx, labels": {
            "source": save_onnx(Labels(network), folder / "labels.onnx", example),
            "num_classes": NUM_CLASSES,
        },
        "pt2": {"source": save_exported(network, folder / "model.pt2", example)},
        "pt2, channels last": {
            "source": save_exported(ChannelsLast(network), folder / "last.pt2", last)
        },
        "safetensors with a factory": {
            "source": folder / "weights.safetensors",
            "factory": "kept_network:make",
        },
        "module:attribute": {"source": "kept_network:network"},
        "callable": {"source": "kept_network:scores"},
        "trusted pickle": {"source": folder / "whole.pt", "trust_pickle": True},
        "trusted TorchScript": {"source": folder / "script.pt", "trust_pickle": True},
    }
    sys.path.remove(str(folder))
    sys.modules.pop("kept_network", None)


def opened(source, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if options.get("trust_pickle") else "error")
        return wobbliness.open_classifier(source, **options)


def test_every_form_gives_the_same_labels_and_verdicts(forms, network, batches):
    clean, fresh, triggered = batches
    images = np.concatenate([clean[:20], triggered[:20]])
    reference = wobbliness.measure(opened(network, compiled=False), images, SIGMA, draws=100)
    assert reference.wobbliness.mean() > 0.02, "control: there is something to agree on"
    for name, arguments in forms.items():
        classifier = opened(**arguments)
        votes = wobbliness.measure(classifier, images, SIGMA, draws=100)
        changed = np.abs(votes.counts - reference.counts).sum(axis=1) / 2 / 100
        assert changed.mean() <= MOST_CHANGED, name
        assert np.array_equal(votes.label, reference.label), name
        same = changed == 0
        assert np.array_equal(votes.wobbliness[same], reference.wobbliness[same]), name
        bound = (
            changed * np.log(NUM_CLASSES - 1)
            - changed * np.log(np.maximum(changed, 1e-9))
            + changed
        )
        assert (np.abs(votes.wobbliness - reference.wobbliness) <= bound + 1e-9).all(), name
        verdicts = [
            wobbliness.compare_batches(classifier, clean, suspect, sigmas=[SIGMA], draws=50).verdict
            for suspect in (triggered, fresh)
        ]
        assert verdicts == ["smoother", "no difference"], name


def test_a_hugging_face_model_is_measured_compared_and_guarded(tmp_path):
    """Random weights, so no trigger: batches of one source agree, and the guard keeps its rate."""
    folder = save_vit(tmp_path / "vit", image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    classifier = wobbliness.open_classifier(folder)
    pictures = np.random.default_rng(0).uniform(size=(120, 3, SIDE, SIDE)).astype(np.float32)
    assert wobbliness.measure(classifier, pictures[:5], 0.3, draws=20).counts.sum() == 100
    found = wobbliness.compare_batches(
        classifier, pictures[:80], pictures[80:], sigmas=[0.1, 0.3], draws=30
    )
    assert found.verdict == "no difference"
    guard = wobbliness.SmoothnessGuard(
        classifier, sigmas=(0.1, 0.3), draws=30, false_positive_rate=0.1
    ).fit(pictures[:80])
    judged = guard.judge(pictures[80:])
    assert judged.is_suspicious.mean() <= 0.3
    assert np.array_equal(guard.predict(pictures[80:]) == -1, judged.is_suspicious)
