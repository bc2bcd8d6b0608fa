"""Training for smoothed classifiers: its noise, its attack, its identity, and what it is for."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

import wobbliness
from wobbliness.classifiers.torch_accelerator import exact_float32
from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.study.identity import identity, written
from wobbliness.study.specs import NetworkSpec, SmoothAdv, cell_name
from wobbliness.study.tables.labels import network_label
from wobbliness.study.training import train as training
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.loop import TrainingLoop
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.smooth_adv import (
    adversarial_shift,
    noise_of_step,
    noisy_copies,
    smoothed_loss,
)
from wobbliness.study.training.train import train_network
from wobbliness.study.typed_json import from_json

SPEC = NetworkSpec(
    dataset="digits",
    architecture="small_cnn",
    epochs=2,
    batch_size=32,
    learning_rate=3e-3,
    threat=None,
    trigger=None,
    seed=0,
)
SIGMA = 0.25


def with_smoothing(**settings):
    return dataclasses.replace(SPEC, smoothing=SmoothAdv(sigma=SIGMA, **settings))


def same_bits(one, other):
    weights, others = one.state_dict(), other.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in others)


@pytest.fixture(scope="module")
def few(digits):
    train = Split(
        images=digits.train.images[:160], labels=digits.train.labels[:160], num_classes=10
    )
    return ImageData(name=digits.name, train=train, test=digits.test)


@pytest.fixture(scope="module")
def learnt(digits):
    """A network that was trained on noise alone, and a batch that it was not trained on."""
    spec = dataclasses.replace(with_smoothing(steps=0), epochs=8)
    network = train_network(spec, digits).network
    images, labels = (
        torch.from_numpy(part[:100]) for part in (digits.test.images, digits.test.labels)
    )
    return network, images, labels


def augmented_by_hand(spec, data):
    """Gaussian augmentation, written out: each image of each step with new noise."""
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    network = build_network(spec.architecture, images.shape[1:], 10, seed=spec.seed)
    with torch_threads(1), exact_float32():
        network[0].fit(images)
        loop = TrainingLoop(network, spec, num_images=len(labels))
        for step, batch in enumerate(loop.batches()):
            rng = np.random.Generator(np.random.Philox(key=[spec.seed, step]))
            noise = rng.standard_normal(images[batch].shape, dtype=np.float32) * np.float32(SIGMA)
            noisy = images[batch] + torch.from_numpy(noise)
            logits = training._logits(network, noisy.contiguous(memory_format=torch.channels_last))
            loop.step(torch.nn.functional.cross_entropy(logits, labels[batch]))
    return network


def test_zero_steps_or_no_epsilon_are_gaussian_augmentation(few):
    by_hand = augmented_by_hand(SPEC, few)
    assert same_bits(train_network(with_smoothing(steps=0), few).network, by_hand)
    assert same_bits(train_network(with_smoothing(epsilon=0.0), few).network, by_hand)
    adversarial = train_network(with_smoothing(epsilon=0.5), few).network
    assert not same_bits(adversarial, by_hand), "control"


def test_without_noise_or_attack_it_is_plain_training(few):
    nothing = dataclasses.replace(SPEC, smoothing=SmoothAdv(sigma=0.0, steps=0))
    plain = train_network(SPEC, few).network
    assert same_bits(train_network(nothing, few).network, plain)
    assert not same_bits(train_network(with_smoothing(steps=0), few).network, plain), "control"


@pytest.mark.parametrize("architecture", ["small_cnn", "resnet18_width16"])
def test_two_trainings_are_equal_to_the_bit(few, architecture):
    spec = dataclasses.replace(with_smoothing(copies=2), architecture=architecture)
    with torch_threads(2):
        one = train_network(spec, few).network
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert same_bits(train_network(spec, few).network, one)
    other = dataclasses.replace(spec, seed=1)
    assert not same_bits(train_network(other, few).network, one)


def test_noise_is_normal_and_of_its_seed_and_step_alone():
    settings, shape = SmoothAdv(sigma=0.3, copies=4), (20, 1, 8, 8)
    noise = noise_of_step(settings, shape, seed=5, step=7)
    assert noise.shape == (4, *shape)
    assert stats.kstest(noise.numpy().ravel() / 0.3, "norm").pvalue > 1e-3
    assert torch.equal(noise_of_step(settings, shape, seed=5, step=7), noise)
    for seed, step in ((5, 8), (6, 7)):
        other = noise_of_step(settings, shape, seed=seed, step=step)
        error = 4 / math.sqrt(noise.numel())
        assert abs(np.corrcoef(other.ravel(), noise.ravel())[0, 1]) < error


def linear(weights):
    return lambda images: images.flatten(1) @ weights.T


def test_the_loss_is_that_of_the_mean_of_the_probabilities():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 4)).astype(np.float32)
    images, noise = rng.random((5, 1, 2, 2), np.float32), rng.normal(size=(6, 5, 1, 2, 2))
    labels = np.array([0, 1, 2, 0, 1])
    logits = (images + noise).reshape(6, 5, 4) @ weights.T
    probabilities = special.softmax(logits, axis=2).mean(axis=0)[np.arange(5), labels]
    found = smoothed_loss(
        linear(torch.from_numpy(weights)),
        *map(torch.from_numpy, (images, labels, noise.astype(np.float32))),
    )
    np.testing.assert_allclose(found, -np.log(probabilities), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_against_a_linear_network_the_attack_is_the_shortest_way(steps):
    """Of two classes the loss falls along w_other - w_y, whatever the noise."""
    weights = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
    noise = noise_of_step(SmoothAdv(sigma=0.1, copies=3), (2, 1, 2, 2), seed=0, step=0)
    found = adversarial_shift(linear(weights), images, labels, noise, epsilon=0.2, steps=steps)
    way = weights[1] - weights[0]
    expected = 0.2 * torch.stack([way, -way]) / way.norm()
    np.testing.assert_allclose(found.flatten(1), expected, atol=1e-6)


@pytest.mark.parametrize(("epsilon", "copies"), [(0.25, 1), (0.5, 4), (2.0, 2)])
def test_the_attack_raises_the_loss_more_than_random_directions_and_keeps_its_bounds(
    learnt, epsilon, copies
):
    network, images, labels = learnt
    noise = noise_of_step(
        SmoothAdv(sigma=SIGMA, copies=copies), tuple(images.shape), seed=1, step=0
    )
    attacked = adversarial_shift(network, images, labels, noise, epsilon=epsilon, steps=4)
    norms = attacked.flatten(1).norm(dim=1)
    assert norms.max() <= epsilon * (1 + 1e-5)
    assert norms.median() > 0.5 * epsilon
    moved = images + attacked
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    directions = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    scale = (norms / directions.flatten(1).norm(dim=1))[:, None, None, None]
    with torch.no_grad():
        clean, random, found = (
            smoothed_loss(network, each, labels, noise)
            for each in (images, images + scale * directions, moved)
        )
    # the very noise of the attack is that of the step
    gain = (found - random).numpy()
    assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))
    assert (found > clean).float().mean() > 0.95


def test_without_epsilon_nothing_moves(learnt):
    network, images, labels = learnt
    noise = noise_of_step(SmoothAdv(sigma=SIGMA), tuple(images.shape), seed=1, step=0)
    for settings in ({"epsilon": 0.0, "steps": 4}, {"epsilon": 1.0, "steps": 0}):
        assert not adversarial_shift(network, images, labels, noise, **settings).any()


def test_copies_are_in_the_order_of_their_labels():
    images = torch.arange(3.0).view(3, 1, 1, 1)
    copies = noisy_copies(images, torch.tensor([10.0, 20.0]).view(2, 1, 1, 1, 1))
    assert copies.flatten().tolist() == [10, 11, 12, 20, 21, 22]
    assert torch.arange(3).repeat(2).tolist() == [0, 1, 2, 0, 1, 2]


def test_it_is_part_of_a_networks_identity_only_where_it_is_set():
    assert "smoothing" not in identity(SPEC)
    names = {
        cell_name(dataclasses.replace(SPEC, smoothing=smoothing))
        for smoothing in (
            None,
            SmoothAdv(sigma=0.1),
            SmoothAdv(sigma=0.2),
            SmoothAdv(sigma=0.1, steps=0),
        )
    }
    assert len(names) == 4
    smoothed = with_smoothing(epsilon=0.5, copies=2)
    for spec in (SPEC, smoothed):
        content = json.loads(json.dumps(written(spec)))
        assert from_json(NetworkSpec, content) == spec
    old = {name: value for name, value in written(SPEC).items() if name != "smoothing"}
    assert from_json(NetworkSpec, old) == SPEC
    assert network_label(SPEC) == "clean, small_cnn, seed 0"
    assert network_label(smoothed) == (
        "clean, small_cnn, smooth-adv 0.25 epsilon 0.5 copies 2, seed 0"
    )
    assert (SPEC.work, smoothed.work) == (2, 2 * 2 * 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -0.1}, "expected SmoothAdv.sigma from 0 to 1000, got -0.1"),
        ({"sigma": 0.1, "epsilon": -1.0}, "expected SmoothAdv.epsilon from 0"),
        ({"sigma": 0.1, "steps": -1}, "expected SmoothAdv.steps from 0"),
        ({"sigma": 0.1, "copies": 0}, "expected SmoothAdv.copies from 1"),
        ({"sigma": 0.1, "warm_up_epochs": -1}, "expected SmoothAdv.warm_up_epochs from 0"),
    ],
)
def test_bad_settings_get_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        SmoothAdv(**settings)
    assert "\n" not in str(raised.value)


def certified_accuracy(network, data, radius):
    """Share of the test points whose class is right and certified at the radius."""
    votes = wobbliness.measure(network, data.test.images, SIGMA, draws=300)
    is_right = votes.label == data.test.labels
    return (is_right & (votes.certified_radius() >= radius)).mean()


def test_certified_accuracy_on_the_digits_is_higher_than_after_plain_training(digits, learnt):
    """By four standard errors of a difference of shares, and above noise alone by two."""
    radius, num_points = 0.35, len(digits.test.labels)
    spec = dataclasses.replace(with_smoothing(epsilon=0.5, warm_up_epochs=2), epochs=8)
    plain, noise, adversarial = (
        certified_accuracy(network, digits, radius)
        for network in (
            train_network(dataclasses.replace(spec, smoothing=None), digits).network,
            learnt[0],
            train_network(spec, digits).network,
        )
    )
    error = np.sqrt((plain * (1 - plain) + adversarial * (1 - adversarial)) / num_points)
    assert adversarial - plain > 4 * error, (plain, noise, adversarial)
    assert adversarial - noise > 2 * error, (plain, noise, adversarial)
    assert plain > 0.05, "control: the radius is not out of reach"
