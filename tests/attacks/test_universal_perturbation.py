"""Universal perturbations: DeepFool's closed form, the bound, fooling rates, controls and ART."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from wobbliness.attacks.universal_perturbation import (
    OVERSHOOT,
    craft_universal_perturbation,
    deepfool_steps,
)
from wobbliness.study.recipes import digits as digits_recipe
from wobbliness.study.training.train import predict

BOUNDS = {2.0: 1.5, np.inf: 0.3}
TARGET = 8


class Linear(torch.nn.Module):
    """Logits (0, w . x - b), with b such that grey images lie a little below 0."""

    def __init__(self):
        super().__init__()
        self.normal = torch.randn(64, generator=torch.Generator().manual_seed(0))

    def forward(self, images):
        margin = images.flatten(1) @ self.normal - 0.5 * self.normal.sum() - 0.3
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


@pytest.fixture(scope="module")
def network(trained):
    spec = dataclasses.replace(digits_recipe().parameter_networks[0], epochs=10)
    assert spec.threat is None
    return trained(spec)


@pytest.fixture(scope="module")
def images(digits):
    return digits.train.images[:200]


@pytest.fixture(scope="module", params=BOUNDS)
def crafted(request, network, images):
    return craft_universal_perturbation(
        network, images, norm=request.param, bound=BOUNDS[request.param], max_passes=4
    )


def share_changed(network, images, values):
    return (predict(network, np.clip(images + values, 0, 1)) != predict(network, images)).mean()


def norm_of(values, norm):
    return np.linalg.norm(values.ravel().astype(np.float64), ord=norm)


@pytest.mark.parametrize("norm", BOUNDS)
@pytest.mark.parametrize("target_class", [None, 1])
def test_closed_form_of_a_linear_classifier(norm, target_class):
    linear = Linear()
    points = 0.5 + 0.002 * torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    gaps = linear(points)[:, 1]
    assert (gaps < 0).all()
    labels = torch.zeros(20, dtype=torch.int64)
    w = linear.normal
    unit = w / w.norm() ** 2 if norm == 2 else w.sign() / w.abs().sum()
    steps = deepfool_steps(linear, points, labels, norm=norm, target_class=target_class)
    torch.testing.assert_close(
        steps.flatten(1), -(1 + OVERSHOOT) * gaps[:, None] * unit, rtol=1e-4, atol=1e-6
    )
    assert (linear(points + steps).argmax(dim=1) == 1).all()
    assert (linear(points + 0.97 * steps).argmax(dim=1) == 0).all(), (
        "control: a shorter step does not do"
    )


def test_bound_and_recorded_rate(crafted, network, images):
    assert norm_of(crafted.values, crafted.norm) <= crafted.bound * (1 + 1e-6)
    assert crafted.fooling_rate == share_changed(network, images, crafted.values)
    assert crafted.num_images == len(images)
    assert crafted.reached == (crafted.fooling_rate >= 0.8)
    assert 1 <= crafted.num_passes <= 4


def test_fools_fresh_images_far_more_than_noise_of_the_same_norm(crafted, network, digits):
    fresh, rng = digits.test.images, np.random.default_rng(0)
    noise = rng.normal(size=(10, *crafted.values.shape))
    noise = noise if crafted.norm == 2 else np.sign(noise)
    noise = [
        (values * crafted.bound / norm_of(values, crafted.norm)).astype(np.float32)
        for values in noise
    ]
    by_noise = [share_changed(network, fresh, values) for values in noise]
    assert np.mean(by_noise) < 0.25
    # processors train other networks
    assert share_changed(network, fresh, crafted.values) > max(0.4, 2 * np.mean(by_noise))


def test_apply_is_a_clipped_sum_for_arrays_and_tensors(crafted, images):
    by_hand = np.clip(images + crafted.values, 0, 1)
    before = images.copy()
    assert np.array_equal(crafted.apply(images), by_hand)
    assert np.array_equal(crafted.apply(torch.from_numpy(images)).numpy(), by_hand)
    assert crafted.apply(images.astype(np.float64)).dtype == np.float64
    assert np.array_equal(images, before)
    with pytest.raises(ValueError, match="as floats"):
        crafted.apply((images * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="expected images"):
        crafted.apply(images[:, 0])


@pytest.mark.parametrize("norm", BOUNDS)
def test_targeted_raises_the_share_of_the_target(network, images, digits, norm):
    crafted = craft_universal_perturbation(
        network, images, norm=norm, bound=BOUNDS[norm], target_class=TARGET, max_passes=4
    )
    clean_predictions = predict(network, images)
    others = images[clean_predictions != TARGET]
    assert crafted.num_images == len(others)
    assert crafted.fooling_rate == (predict(network, crafted.apply(others)) == TARGET).mean()
    fresh = digits.test.images
    before, after = (predict(network, batch) == TARGET for batch in (fresh, crafted.apply(fresh)))
    assert after.mean() > before.mean() + 0.2


def test_tiny_bound_is_not_enough(network, images):
    crafted = craft_universal_perturbation(network, images, norm=2.0, bound=0.01, max_passes=2)
    assert not crafted.reached
    assert crafted.fooling_rate < 0.05
    assert crafted.num_passes == 2


def test_stops_at_the_rate_asked_for(network, images):
    crafted = craft_universal_perturbation(
        network, images, norm=2.0, bound=1.5, fooling_rate=0.05, max_passes=4
    )
    assert crafted.reached
    assert crafted.num_passes == 1


def test_same_seed_same_bytes_and_the_network_as_it_was(network, images):
    network.zero_grad()
    network.train()
    network[2].eval()
    parameter = next(network.parameters())
    parameter.requires_grad_(False)
    flags = [part.training for part in network.modules()]
    needs = [weight.requires_grad for weight in network.parameters()]
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    global_state = torch.get_rng_state()
    options = {"norm": 2.0, "bound": 1.0, "max_passes": 2, "fooling_rate": 1.0}
    one = craft_universal_perturbation(network, images, **options)
    state_after = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = craft_universal_perturbation(network, images, **options)
    other = craft_universal_perturbation(network, images, **options, seed=1)
    assert one.values.tobytes() == again.values.tobytes()
    assert one.values.tobytes() != other.values.tobytes()
    assert torch.equal(global_state, state_after)
    assert flags == [part.training for part in network.modules()]
    assert needs == [weight.requires_grad for weight in network.parameters()]
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in network.state_dict().items())
    parameter.requires_grad_(True)
    network.eval()


def test_progress_is_reported(network, images):
    seen = []
    report = lambda done, total: seen.append((done, total))  # noqa: E731
    craft_universal_perturbation(
        network, images[:120], norm=2.0, bound=0.1, max_passes=2, progress=report
    )
    assert seen == [(100, 240), (120, 240), (220, 240), (240, 240)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm": 1.0}, "norm of 2 or inf"),
        ({"bound": 0.0}, "bound above 0"),
        ({"bound": np.nan}, "bound above 0"),
        ({"fooling_rate": 0.0}, "fooling rate in"),
        ({"fooling_rate": 1.1}, "fooling rate in"),
        ({"target_class": 10}, "from 0 to 9, got 10"),
        ({"target_class": -1}, "from 0 to 9, got -1"),
        ({"max_passes": 0}, "at least 1 pass"),
        ({"batch_size": 0}, "1 image a batch"),
        ({"seed": -1}, "seed of at least 0"),
        ({"network": torch.nn.Flatten(0)}, "logits"),
    ],
)
def test_bad_options(network, images, changed, message):
    options = {"network": network, "norm": 2.0, "bound": 1.0} | changed
    with pytest.raises(ValueError, match=message):
        craft_universal_perturbation(options.pop("network"), images, **options)


def test_bad_images(network, images):
    for bad in (
        images[:, 0],
        images[:0],
        images * 255,
        images - 0.5,
        (images * 255).astype(np.uint8),
        images * np.nan,
    ):
        with pytest.raises(ValueError, match="expected (float32 )?images"):
            craft_universal_perturbation(network, bad, norm=2.0, bound=1.0)
    target = predict(network, images[:1])
    with pytest.raises(ValueError, match="of other classes than the target"):
        craft_universal_perturbation(
            network, images[:1], norm=2.0, bound=1.0, target_class=int(target[0])
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", BOUNDS)
def test_fools_no_fewer_than_art(network, images, norm):
    """Same bound, same images, tolerance 0.1. ART's one pass is slower than five of ours."""
    evasion = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    few, bound = images[:30], BOUNDS[norm]
    estimator = PyTorchClassifier(
        network,
        torch.nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    options = {"max_iter": 5, "epsilon": OVERSHOOT, "verbose": False}
    attack = evasion.UniversalPerturbation(
        estimator, attacker_params=options, max_iter=1, eps=bound, norm=norm, verbose=False
    )
    random_state = random.getstate()
    random.seed(0)
    attack.generate(few)
    random.setstate(random_state)
    theirs = share_changed(network, few, attack.noise[0])
    ours = craft_universal_perturbation(
        network, few, norm=norm, bound=bound, max_passes=5, batch_size=10
    )
    assert norm_of(attack.noise, norm) <= bound * (1 + 1e-5)
    assert ours.fooling_rate > 0.4
    assert ours.fooling_rate >= theirs - 0.1
