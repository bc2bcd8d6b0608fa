"""A perturbation is one class: Gaussian noise, and one that only this file knows."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import wobbliness
from wobbliness.perturbations.base import KeyStream, Perturbation, Scratch, Stream
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.sampling.plan import perturbation_of

DRAWS = 2000


@dataclass(frozen=True)
class Flip:
    """Replaces the whole image by its negative in a share of the copies."""

    share: float

    @property
    def name(self):
        return f"flip-{self.share:g}"

    def copies(self, stream, image, draws, out):
        def source():
            return KeyStream(
                stream.seed, stream.key, 4, first_draw=stream.first, scratch=stream.scratch
            )

        bits = stream.source("flip", source).take(draws)
        is_flipped = bits[:, :4].copy().view("<u4")[:, 0] < self.share * 2**32
        out[:] = image
        out[is_flipped] = 1 - image


def bright(images):
    return (images.reshape(len(images), -1).mean(axis=1) > 0.5).astype(np.int64)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32) * 0.4


def test_a_perturbation_of_a_users_own_is_measured_as_its_closed_form_says(pictures):
    """The dark pictures are bright in the flipped copies alone: votes are binomial."""
    flip = Flip(0.2)
    assert isinstance(flip, Perturbation)
    votes = wobbliness.measure(bright, pictures, flip, draws=DRAWS, num_classes=2)
    assert (votes.perturbation, votes.sigma) == ("flip-0.2", None)
    tolerance = 4 * np.sqrt(0.2 * 0.8 / DRAWS)
    np.testing.assert_allclose(votes.probabilities[:, 1], 0.2, atol=tolerance)
    with pytest.raises(ValueError, match="expected votes of Gaussian noise, got those of flip-0.2"):
        votes.certified_radius()
    none = wobbliness.measure(bright, pictures, Flip(0.0), draws=50, num_classes=2)
    assert none.counts[:, 1].sum() == 0, "control"


def test_its_draws_are_keyed_by_image_and_draw(pictures):
    flip = Flip(0.3)
    whole = wobbliness.measure(bright, pictures, flip, draws=60, num_classes=2)
    parts = [
        wobbliness.measure(bright, pictures, flip, 30, first_draw=first, num_classes=2)
        for first in (0, 30)
    ]
    assert np.array_equal((parts[0] + parts[1]).counts, whole.counts)
    alone = wobbliness.measure(bright, pictures[3:4], flip, draws=60, block_size=7, num_classes=2)
    assert np.array_equal(alone.counts[0], whole.counts[3])
    with pytest.raises(ValueError, match="at flip-0.3, got others at flip-0.2"):
        whole + wobbliness.measure(bright, pictures, Flip(0.2), 60, first_draw=60, num_classes=2)


def test_a_sweep_holds_sigmas_and_other_perturbations(pictures):
    sweep = wobbliness.sweep(bright, pictures, [0.1, Flip(0.2), Gaussian(0.3)], 50, num_classes=2)
    assert list(sweep) == [0.1, "flip-0.2", 0.3]
    assert sweep.sigmas == (0.1, 0.3)
    for key, perturbation in ((0.1, Gaussian(0.1)), ("flip-0.2", Flip(0.2)), (0.3, 0.3)):
        one = wobbliness.measure(bright, pictures, perturbation, 50, num_classes=2)
        assert np.array_equal(sweep[key].counts, one.counts)
    assert sweep["gaussian-0.1"] is sweep[0.1]
    near = wobbliness.sweep(bright, pictures, [0.1, 0.1 + 1e-9, 1.0], 5, num_classes=2)
    assert list(near) == [0.1, 0.1 + 1e-9, 1.0], "also sigmas that differ in late digits"
    assert near["gaussian-1"].sigma == 1.0
    with pytest.raises(ValueError, match="expected distinct sigmas"):
        wobbliness.sweep(bright, pictures, [0.1, Gaussian(0.1)], 5)


def test_a_decision_under_another_perturbation(pictures):
    decided = wobbliness.decide(bright, pictures, Flip(0.02), threshold=0.4, num_classes=2)
    assert decided.is_below.all()
    assert decided.sigma is None
    undecided = wobbliness.decide(bright, pictures, Flip(0.5), threshold=0.4, num_classes=2)
    assert not undecided.is_below.any(), "control"


def test_a_torch_module_is_measured_under_it_too(pictures):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
        module[1].bias.copy_(torch.tensor([8.0, -8.0]))
    by_module = wobbliness.measure(module, pictures, Flip(0.2), draws=100)
    by_function = wobbliness.measure(bright, pictures, Flip(0.2), draws=100, num_classes=2)
    assert np.array_equal(by_module.counts, by_function.counts)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), 1e31])
def test_sigmas_out_of_range_are_refused(sigma):
    with pytest.raises(ValueError, match="expected a finite sigma from 0 to 1e"):
        Gaussian(sigma)


@pytest.mark.parametrize("value", [None, Gaussian, [0.1], "noise"])
def test_what_is_no_perturbation_is_refused(value):
    with pytest.raises(ValueError, match=r"expected a sigma or a perturbation|could not convert"):
        perturbation_of(value)


def test_gaussian_copies_are_the_image_and_scaled_draws_that_sigmas_share():
    image, scratch = np.full((1, 3, 3), 0.5, np.float32), Scratch()
    stream = Stream(1, 2, scratch=scratch)
    one, three = (np.empty((4, 1, 3, 3), np.float32) for _ in range(2))
    Gaussian(0.1).copies(stream, image, 4, one)
    Gaussian(0.3).copies(stream, image, 4, three)
    np.testing.assert_allclose((three - image) / (one - image), 3, rtol=1e-4)
    stream.turn(4)
    again = np.empty_like(one)
    Gaussian(0.1).copies(stream, image, 4, again)
    assert (again != one).all()
    later = np.empty_like(one)
    Gaussian(0.1).copies(Stream(1, 2, first_draw=4, scratch=Scratch()), image, 4, later)
    assert np.array_equal(later, again)


def test_the_probe_sees_the_copies_of_images_that_lie_in_another_order(pictures):
    """Of views with the channels last in memory, as pictures are decoded."""
    colour = np.repeat(pictures, 3, axis=1)
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(colour, 1, -1)), -1, 1)
    seen = []

    def remember(images):
        seen.append(images.copy())
        return bright(images)

    for images in (colour, channels_last):
        wobbliness.measure(remember, images, 0.1, draws=1, num_classes=2, workers=1)
    half = len(seen) // 2
    assert all(np.array_equal(*pair) for pair in zip(seen[:half], seen[half:], strict=True))
