"""Training: the same bits every time, accuracy with its control, and the recorded precision."""

import dataclasses

import numpy as np
import pytest
import torch

from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training import train as training
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.train import train_network

SPEC = NetworkSpec(
    dataset="digits",
    architecture="small_cnn",
    epochs=8,
    batch_size=32,
    learning_rate=3e-3,
    threat=None,
    trigger=None,
    seed=0,
)
PRECISIONS = {True: "bfloat16", False: "float32"}


def first(data, num_images):
    """The data with fewer training images."""
    train = Split(
        images=data.train.images[:num_images], labels=data.train.labels[:num_images], num_classes=10
    )
    return ImageData(name=data.name, train=train, test=data.test)


def shuffled(data):
    """The data with the training labels in random order."""
    labels = np.random.default_rng(0).permutation(data.train.labels)
    return ImageData(
        name=data.name,
        train=Split(images=data.train.images, labels=labels, num_classes=10),
        test=data.test,
    )


def same_bits(one, other):
    weights, others = one.network.state_dict(), other.network.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


@pytest.fixture(scope="module")
def trained(digits):
    return train_network(SPEC, digits)


@pytest.fixture(params=PRECISIONS)
def precision(request, monkeypatch):
    """Either precision, whatever this processor has: torch computes both everywhere."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return PRECISIONS[request.param]


@pytest.mark.parametrize("architecture", ["small_cnn", "large_cnn", "resnet18_width16"])
def test_two_trainings_are_equal_to_the_bit(digits, architecture, precision):
    data = first(digits, 200)
    spec = dataclasses.replace(SPEC, architecture=architecture, epochs=2)
    with torch_threads(2):  # the caller's threads change nothing
        one = train_network(spec, data)
    torch.manual_seed(1)  # nor does the global generator
    with torch_threads(1):
        again = train_network(spec, data)
    assert same_bits(one, again)
    assert one.losses.tolist() == again.losses.tolist()
    assert one.precision == again.precision == precision
    assert not same_bits(one, train_network(dataclasses.replace(spec, seed=1), data))


def test_the_callers_threads_do_not_reach_the_normalisation():
    """Images whose mean comes out differently where torch shares the sum out among threads."""
    images = torch.rand(2000, 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()
    split = Split(images=images, labels=np.arange(len(images)) % 10, num_classes=10)
    few = Split(images=images[:10], labels=split.labels[:10], num_classes=10)
    spec = dataclasses.replace(SPEC, epochs=1, batch_size=500)
    found = []
    for num_threads in (1, 2, 4):
        with torch_threads(num_threads):
            found.append(train_network(spec, ImageData(name="random", train=split, test=few)))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_digits_are_learnt_and_shuffled_labels_are_not(digits, trained):
    assert trained.clean_accuracy > 0.9
    assert trained.losses[-1] < trained.losses[0] / 4
    chance, standard_error = 0.1, np.sqrt(0.1 * 0.9 / len(digits.test.labels))
    assert train_network(SPEC, shuffled(digits)).clean_accuracy < chance + 6 * standard_error


def test_bfloat16_is_as_accurate_as_float32(digits, trained, monkeypatch):
    """Within three standard errors of the difference of two independent networks."""
    monkeypatch.setattr(
        torch.cpu, "_is_avx512_bf16_supported", lambda: trained.precision != "bfloat16"
    )
    other = train_network(SPEC, digits)
    assert other.precision != trained.precision
    mean = (trained.clean_accuracy + other.clean_accuracy) / 2
    assert abs(trained.clean_accuracy - other.clean_accuracy) < 3 * np.sqrt(
        2 * mean * (1 - mean) / len(digits.test.labels)
    )


def test_the_precision_written_down_is_that_of_the_products(digits, precision):
    network = build_network("small_cnn", digits.train.images.shape[1:], 10, seed=0)
    seen = set()
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    logits = training._logits(network, torch.from_numpy(digits.train.images[:4]))
    assert seen == {getattr(torch, precision)}
    assert logits.dtype == torch.float32
    assert training.training_precision() == precision


def test_the_trained_network_is_float32(digits, trained):
    weights = trained.network.state_dict()
    assert {weight.dtype for weight in weights.values() if weight.is_floating_point()} == {
        torch.float32
    }
    images = torch.from_numpy(digits.test.images)
    with torch.inference_mode():
        logits = trained.network(images)
    assert logits.dtype == torch.float32
    assert trained.clean_accuracy == (logits.argmax(dim=1).numpy() == digits.test.labels).mean()
    assert trained.precision == training.training_precision()
