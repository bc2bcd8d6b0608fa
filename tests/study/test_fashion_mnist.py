"""Real images, where they can be had: the loader reads the hub's layout."""

import json
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from wobbliness.study.tables.labels import CLASS_NAMES
from wobbliness.study.training.data import DATA_VARIABLE, load_data

needs_data = pytest.mark.skipif(
    not os.environ.get(DATA_VARIABLE),
    reason=f"{DATA_VARIABLE} does not name the folder of data sets",
)


def test_fashion_mnist_is_read_as_published(fashion_mnist):
    data = fashion_mnist
    assert data.train.images.shape == (60_000, 1, 28, 28)
    assert data.test.images.shape == (10_000, 1, 28, 28)
    assert data.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)
    assert data.train.images.mean() == pytest.approx(0.2860, abs=1e-4)


@needs_data
def test_a_wrong_column_is_one_line(tmp_path, monkeypatch):
    import pandas as pd

    folder = tmp_path / "cifar10"
    folder.mkdir()
    pd.DataFrame({"picture": [1], "label": [0]}).to_parquet(folder / "train-00000-of-00001.parquet")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="^expected column img in cifar10, got picture, label"):
        load_data("cifar10")


def test_data_that_cannot_be_had_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="^expected data set cifar10 in"):
        load_data("cifar10")
    with pytest.raises(
        ValueError, match="^expected a data set out of digits, fashion_mnist, cifar10, got 'mnist'"
    ):
        load_data("mnist")


@needs_data
@pytest.mark.parametrize("name", CLASS_NAMES)
def test_names_of_classes_are_those_of_the_published_files(name):
    path = min((Path(os.environ[DATA_VARIABLE]) / name).glob("**/*.parquet"))
    described = json.loads(pq.read_schema(path).metadata[b"huggingface"])
    names = described["info"]["features"]["label"]["names"]
    # the hub puts spaces around the hyphen and the slash of "T-shirt/top"
    assert [re.sub(r" ([-/]) ", r"\1", text) for text in names] == list(CLASS_NAMES[name])
