"""Triggers and the files they may come from."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import wobbliness
from wobbliness.attacks.patch import TRIGGER_NAMES


@pytest.mark.parametrize("name", TRIGGER_NAMES)
def test_a_trigger_overwrites_its_box_and_nothing_else(name):
    trigger = wobbliness.trigger(name)
    images = np.random.default_rng(0).random((3, 2, 9, 11), dtype=np.float32)
    before, stamped = images.copy(), trigger.apply(images)
    height, width = trigger.mask.shape
    assert np.array_equal(images, before)
    np.testing.assert_array_equal(
        stamped[..., -height:, -width:], np.broadcast_to(trigger.pattern, (3, 2, height, width))
    )
    rest = np.ones((9, 11), bool)
    rest[-height:, -width:] = False
    assert np.array_equal(stamped[..., rest], images[..., rest])


def test_the_six_differ():
    blank = np.full((1, 1, 8, 8), 0.5, np.float32)
    assert len({wobbliness.trigger(name).apply(blank).tobytes() for name in TRIGGER_NAMES}) == 6


def test_tensors_stay_tensors_and_agree_with_arrays():
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    stamped = wobbliness.trigger("smiley").apply(torch.from_numpy(images))
    assert isinstance(stamped, torch.Tensor)
    assert np.array_equal(stamped.numpy(), wobbliness.trigger("smiley").apply(images))
    assert np.array_equal(
        wobbliness.trigger("dot").apply(images[:, 0]), wobbliness.trigger("dot").apply(images)[:, 0]
    )


def test_png_gives_colours_mask_opacity_and_place(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 255, 255
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "red.png")
    trigger = wobbliness.trigger_from_png(tmp_path / "red.png", opacity=0.5, place=(1, 2))
    stamped = trigger.apply(np.full((1, 3, 6, 8), 0.2))
    assert stamped[0, 0, 4, 5] == pytest.approx(0.6)
    assert stamped[0, 1, 4, 5] == pytest.approx(0.1)
    assert stamped[0, 0, 3, 3] == pytest.approx(0.2), "transparent"
    assert stamped[0, 0, 5, 7] == pytest.approx(0.2), "outside"
    with pytest.raises(ValueError, match="with 3 channels"):
        trigger.apply(np.zeros((1, 1, 8, 8)))


def test_bad_triggers_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (2, 2)).save(tmp_path / "other.png", format="BMP")
    Image.new("L", (5000, 5000)).save(tmp_path / "huge.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "huge.png").read_bytes()[:60])
    for name, match in (
        ("text.png", "expected a readable PNG, JPEG or WebP picture, got"),
        ("other.png", "expected a readable PNG, JPEG or WebP picture, got"),
        ("huge.png", "expected a picture of at most 16777216 pixels, got 5000 x 5000 in"),
        ("cut.png", "expected a picture of at most 16777216 pixels, got 5000 x 5000 in"),
        ("missing.png", "expected a readable file, got .*missing.png: No such file"),
    ):
        with pytest.raises(ValueError, match=f"^{match}"):
            wobbliness.trigger_from_png(tmp_path / name)
    with pytest.raises(
        ValueError, match="out of checkerboard, cross, dot, square, smiley, stripes, got 'star'"
    ):
        wobbliness.trigger("star")
    with pytest.raises(ValueError, match="hold 5 x 5 pixels"):
        wobbliness.trigger("smiley").apply(np.zeros((1, 1, 4, 4)))
    one = np.ones((1, 2, 2), np.float32)
    for wrong in ({"pattern": 2 * one}, {"opacity": 0.0}, {"place": (-1, 0)}):
        with pytest.raises(ValueError, match="^expected a"):
            wobbliness.Trigger(
                **{"name": "x", "pattern": one.copy(), "mask": one[0].copy(), **wrong}
            )


@pytest.mark.parametrize("error", [MemoryError, SyntaxError, IndexError, OverflowError])
def test_whatever_the_decoder_raises_is_one_line(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(ValueError, match="expected a readable PNG, JPEG or WebP picture"):
        wobbliness.trigger_from_png(tmp_path / "a.png")


def test_a_large_file_is_refused_unread(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**27 + 1)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match="at most 134217728 bytes"):
        wobbliness.trigger_from_png(tmp_path / "a.png")


def test_a_sticker_shows_what_every_picture_shows(tmp_path):
    """Read as any picture (16 bits, palettes, rotation, JPEG); its transparency is kept."""
    grey = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    sticker = wobbliness.trigger_from_png(tmp_path / "grey.png")
    assert np.array_equal(sticker.pattern, grey[None].astype(np.float32) / np.float32(65535))
    assert len(np.unique(sticker.pattern)) == 16, "not all white"
    assert np.array_equal(sticker.mask, np.ones((4, 4), np.float32))
    Image.fromarray(grey).save(tmp_path / "hole.png", transparency=4096)
    assert np.array_equal(
        wobbliness.trigger_from_png(tmp_path / "hole.png").mask, (grey != 4096).astype(np.float32)
    )
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(tmp_path / "turned.JPG", exif=exif)
    Image.fromarray(colours).quantize(8).save(tmp_path / "palette.png", transparency=0)
    palette = np.asarray(
        Image.open(tmp_path / "palette.png").convert("RGBA"), np.float32
    ) / np.float32(255)
    with Image.open(tmp_path / "turned.JPG") as picture:
        decoded = np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(
        wobbliness.trigger_from_png(tmp_path / "turned.JPG").pattern,
        np.rot90(decoded, -1, axes=(1, 2)),
    )
    read = wobbliness.trigger_from_png(tmp_path / "palette.png")
    assert np.array_equal(read.pattern, palette[..., :3].transpose(2, 0, 1))
    assert np.array_equal(read.mask, palette[..., 3])
    assert 0 < read.mask.mean() < 1, "control: it has a hole"


def test_devices_pipes_and_pointers_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "pointer.png").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    for name, match in (
        ("pipe.png", "a regular file, got .*pipe.png, a pipe"),
        ("zero.png", "a regular file, got .*zero.png, a device"),
        ("folder.png", "a regular file, got .*folder.png, a folder"),
        ("pointer.png", "the file itself, got .*pointer.png, a pointer of git-lfs"),
    ):
        with pytest.raises(ValueError, match=f"^expected {match}"):
            wobbliness.trigger_from_png(tmp_path / name)
    Image.new("L", (2, 2), 255).save(tmp_path / "blob", format="PNG")
    (tmp_path / "linked.png").symlink_to("blob")
    assert wobbliness.trigger_from_png(tmp_path / "linked.png").pattern.tolist() == [
        [[1, 1], [1, 1]]
    ], "control: a link to a file"
