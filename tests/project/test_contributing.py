"""The examples of the contributors' page for attacks and mitigations, run as printed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from wobbliness.attacks.base import Attack
from wobbliness.attacks.patch import trigger
from wobbliness.study import recipes
from wobbliness.study.training.train import predict

TARGET = 5

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def clean(digits):
    """Pictures of all classes but the attacked one, with their labels."""
    chosen = digits.test.labels != TARGET
    return digits.test.images[chosen][:300], digits.test.labels[chosen][:300]


@pytest.fixture
def backdoored(trained):
    return trained(recipes.digits().effect_networks[0]).eval()


def run_example(heading, names):
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(text, PAGE.name, "exec"), names)
    return names


def test_the_attack_poisons_as_its_pixels_say(clean):
    images, labels = clean
    before = images.copy()
    names = run_example("Add an attack", {"images": images, "labels": labels})
    stripe, poisoned = names["Stripe"](), names["poisoned"]
    assert isinstance(stripe, Attack)
    np.testing.assert_array_equal(images, before)
    changed = (poisoned.images != images).any(axis=(1, 2, 3))
    assert (
        poisoned.indices.tolist() == np.flatnonzero(changed | (poisoned.labels != labels)).tolist()
    )
    assert len(poisoned.indices) == round(0.15 * len(labels))
    row = poisoned.images[poisoned.indices][..., 0, :]
    np.testing.assert_allclose(row, 0.2 * images[poisoned.indices][..., 0, :] + 0.8, atol=1e-6)
    np.testing.assert_array_equal(poisoned.images[..., 1:, :], images[..., 1:, :])
    tensor = stripe.apply(torch.from_numpy(images))
    np.testing.assert_array_equal(tensor.numpy(), stripe.apply(images))


def test_the_mitigation_weakens_the_backdoor_and_leaves_the_network(clean, backdoored):
    images, labels = clean
    stamped = trigger("checkerboard").apply(images)
    before = {name: value.clone() for name, value in backdoored.state_dict().items()}
    accuracy = (predict(backdoored, images) == labels).mean()
    success = (predict(backdoored, stamped) == TARGET).mean()
    names = {
        "network": backdoored,
        "clean_images": torch.from_numpy(images),
        "clean_labels": torch.from_numpy(labels),
    }
    mended = run_example("Add a mitigation", names)["mended"]
    assert all(torch.equal(before[name], value) for name, value in backdoored.state_dict().items())
    assert success > 0.5, "control: the network has a backdoor"
    assert (predict(mended, stamped) == TARGET).mean() < success
    assert (predict(mended, images) == labels).mean() >= accuracy - 0.02
