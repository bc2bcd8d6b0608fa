"""Pictures of a few measured points in a record, stacked in one PNG in base64."""

import base64
import io

import numpy as np

from wobbliness.runtime.errors import cause_of

MAX_STRIP_VALUES = 16_000  # pixels of a strip: a study's records stay small for version control
# pixels of a single picture that is larger; the page holds dozens of them
MAX_PICTURE_BYTES = 2**20


def strip(images: np.ndarray) -> str | None:
    """Returns the first of `(N, C, H, W)` images in [0, 1] as 8-bit PNG, one below the other.

    None where they are neither grey nor colour, or very large.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images[0].size > MAX_PICTURE_BYTES:
        return None
    pixels = _pixels(images[: max(1, MAX_STRIP_VALUES // images[0].size)])
    return base64.b64encode(_png(pixels.reshape(-1, *pixels.shape[2:]))).decode("ascii")


def side_by_side(images: np.ndarray) -> bytes:
    """Returns `(N, C, H, W)` grey or colour images in [0, 1] in a row, as 8-bit PNG."""
    return _png(np.concatenate(_pixels(images), axis=1))


def pictures_of(text: str, height: int) -> np.ndarray:
    """Returns the `(N, C, H, W)` 8-bit pictures of a strip.

    Raises:
        ValueError: it is no PNG of grey or colour pictures of that height, or a very large one.
    """
    from PIL import Image

    try:
        with Image.open(
            io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]
        ) as picture:
            if (
                picture.mode not in ("L", "RGB")
                or picture.width * picture.height > MAX_PICTURE_BYTES
                or picture.height % height
            ):
                raise ValueError(f"{picture.width} x {picture.height} pixels of {picture.mode}")
            pixels = np.asarray(picture)
    except Exception as error:  # Pillow raises classes of its own
        raise ValueError(
            f"expected a PNG of grey or colour pictures, got {cause_of(error)}"
        ) from error
    # grey PNG has no axis of channels
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.moveaxis(pixels.reshape(-1, height, *pixels.shape[1:]), -1, 1)


def _pixels(images: np.ndarray) -> np.ndarray:
    """Returns `(N, H, W, C)` 8-bit values."""
    return np.moveaxis(np.round(255 * np.clip(images, 0, 1)).astype(np.uint8), 1, -1)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, "PNG")
    return content.getvalue()
