"""The decoding of one picture without loss of meaning, in bounded memory."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import POINTER_START, read_bounded

if TYPE_CHECKING:
    from PIL import Image

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MAX_PICTURE_PIXELS = 8192 * 8192
"""A picture that announces more is refused before it is decoded."""

MAX_PICTURE_BYTES = 2**29  # twice what the most pixels take without compression

_FORMATS = ("PNG", "JPEG", "WEBP")  # no other decoder of Pillow's is offered a stranger's file
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "CMYK")
_PNG_START, _PNG_GREY = b"\x89PNG\r\n\x1a\n", 0


def decode_picture(
    source: Path | bytes, name: str
) -> UInt8[np.ndarray, "C H W"] | UInt16[np.ndarray, "C H W"]:
    """Decodes a PNG, JPEG or WebP picture: one channel if it is stored as grey, else three.

    Palettes are looked up, 1-bit pixels become black and white, the orientation that a camera noted
    is applied. An alpha channel is dropped where it is opaque everywhere. Colour profiles are not
    applied and CMYK is turned to RGB by Pillow's rule, as torchvision's and the Hugging Face
    loaders do, so that a classifier sees what it was trained on.

    Args:
        source: a file or its content.
        name: for messages.

    Raises:
        ValueError: it is none of these, damaged, animated, larger than `MAX_PICTURE_PIXELS`, not
            opaque, or a PNG of 16-bit colours, which Pillow would cut to 8 bits.
    """
    decoded = decode_with_mask(source, name)
    if decoded.mask is not None and not (decoded.mask == 1).all():
        raise ValueError(
            f"expected an opaque picture, got transparent pixels in {name}; put it on a background "
            "first"
        )
    return decoded.pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPicture:
    """The pixels of a picture and their opacity.

    Attributes:
        pixels: one channel or three, 8 or 16 bits.
        mask: opacity of each pixel in [0, 1]; None where the picture stores none.
    """

    pixels: UInt8[np.ndarray, "C H W"] | UInt16[np.ndarray, "C H W"]
    mask: Float32[np.ndarray, "H W"] | None


def decode_with_mask(
    source: Path | bytes, name: str, *, max_pixels: int | None = None, max_bytes: int | None = None
) -> DecodedPicture:
    """Decodes a picture as `decode_picture` does, with its transparency kept.

    Args:
        source: a file or its content.
        name: for messages.
        max_pixels: that it may have, `MAX_PICTURE_PIXELS` by default.
        max_bytes: that its file may have, `MAX_PICTURE_BYTES` by default.

    Raises:
        ValueError: as for `decode_picture`, except for transparent pixels.
    """
    from PIL import Image

    max_pixels = MAX_PICTURE_PIXELS if max_pixels is None else max_pixels
    content = _content(source, max_bytes or MAX_PICTURE_BYTES)
    try:
        return _opened(content, max_pixels, name)
    except _Refused:
        raise
    # Pillow raises it on opening a picture beyond its own limit.
    except Image.DecompressionBombError as error:
        raise _unreadable(f"a picture of at most {max_pixels} pixels", name, error) from error
    # Decoders raise classes of their own, from OSError to SyntaxError and struct.error.
    except Exception as error:
        raise _unreadable("a readable PNG, JPEG or WebP picture", name, error) from error


def _opened(content: bytes, max_pixels: int, name: str) -> DecodedPicture:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        # Pillow warns of bombs and of alpha in palettes: both are errors or checked here
        warnings.simplefilter("ignore")
        _check_start(content[:64], name)
        # Opening reads the header alone: the size is known before a pixel is decoded.
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            _check_extent(picture, max_pixels, name)
            # In place: a picture that is upright, as most are, would be copied.
            ImageOps.exif_transpose(picture, in_place=True)
            return _decoded(picture, name)


def _unreadable(what: str, name: str | Path, error: Exception) -> ValueError:
    return ValueError(f"expected {what}, got {name}: {reason_of(error)}")


class _Refused(ValueError):
    """An error for a picture that is readable but not accepted."""


def _content(source: Path | bytes, max_bytes: int) -> bytes:
    """Reads a file's content, so that Pillow never allocates what a chunk's length claims.

    That may be 4 GiB for a file of 100 bytes.
    """
    if isinstance(source, bytes):
        return source
    try:
        return read_bounded(source, max_bytes)
    except OSError as error:
        raise _unreadable("a readable PNG, JPEG or WebP picture", source, error) from error


def _check_start(start: bytes, name: str) -> None:
    if start.startswith(POINTER_START):
        raise _Refused(
            f"expected the picture itself, got a pointer of git-lfs to it in {name}; fetch it with "
            "`git lfs pull`"
        )
    if _has_deep_colours(start):
        raise _Refused(
            f"expected 8-bit colours, got a 16-bit PNG in {name}; store 8 bits, or all 16 in an "
            ".npy array"
        )


def _has_deep_colours(start: bytes) -> bool:
    """Checks whether it is a PNG of 16-bit colours, which Pillow would cut to 8 bits."""
    # Bytes 24 and 25 of a PNG are the bits of a channel and the type of colour.
    is_png = start.startswith(_PNG_START) and len(start) > 25
    return is_png and start[24] == 16 and start[25] != _PNG_GREY


def _check_extent(picture: "Image.Image", max_pixels: int, name: str) -> None:
    if picture.width * picture.height > max_pixels:
        raise _Refused(
            f"expected a picture of at most {max_pixels} pixels, got {picture.height} x "
            f"{picture.width} in {name}"
        )
    # MPO is a camera's JPEG with a preview as a second frame.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise _Refused(f"expected a still picture, got an animation in {name}")


def _decoded(picture: "Image.Image", name: str) -> DecodedPicture:
    # 16-bit grey keeps its bits; a single value may stand for "transparent".
    mask = None
    if picture.mode.startswith("I;16"):
        pixels = np.asarray(picture).astype(np.uint16)
        if "transparency" in picture.info:
            mask = (pixels != picture.info["transparency"]).astype(np.float32)
        return DecodedPicture(pixels=pixels[None], mask=mask)
    if picture.has_transparency_data:
        mask = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32) / np.float32(255)
    if picture.mode not in _MODES:
        raise _Refused(
            f"expected pixels of mode {', '.join(_MODES)} or I;16, got {picture.mode} in {name}"
        )
    # Palettes, CMYK and YCbCr become RGB; what is stored as grey stays one channel.
    pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return DecodedPicture(pixels=pixels, mask=mask)
