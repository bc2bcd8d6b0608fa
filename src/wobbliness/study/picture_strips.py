"""Pictures of a few measured points in a record: one below the other, as one PNG in base64."""

import base64
import io

import numpy as np

MOST_BYTES = 16_000  # pixels of a strip: a study's records stay small for version control


def strip(images: np.ndarray) -> str | None:
    """The first of `(N, C, H, W)` images in [0, 1] as 8-bit PNG; None where they are neither grey nor colour."""
    from PIL import Image

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    shown = images[: max(1, MOST_BYTES // images[0].size)]
    pixels = np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    rows = np.moveaxis(pixels, 1, -1).reshape(-1, *pixels.shape[3:], pixels.shape[1])
    content = io.BytesIO()
    Image.fromarray(rows[..., 0] if rows.shape[-1] == 1 else rows).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def pictures_of(text: str, height: int) -> np.ndarray:
    """The `(N, C, H, W)` 8-bit pictures of a strip."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.moveaxis(pixels.reshape(-1, height, *pixels.shape[1:]), -1, 1)
