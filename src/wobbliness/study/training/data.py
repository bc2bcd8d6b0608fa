"""Image sets by name: the embedded digits, Fashion-MNIST and CIFAR-10.

The latter two are read by the `datasets` library.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

from wobbliness.images.fitting import Target
from wobbliness.images.hub import DATA_VARIABLE, HUB_NAMES, data_source
from wobbliness.images.local_sets import read_local

NUM_DIGITS_FOR_TEST = 600

_IMAGE_COLUMNS = {"fashion_mnist": "image", "cifar10": "img"}

DATASET_NAMES = ("digits", *HUB_NAMES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images `(N, C, H, W)` float32 in [0, 1] and their classes `(N,)`, 0 to num_classes - 1."""

    images: Float32[np.ndarray, "N C H W"]
    labels: Int[np.ndarray, " N"]
    num_classes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """Training and test split of a data set."""

    name: str
    train: Split
    test: Split


@lru_cache(maxsize=2)
def load_data(name: str) -> ImageData:
    """Loads an image set by name.

    `digits` comes with scikit-learn (1,797 real 8 x 8 images; the last 600 are the test split). The
    others are looked for in the folder that the environment variable WOBBLINESS_DATA names, then on
    the hub.

    Raises:
        ValueError: no data set has that name, or it can be had neither from the folder nor from the
            hub.
    """
    require_data(name)
    if name == "digits":
        return _digits()
    return ImageData(name=name, train=_load_split(name, "train"), test=_load_split(name, "test"))


def require_data(name: str) -> None:
    """Checks that a data set is there, without reading it.

    Raises:
        ValueError: as for `load_data`.
    """
    if name not in DATASET_NAMES:
        raise ValueError(f"expected a data set out of {', '.join(DATASET_NAMES)}, got {name!r}")
    source = data_source(name)
    if name == "digits" or any(Path(source).glob("**/*.parquet")):
        return
    if Path(source).is_dir():
        raise _missing(name, source, FileNotFoundError("no Parquet files"))
    import datasets

    try:
        datasets.load_dataset_builder(source)
    # the library raises a dozen classes of its own, from the network's to the file system's
    except Exception as error:
        raise _missing(name, source, error) from error


def _digits() -> ImageData:
    table = _digits_table()
    images = (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = table[:, -1].astype(np.int64)
    border = len(labels) - NUM_DIGITS_FOR_TEST
    return ImageData(
        name="digits",
        train=Split(images=images[:border], labels=labels[:border], num_classes=10),
        test=Split(images=images[border:], labels=labels[border:], num_classes=10),
    )


def _digits_table() -> Float64[np.ndarray, "N 65"]:
    """Reads pixels from 0 to 16 and the class, from scikit-learn's package.

    Its own reader would load scipy.stats, which takes more than a second.
    """
    path = Path(
        str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz"))
    )
    if path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))


def _load_split(name: str, split: str) -> Split:
    source = data_source(name)
    if Path(source).is_dir():
        return _local_split(name, Path(source), split)
    import datasets

    try:
        table = datasets.load_dataset(source, split=split)
    except Exception as error:  # as above
        raise _missing(name, source, error) from error
    column = _IMAGE_COLUMNS[name]
    missing = {column, "label"} - set(table.column_names)
    if missing:
        raise ValueError(
            f"expected columns {column} and label in data set {name}, got "
            f"{', '.join(table.column_names)}"
        )
    pixels = np.stack([np.asarray(picture, dtype=np.uint8) for picture in table[column]])
    # grey images get an axis of channels, colours move theirs to the front
    pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
    labels = np.asarray(table["label"], dtype=np.int64)
    return Split(
        images=(pixels / np.float32(255)).astype(np.float32), labels=labels, num_classes=10
    )


def _local_split(name: str, folder: Path, split: str) -> Split:
    """Reads a split by its files alone: nothing in the folder can have anything fetched."""
    columns = {"column": _IMAGE_COLUMNS[name], "label_column": "label"}
    read = read_local(folder, Target(), config=None, split=split, name=name, **columns)
    if read.labels is None:
        raise ValueError(f"expected labels of data set {name}, got none in {folder}")
    return Split(images=read.images, labels=read.labels, num_classes=10)


def _missing(name: str, source: str, error: Exception) -> ValueError:
    return ValueError(
        f"expected data set {name} in ${DATA_VARIABLE} or on the hub as {HUB_NAMES[name]}, "
        f"got {type(error).__name__} from {source}"
    )
