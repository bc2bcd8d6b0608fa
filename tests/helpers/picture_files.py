"""Pictures and tables of pictures as files, for the tests of reading them."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3), np.uint8)
MEBIBYTE = 2**20


def png(pixels, mode=None, **options):
    """The picture as the bytes of a PNG file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(stream, "PNG", **options)
    return stream.getvalue()


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def table(path, cells, **columns):
    pd.DataFrame({"image": cells, **columns}).to_parquet(path)
    return path


def unit(pixels):
    """The oracle for 8-bit pixels `(H, W)` or `(H, W, C)`: channels first, divided by 255."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.moveaxis(pixels, -1, 0).astype(np.float32) / np.float32(255)


def save_with_features(path, cells, **labels):
    features = {"image": {"_type": "Image"}} | {
        name: {"_type": "ClassLabel", "names": ["no", "yes"]} for name in labels
    }
    images = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table({"image": images, **labels}).replace_schema_metadata(metadata), path)
