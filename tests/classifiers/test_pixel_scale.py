"""Pixel scales of torch modules, exported programs and callables; images stay in [0, 1]."""

import numpy as np
import pytest
import torch
from model_files import save_exported

import wobbliness
from wobbliness.classifiers.signature.pixel_scale import PixelScale, read_pixel_scale

SIGMA, DRAWS = 0.2, 30
IMAGES = np.random.default_rng(0).uniform(size=(6, 3, 4, 6)).astype(np.float32)
OPTIONS = {"input_range": (0, 255), "mean": (120.0, 110.0, 100.0), "std": (60.0, 50.0, 70.0)}


def scaled(images):
    mean, std = (np.float32(OPTIONS[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return (images * np.float32(255) - mean) / std


class Linear(torch.nn.Module):
    def __init__(self, num_scores=4):
        super().__init__()
        torch.manual_seed(0)
        self.dense = torch.nn.Linear(72, num_scores)

    def forward(self, images):
        return self.dense(images.flatten(1))


def votes_of(module):
    """Votes of a function that scales by itself, run by torch one block at a time."""

    def label(images):
        with torch.no_grad():
            return module(torch.from_numpy(scaled(images))).numpy()

    return wobbliness.measure(label, IMAGES, SIGMA, draws=DRAWS)


@pytest.fixture(scope="module")
def expected():
    votes = votes_of(Linear())
    assert votes.wobbliness.max() > 0.1, "control: there is something to agree on"
    return votes.counts


def test_numbers_are_read_from_texts_and_sequences():
    for given in ("0,255", "0 255", "[0, 255]", (0, 255), [0.0, 255.0], np.array([0, 255])):
        scale = read_pixel_scale(given)
        assert (scale.low, scale.high, scale.has_range) == (0, 255, True)
    assert read_pixel_scale(" -1 , 1 ") == read_pixel_scale((-1, 1))
    assert read_pixel_scale(mean="0.5", std=2) == PixelScale(mean=(0.5,), std=(2.0,))
    assert read_pixel_scale() is None


def test_scaling_is_the_formula_and_keeps_what_it_was_given():
    scale, before = read_pixel_scale(**OPTIONS), IMAGES.copy()
    assert np.array_equal(scale.apply(IMAGES), scaled(IMAGES))
    assert scale.apply(IMAGES).dtype == np.float32
    assert np.array_equal(IMAGES, before)
    assert read_pixel_scale((0, 1), 0, 1).apply(IMAGES) is IMAGES
    with pytest.raises(ValueError, match="expected images of 3 channels"):
        scale.apply(IMAGES[:, :1])


def test_a_torch_module_gets_its_own_pixels(expected):
    for compiled in (False, True):
        classifier = wobbliness.open_classifier(Linear(), compiled=compiled, **OPTIONS)
        votes = wobbliness.measure(classifier, IMAGES, SIGMA, draws=DRAWS)
        assert np.array_equal(votes.counts, expected)
        assert votes.execution.backend == ("onnxruntime" if compiled else "torch"), (
            votes.execution.reason
        )
    plain = wobbliness.measure(Linear(), IMAGES, SIGMA, draws=DRAWS)
    assert not np.array_equal(plain.counts, expected), "control: the options have an effect"


def test_a_callable_gets_its_own_pixels(expected):
    module = Linear()

    def of_arrays(images):
        return module(torch.from_numpy(images)).detach().numpy()

    classifier = wobbliness.open_classifier(of_arrays, **OPTIONS)
    assert np.array_equal(
        wobbliness.measure(classifier, IMAGES, SIGMA, draws=DRAWS).counts, expected
    )


def test_an_exported_program_gets_its_own_pixels(tmp_path, expected):
    path = save_exported(Linear(), tmp_path / "m.pt2", torch.rand(2, 3, 4, 6))
    classifier = wobbliness.open_classifier(path, **OPTIONS)
    assert classifier.image_shape == (3, 4, 6)
    assert np.array_equal(
        wobbliness.measure(classifier, IMAGES, SIGMA, draws=DRAWS).counts, expected
    )


def test_gradients_flow_through_the_scaling():
    module = wobbliness.open_classifier(Linear(), **OPTIONS).module
    images = torch.from_numpy(IMAGES).requires_grad_()
    module(images).sum().backward()
    assert images.grad.abs().min() > 0


def test_one_score_of_a_module_is_two_classes():
    one = Linear(1)
    inner = torch.nn.Sequential(one, torch.nn.Sigmoid())
    logits = wobbliness.measure(
        wobbliness.open_classifier(one, threshold=0), IMAGES, SIGMA, draws=DRAWS
    )
    probabilities = wobbliness.measure(
        wobbliness.open_classifier(inner, threshold=0.5), IMAGES, SIGMA, draws=DRAWS
    )

    def label(images):
        with torch.no_grad():
            return (one(torch.from_numpy(images))[:, 0] > 0).numpy()

    assert np.array_equal(
        logits.counts, wobbliness.measure(label, IMAGES, SIGMA, draws=DRAWS, num_classes=2).counts
    )
    assert np.array_equal(probabilities.counts, logits.counts)
    assert logits.execution.backend == "onnxruntime"
    assert np.array_equal(
        wobbliness.measure(inner, IMAGES, SIGMA, draws=DRAWS).counts, logits.counts
    )
    assert logits.wobbliness.max() > 0
    with pytest.raises(ValueError, match="expected one score for each image with a threshold"):
        wobbliness.measure(
            wobbliness.open_classifier(Linear(), compiled=False, threshold=0),
            IMAGES,
            SIGMA,
            draws=2,
        )


def test_options_that_have_no_effect_are_refused():
    opened = wobbliness.open_classifier(Linear())
    for options in ({"mean": 0.5}, {"threshold": 0.5}):
        with pytest.raises(ValueError, match="expected no"):
            wobbliness.open_classifier(opened, **options)
    with pytest.raises(ValueError, match="expected no output"):
        wobbliness.measure(
            wobbliness.open_classifier(Linear(), output="logits"), IMAGES, SIGMA, draws=2
        )
