"""Third-party networks on Fashion-MNIST: the right answer with the right options."""

import os
from pathlib import Path

import numpy as np
import pytest

import wobbliness
from wobbliness.study.training.data import DATA_VARIABLE

FILES = Path(os.environ.get(DATA_VARIABLE, "none")).parent / "cases" / "files"
pytestmark = pytest.mark.skipif(
    not FILES.is_dir(), reason=f"no cases next to the folder that {DATA_VARIABLE} names"
)

RIGHT = {
    "features_first": {},
    "flat784": {},
    "minus1to1": {"input_range": "-1,1"},
    "normalised": {"mean": 0.286, "std": 0.353},
    "range255": {"input_range": "0,255"},
    "out_1x1": {},
    "rank3": {},
    "uint8_nhwc": {},
}


@pytest.fixture(scope="module")
def fashion(fashion_mnist):
    test = fashion_mnist.test
    return test.images[:400], test.labels[:400]


@pytest.mark.parametrize("case", RIGHT)
def test_accuracy_with_the_right_options(case, fashion):
    images, labels = fashion
    classifier = wobbliness.open_classifier(FILES / f"{case}.onnx", **RIGHT[case])
    assert np.mean(classifier.classify(images, 200) == labels) > 0.87
    assert classifier.num_classes == 10
    assert wobbliness.measure(classifier, images[:3], 0.05, draws=20).counts.shape == (3, 10)


@pytest.mark.parametrize("case", [case for case, options in RIGHT.items() if options])
def test_accuracy_without_them(case, fashion):
    """Control: what the options say is not what happens without them."""
    images, labels = fashion
    assert (
        np.mean(wobbliness.open_classifier(FILES / f"{case}.onnx").classify(images, 200) == labels)
        < 0.5
    )


def test_one_score_tells_the_later_classes(fashion):
    images, labels = fashion
    classifier = wobbliness.open_classifier(FILES / "sigmoid1.onnx")
    assert np.mean(classifier.classify(images, 200) == (labels >= 5)) > 0.9
    assert classifier.num_classes == 2


def test_labels_of_minus_one_and_one():
    classifier = wobbliness.open_classifier(FILES / "skl_pm1.onnx")
    rows = np.random.default_rng(0).uniform(size=(40, 64)).astype(np.float32)
    assert set(classifier.classify(rows, 8)) <= {0, 1}
    assert classifier.num_classes == 2
