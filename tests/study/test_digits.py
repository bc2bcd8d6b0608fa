"""The embedded data set, whatever way it is read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from wobbliness.study.training import data


@pytest.mark.parametrize("is_laid_out_otherwise", [False, True])
def test_digits_are_those_of_scikit_learn(is_laid_out_otherwise, monkeypatch, tmp_path):
    if is_laid_out_otherwise:
        monkeypatch.setattr(data, "distribution", lambda _: Elsewhere(tmp_path))
    found = data.load_data.__wrapped__("digits")
    pixels, classes = load_digits(return_X_y=True)
    images = np.concatenate([found.train.images, found.test.images])
    assert np.array_equal(images.reshape(-1, 64) * 16, pixels)
    assert np.concatenate([found.train.labels, found.test.labels]).tolist() == classes.tolist()
    assert (len(found.train.labels), len(found.test.labels)) == (1197, 600)


class Elsewhere:
    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, path):
        return Path(self.folder) / path


def test_reading_them_does_without_scipys_statistics():
    read = (
        "import sys; from wobbliness.study.training.data import load_data; load_data('digits'); "
        "print('scipy.stats' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", read], check=True, capture_output=True, text=True
        ).stdout
        == "False\n"
    )
