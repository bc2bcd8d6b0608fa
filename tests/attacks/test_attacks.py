"""Attacks have one shape: the six patches, universal perturbations, and one of this file."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wobbliness.attacks.base import Attack
from wobbliness.attacks.patch import TRIGGER_NAMES, Trigger, trigger
from wobbliness.attacks.poisoning import PoisonedData, poison, poisoned_by, t1
from wobbliness.attacks.universal_perturbation import UniversalPerturbation


def universal(values=None, norm=np.inf, target_class=None):
    return UniversalPerturbation(
        values=np.full((1, 8, 8), 0.1, np.float32) if values is None else values,
        norm=norm,
        bound=0.1,
        num_fooled=1,
        num_images=2,
        target_class=target_class,
        num_passes=1,
        reached=True,
    )


MEMBERS = [*map(trigger, TRIGGER_NAMES), universal()]


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("attack", MEMBERS, ids=lambda attack: attack.name)
def test_an_attack_is_a_pure_function_of_each_image(attack, images):
    assert isinstance(attack, Attack)
    before = images.copy()
    stamped = attack.apply(images)
    np.testing.assert_array_equal(images, before)
    assert (stamped.shape, stamped.dtype) == (images.shape, images.dtype)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped != images).any(axis=(1, 2, 3)).all(), "something is on each image"
    np.testing.assert_array_equal(attack.apply(images[::-1]), stamped[::-1])
    np.testing.assert_array_equal(attack.apply(torch.from_numpy(images)).numpy(), stamped)


def test_names_tell_attacks_apart():
    assert len({attack.name for attack in MEMBERS}) == len(MEMBERS)
    assert universal().name == "universal-linf-0.1"
    assert universal(norm=2.0, target_class=5).name == "universal-l2-0.1-to-5"


def test_triggers_of_equal_values_are_equal():
    """Also in a set, and across processes, where they are other objects."""
    dot = trigger("dot")
    assert dot == trigger("dot")
    assert len({dot, trigger("dot"), trigger("cross")}) == 2
    moved = Trigger(name="dot", pattern=dot.pattern, mask=dot.mask, place=(1, 0))
    fainter = Trigger(name="dot", pattern=dot.pattern, mask=dot.mask, opacity=0.5)
    assert len({dot, moved, fainter}) == 3
    assert dot != "dot"


@dataclass(frozen=True)
class Negative:
    """Poisons the second and third sample, in a way of its own."""

    name: str = "negative"

    def apply(self, images):
        return 1 - images

    def poison(self, images, labels, *, threat, num_classes, seed):  # noqa: ARG002
        indices = np.array([1, 2])
        images, labels = images.copy(), labels.copy()
        images[indices], labels[indices] = self.apply(images[indices]), threat.target_class
        return PoisonedData(images=images, labels=labels, indices=indices)


def test_an_attack_may_poison_in_its_own_way(images):
    labels = np.array([0, 1, 2, 3, 4])
    settings = {"threat": t1(0, fraction=0.4), "num_classes": 5, "seed": 0}
    own = poisoned_by(Negative(), images, labels, **settings)
    np.testing.assert_array_equal(own.indices, [1, 2])
    np.testing.assert_array_equal(own.labels, [0, 0, 0, 3, 4])
    default = poisoned_by(trigger("dot"), images, labels, **settings)
    expected = poison(images, labels, trigger=trigger("dot"), **settings)
    np.testing.assert_array_equal(default.images, expected.images)
    np.testing.assert_array_equal(default.indices, expected.indices)
    assert own.indices.tolist() != default.indices.tolist(), "control"
