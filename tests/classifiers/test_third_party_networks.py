"""Third-party networks on Fashion-MNIST: the right answer with the right options."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

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
def fashion():
    """The first 400 of the test set; to decode all takes a quarter of a minute."""
    (path,) = (FILES.parents[1] / "data" / "fashion_mnist").glob("test-*.parquet")
    rows = parquet.read_table(path).slice(0, 400).to_pylist()
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
    images = np.stack([np.asarray(picture, np.float32)[None] / 255 for picture in pictures])
    return images, np.array([row["label"] for row in rows])


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
