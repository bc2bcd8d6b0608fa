"""Single pictures: what each kind shows, and what is refused."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from picture_files import COLOUR, GREY, MEBIBYTE, RNG, png, save, table, unit
from PIL import Image

from wobbliness import read_images
from wobbliness.images import pictures
from wobbliness.images.pictures import decode_picture


@given(hnp.arrays(np.uint8, st.sampled_from([(5, 7), (5, 7, 3), (1, 1)])))
@settings(max_examples=30, deadline=None)
def test_8_bit_pixels_survive_png_and_lossless_webp(pixels):
    assert np.array_equal(
        decode_picture(png(pixels), "x"), np.moveaxis(np.atleast_3d(pixels), -1, 0)
    )
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(stream, "WEBP", lossless=True)
    colour = np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3))
    assert np.array_equal(decode_picture(stream.getvalue(), "x"), np.moveaxis(colour, -1, 0))


def test_a_picture_of_each_kind_becomes_the_values_it_shows(tmp_path):
    palette = Image.fromarray(COLOUR).quantize(16)
    sixteen = RNG.integers(0, 65536, (8, 8)).astype(np.uint16)
    black_white = GREY > 127
    kinds = {
        "grey": (png(GREY), unit(GREY)),
        "colour": (png(COLOUR), unit(COLOUR)),
        "palette": (png(palette), unit(np.asarray(palette.convert("RGB")))),
        "1-bit": (png(Image.fromarray(black_white)), black_white[None].astype(np.float32)),
        "16-bit": (png(sixteen), sixteen[None].astype(np.float32) / np.float32(65535)),
        "opaque alpha": (png(np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])), unit(COLOUR)),
        "opaque grey alpha": (png(Image.fromarray(GREY).convert("LA")), unit(GREY)),
        "unused transparent colour": (png(GREY // 2, transparency=200), unit(GREY // 2)),
    }
    for kind, (content, expected) in kinds.items():
        read = read_images(save(tmp_path / f"{kind}.png", content))
        assert np.array_equal(read.images, expected[None]), kind
        assert read.names == (f"{kind}.png",)
        assert read.labels is None
        assert read.class_names is None


def test_palette_pictures_of_a_table_are_read_by_colour_not_index(tmp_path):
    palette = Image.fromarray(COLOUR).quantize(16)
    path = table(tmp_path / "table.parquet", [{"bytes": png(palette), "path": None}])
    assert np.array_equal(read_images(path).images[0], unit(np.asarray(palette.convert("RGB"))))
    assert not np.array_equal(
        np.asarray(palette)[None] / np.float32(255), read_images(path).images[0, :1]
    ), "the index differs"


def test_jpeg_is_what_pillow_decodes_and_is_turned_as_the_camera_noted(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(wide).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(wide).save(tmp_path / "plain.JPG", quality=95)
    with Image.open(tmp_path / "plain.JPG") as picture:
        decoded = unit(np.asarray(picture))
    assert np.array_equal(read_images(tmp_path / "plain.JPG").images[0], decoded)
    assert np.array_equal(
        read_images(tmp_path / "turned.jpg").images[0], np.rot90(decoded, -1, axes=(1, 2))
    )


def sixteen_bit_colours():
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(2 * 13)))
        + chunk(b"IEND", b"")
    )


def bmp():
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "BMP")
    return stream.getvalue()


def huge_png():
    """A bomb: 400 million pixels in half a megabyte."""
    return png(Image.new("1", (20000, 20000)))


UNWANTED_PICTURES = {
    "see-through": (lambda: png(np.dstack([COLOUR, GREY])), "expected an opaque picture"),
    "see-through grey": (
        lambda: png(GREY, transparency=int(GREY[0, 0])),
        "expected an opaque picture",
    ),
    "see-through palette": (
        lambda: png(Image.fromarray(COLOUR).quantize(4), transparency=0),
        "expected an opaque picture",
    ),
    "16-bit colours": (sixteen_bit_colours, "expected 8-bit colours, got a 16-bit PNG"),
    "another format": (bmp, "expected a readable PNG, JPEG or WebP"),
    "cut short": (lambda: png(COLOUR)[:-60], "expected a readable PNG, JPEG or WebP"),
    "empty": (lambda: b"", "expected a readable PNG, JPEG or WebP"),
    "animation": (
        lambda: png(
            Image.fromarray(COLOUR), save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
        ),
        "expected a still picture",
    ),
}


@pytest.mark.parametrize("name", UNWANTED_PICTURES)
def test_what_would_change_its_meaning_is_refused(tmp_path, name):
    make, message = UNWANTED_PICTURES[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        read_images(save(tmp_path / "picture.png", make()))


def test_a_picture_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "bomb.png", huge_png())
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"^expected a picture of at most 67108864 pixels, got .*bomb.png"
    ):
        read_images(path)
    assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    tracemalloc.stop()
    monkeypatch.setattr(pictures, "MAX_PICTURE_PIXELS", 64)
    assert read_images(save(tmp_path / "at the limit.png", png(GREY))).images.shape == (1, 1, 8, 8)


def test_a_large_file_is_refused_unread(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**29 + 1)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match="at most 536870912 bytes"):
        read_images(tmp_path / "a.png")
