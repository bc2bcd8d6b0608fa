"""One encoded picture, decoded without loss of meaning or of memory."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8, UInt16

if TYPE_CHECKING:
    from PIL import Image

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MAX_PICTURE_PIXELS = 8192 * 8192
"""A picture that announces more is refused before it is decoded."""

MAX_PICTURE_BYTES = 2**29  # twice what the most pixels take without compression

_FORMATS = ("PNG", "JPEG", "WEBP")  # no other decoder of Pillow's is offered a stranger's file
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "CMYK")
_PNG_START, _PNG_GREY = b"\x89PNG\r\n\x1a\n", 0


def decode_picture(source: Path | bytes, name: str) -> UInt8[np.ndarray, "C H W"] | UInt16[np.ndarray, "C H W"]:
    """A PNG, JPEG or WebP picture: one channel if it is stored as grey, else three.

    Palettes are looked up, 1-bit pixels become black and white, the orientation that a camera noted is applied. An alpha channel
    is dropped where it is opaque everywhere. Colour profiles are not applied and CMYK is turned to RGB by Pillow's rule, as
    torchvision's and the Hugging Face loaders do, so that a classifier sees what it was trained on.

    Args:
        source: a file or its content.
        name: for messages.

    Raises:
        ValueError: it is none of these, damaged, animated, larger than `MAX_PICTURE_PIXELS`, not opaque, or a PNG of 16-bit
            colours, which Pillow would cut to 8 bits.
    """
    from PIL import Image, ImageOps

    try:
        content = source if isinstance(source, bytes) else _content(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs and of alpha in palettes: both are errors or checked here
            _check_depth(content[:26], name)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                _check_extent(picture, name)
                return _channels(ImageOps.exif_transpose(picture), name)
    except _Refused:
        raise
    except Image.DecompressionBombError as error:  # raised while opening where Pillow's own limit is exceeded, too
        raise ValueError(f"expected a picture of at most {MAX_PICTURE_PIXELS} pixels, got {name}: {error}") from error
    except Exception as error:  # decoders raise classes of their own, from OSError to SyntaxError and struct.error
        raise ValueError(f"expected a readable PNG, JPEG or WebP picture, got {name}: {error}") from error


class _Refused(ValueError):
    """A picture that can be read and is not wanted."""


def _content(path: Path) -> bytes:
    """Of a file; were it handed to Pillow, a chunk's length would be asked of the system, up to 4 GiB for a file of 100 bytes."""
    if path.stat().st_size > MAX_PICTURE_BYTES:
        raise _Refused(f"expected a picture of at most {MAX_PICTURE_BYTES} bytes, got {path.stat().st_size} in {path}")
    return path.read_bytes()


def _check_depth(start: bytes, name: str) -> None:
    if start.startswith(_PNG_START) and len(start) == 26 and start[24] == 16 and start[25] != _PNG_GREY:
        raise _Refused(f"expected 8-bit colours, got a 16-bit PNG in {name}; store 8 bits, or all 16 in an .npy array")


def _check_extent(picture: "Image.Image", name: str) -> None:
    if picture.width * picture.height > MAX_PICTURE_PIXELS:
        raise _Refused(
            f"expected a picture of at most {MAX_PICTURE_PIXELS} pixels, got {picture.height} x {picture.width} in {name}"
        )
    if picture.format != "MPO" and getattr(picture, "is_animated", False):  # MPO: a camera's JPEG with a preview behind it
        raise _Refused(f"expected a still picture, got an animation in {name}")


def _channels(picture: "Image.Image", name: str) -> np.ndarray:
    if picture.mode.startswith("I;16"):
        pixels = np.asarray(picture).astype(np.uint16)
        _check_opaque(pixels != picture.info.get("transparency", -1), name)
        return pixels[None]
    if picture.has_transparency_data:
        _check_opaque(np.asarray(picture.convert("RGBA").getchannel("A")) == 255, name)
    if picture.mode not in _MODES:
        raise _Refused(f"expected pixels of mode {', '.join(_MODES)} or I;16, got {picture.mode} in {name}")
    pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _check_opaque(opaque: np.ndarray, name: str) -> None:
    if not opaque.all():
        raise _Refused(f"expected an opaque picture, got transparent pixels in {name}; put it on a background first")
