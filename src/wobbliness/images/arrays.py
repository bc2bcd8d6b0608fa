"""Arrays from `.npy` files and `.npz` archives, in memory bounded by their stored size."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from wobbliness.images.array_axes import image_set_of
from wobbliness.images.fitting import Target
from wobbliness.images.image_set import ImageSet, check_expansion, check_set_size
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import check_regular

LABELS = "labels"


def read_npy(path: Path, target: Target) -> ImageSet:
    """Reads the images of a `.npy` file.

    Raises:
        ValueError: it is damaged, holds Python objects, is shorter than its header says, or holds
            no images.
    """
    check_regular(path)
    with _reading(path):
        # the map is refused where the file is too short
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.ndarray):
            raise ValueError("it is an archive")
    check_set_size(mapped.shape, str(path))
    # a copy: the file may change while it is measured
    return image_set_of(np.array(mapped), None, target, path)


def read_npz(
    path: Path, target: Target, *, column: str | None, label_column: str | None
) -> ImageSet:
    """Reads the images of an `.npz` archive, and their labels where it has an array of them.

    Raises:
        ValueError: as for `read_npy`; or the archive lacks a named array, or unpacks to far more
            than it stores.
    """
    check_regular(path)
    with _reading(path):
        content = zipfile.ZipFile(path)
    with content:
        return _read_archive(_Archive(path=path, content=content), target, column, label_column)


def _read_archive(
    archive: "_Archive", target: Target, column: str | None, label_column: str | None
) -> ImageSet:
    names = archive.names
    unlabelled = [name for name in names if name != LABELS]
    images = archive.read(column or (unlabelled[0] if len(unlabelled) == 1 else "images"))
    wanted = label_column or (LABELS if LABELS in names else None)
    labels = archive.read(wanted) if wanted else None
    if labels is not None and not _are_labels(labels, images):
        if label_column:
            found = f"{labels.dtype} of shape {labels.shape}"
            raise ValueError(
                f"expected {len(images)} integer labels, got {found} as {label_column} in "
                f"{archive.path}"
            )
        labels = None  # an array that happens to be called so
    return image_set_of(images, labels, target, archive.path)


def _are_labels(labels: np.ndarray, images: np.ndarray) -> bool:
    return labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """The arrays of a zip archive, each read only when it is needed."""

    path: Path
    content: zipfile.ZipFile

    @property
    def names(self) -> list[str]:
        return [name.removesuffix(".npy") for name in self.content.namelist()]

    def read(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise ValueError(
                f"expected array {name} in {self.path}, got {', '.join(self.names) or 'none'}"
            )
        info = self.content.getinfo(self.content.namelist()[self.names.index(name)])
        # An entry's sizes are claims: none takes more than its whole file.
        stored = min(info.compress_size, self.path.stat().st_size)
        check_expansion(info.file_size, stored, str(self.path))
        self._check_header(info, name)
        with _reading(self.path), self.content.open(info) as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))

    def _check_header(self, info: zipfile.ZipInfo, name: str) -> None:
        """Checks the size that an array's header announces, before memory is taken for it."""
        with _reading(self.path), self.content.open(info) as stream:
            shape, dtype = _header(stream)
        check_set_size(shape, str(self.path))
        stated = math.prod(shape) * dtype.itemsize
        if stated > info.file_size:
            raise ValueError(
                f"expected {stated} bytes of {name} in {self.path}, as its header says, got "
                f"{info.file_size}"
            )


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Reads the shape and type in an array's header."""
    # Versions 2 and 3 of the header differ in the encoding of names alone.
    read = (
        npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    return shape, dtype


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Converts any error of a damaged file to a ValueError of one line.

    Numpy, zipfile, the operating system and Python's parser raise classes of their own.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"expected a readable {path.suffix} file, got {path}: {reason_of(error)}"
        ) from error
