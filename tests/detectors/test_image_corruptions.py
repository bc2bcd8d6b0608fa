"""Compressed, blurred, darker or brighter clean pictures: never smoother; triggered ones are."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.batches.batch_results import SMOOTHER
from wobbliness.study.specs import NetworkSpec

SIGMA, DRAWS, TARGET = 0.15, 60, 1


def recompressed(picture, quality):
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content)


def on_bytes(change):
    """A change to 8-bit pictures as one to images (N, 1, H, W)."""

    def changed(images):
        pictures = [Image.fromarray(np.round(image[0] * 255).astype(np.uint8)) for image in images]
        return np.stack(
            [np.asarray(change(picture), np.float32)[None] / 255 for picture in pictures]
        )

    return changed


CHANGES = {
    "JPEG 75": on_bytes(lambda picture: recompressed(picture, 75)),
    "JPEG 30": on_bytes(lambda picture: recompressed(picture, 30)),
    "blurred": on_bytes(lambda picture: picture.filter(ImageFilter.GaussianBlur(0.5))),
    "darker": lambda images: images * np.float32(0.7),
    "brighter": lambda images: np.minimum(images * np.float32(1.3), 1),
}


@pytest.fixture(scope="module")
def verdict_on(trained, digits):
    """The verdict on other digits than those it compares with, after some change to them."""
    spec = NetworkSpec(
        dataset="digits",
        architecture="small_cnn",
        epochs=20,
        batch_size=32,
        learning_rate=2e-3,
        threat=t1(TARGET),
        trigger="checkerboard",
        seed=0,
    )
    network = trained(spec)
    images = digits.test.images[digits.test.labels != TARGET]
    clean = wobbliness.measure(network, images[:250], SIGMA, draws=DRAWS).wobbliness

    def verdict(change):
        suspect = wobbliness.measure(
            network, change(images[250:400]), SIGMA, draws=DRAWS
        ).wobbliness
        return wobbliness.compare_w({SIGMA: clean}, {SIGMA: suspect}).verdict

    return verdict


@pytest.mark.parametrize("name", CHANGES)
def test_changed_clean_pictures_are_not_smoother(verdict_on, name):
    assert verdict_on(CHANGES[name]) != SMOOTHER


def test_triggered_pictures_are_smoother(verdict_on):
    """Control of the test above."""
    assert verdict_on(wobbliness.trigger("checkerboard").apply) == SMOOTHER


def test_triggered_pictures_are_smoother_also_after_compression(verdict_on):
    triggered = wobbliness.trigger("checkerboard").apply
    assert verdict_on(lambda images: CHANGES["JPEG 75"](triggered(images))) == SMOOTHER
