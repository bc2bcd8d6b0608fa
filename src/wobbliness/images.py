"""Images from files: arrays and Parquet tables."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32

FORMATS = (".npy", ".npz", ".parquet")


def read_images(path: str | Path, *, column: str | None = None) -> Float32[np.ndarray, "N ..."]:
    """Images from a file, in [0, 1]: 8-bit pixels are divided by 255, floats are taken as they are.

    Args:
        path: `.npy` array, `.npz` archive, or `.parquet` table with encoded pictures as the Hugging Face hub stores them.
        column: the array of an archive or the column of a table; may be left out where there is only one array, or a column
            named `image`.

    Returns:
        `(N, ...)`; pictures from a table are `(N, C, H, W)`.

    Raises:
        ValueError: the file is missing, unreadable or of another format, the column does not exist, or values are neither
            floats nor 8-bit.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"expected images as {', '.join(FORMATS)}, got {path}")
    if not path.is_file():
        raise ValueError(f"expected an image file, got {path}, which does not exist")
    pixels = _read_parquet(path, column or "image") if path.suffix == ".parquet" else _read_numpy(path, column)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"expected images as floats or 8-bit integers, got {pixels.dtype} in {path}")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is refused where it is measured
        return pixels.astype(np.float32, copy=False)


def _read_numpy(path: Path, column: str | None) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            arrays = {"": content}
        else:
            with content:
                arrays = dict(content)
    except Exception as error:  # damaged archives raise zipfile's, numpy's and the operating system's own classes
        raise ValueError(f"expected a readable {path.suffix} file, got {path}: {error}") from error
    chosen = column or (next(iter(arrays)) if len(arrays) == 1 else "images")
    if chosen not in arrays:
        raise ValueError(f"expected column {chosen} in {path}, got {', '.join(arrays) or 'none'}")
    return np.asarray(arrays[chosen])


def _read_parquet(path: Path, column: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image, UnidentifiedImageError

    try:
        names = pq.read_schema(path).names
        if column not in names:
            raise ValueError(f"expected column {column} in {path}, got {', '.join(names)}")
        cells = pq.read_table(path, columns=[column])[column].to_pylist()
        encoded = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
        pictures = [np.asarray(Image.open(io.BytesIO(content))) for content in encoded]
    except (pa.ArrowException, UnidentifiedImageError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"expected a table of pictures, got {path}: {error}") from error
    if len({picture.shape for picture in pictures}) != 1:
        raise ValueError(f"expected pictures of one size, at least one, in {path}")
    pixels = np.stack(pictures)
    return pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
