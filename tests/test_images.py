"""Images as users have them: pictures, arrays, tables and data sets, real ones and hostile ones."""

import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import wobbliness
from wobbliness import fit_images, read_images
from wobbliness.images import image_set, pictures
from wobbliness.images.pictures import decode_picture
from wobbliness.study.data import DATA_VARIABLE

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


# Pictures


@given(hnp.arrays(np.uint8, st.sampled_from([(5, 7), (5, 7, 3), (1, 1)])))
@settings(max_examples=30, deadline=None)
def test_8_bit_pixels_survive_png_and_lossless_webp(pixels):
    assert np.array_equal(decode_picture(png(pixels), "x"), np.moveaxis(np.atleast_3d(pixels), -1, 0))
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
    assert not np.array_equal(np.asarray(palette)[None] / np.float32(255), read_images(path).images[0, :1]), "the index differs"


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
    assert np.array_equal(read_images(tmp_path / "turned.jpg").images[0], np.rot90(decoded, -1, axes=(1, 2)))


def sixteen_bit_colours():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(2 * 13))) + chunk(b"IEND", b"")


def bmp():
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "BMP")
    return stream.getvalue()


def huge_png():
    """A bomb: 400 million pixels in half a megabyte."""
    return png(Image.new("1", (20000, 20000)))


UNWANTED_PICTURES = {
    "see-through": (lambda: png(np.dstack([COLOUR, GREY])), "expected an opaque picture"),
    "see-through grey": (lambda: png(GREY, transparency=int(GREY[0, 0])), "expected an opaque picture"),
    "see-through palette": (lambda: png(Image.fromarray(COLOUR).quantize(4), transparency=0), "expected an opaque picture"),
    "16-bit colours": (sixteen_bit_colours, "expected 8-bit colours, got a 16-bit PNG"),
    "another format": (bmp, "expected a readable PNG, JPEG or WebP"),
    "cut short": (lambda: png(COLOUR)[:-60], "expected a readable PNG, JPEG or WebP"),
    "empty": (lambda: b"", "expected a readable PNG, JPEG or WebP"),
    "animation": (
        lambda: png(Image.fromarray(COLOUR), save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
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
    with pytest.raises(ValueError, match=r"^expected a picture of at most 67108864 pixels, got .*bomb.png"):
        read_images(path)
    assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    tracemalloc.stop()
    monkeypatch.setattr(pictures, "MAX_PICTURE_PIXELS", 64)
    assert read_images(save(tmp_path / "at the limit.png", png(GREY))).images.shape == (1, 1, 8, 8)


# Folders


def test_a_folder_is_read_by_name_and_hidden_files_are_skipped(tmp_path):
    for name, value in (("b.png", 2), ("a.PNG", 1), ("c.png", 3)):
        save(tmp_path / name, png(np.full((4, 4), value, np.uint8)))
    for name in (".hidden", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"nothing")
    read = read_images(tmp_path)
    assert read.names == ("a.PNG", "b.png", "c.png")
    assert (read.images[:, 0, 0, 0] * 255).round().tolist() == [1, 2, 3]
    assert read.labels is None
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"^expected only pictures .* got notes.txt"):
        read_images(tmp_path)


def test_class_folders_give_the_labels_that_datasets_gives(tmp_path):
    datasets = pytest.importorskip("datasets")
    for index, name in enumerate(("zebra/1.png", "Ant/2.png", "cat/2.png", "cat/10.png")):
        save(tmp_path / "pictures" / name, png(np.full((4, 4, 3), index, np.uint8)))
    read = read_images(tmp_path / "pictures")
    assert read.names == ("Ant/2.png", "cat/10.png", "cat/2.png", "zebra/1.png")
    assert read.class_names == ("Ant", "cat", "zebra")
    assert read.labels.tolist() == [0, 1, 1, 2]
    other = datasets.load_dataset(str(tmp_path / "pictures"), split="train", cache_dir=str(tmp_path / "cache"))
    assert tuple(other.features["label"].names) == read.class_names
    theirs = {int(np.asarray(row["image"])[0, 0, 0]): row["label"] for row in other}
    ours = {round(float(image[0, 0, 0]) * 255): label for image, label in zip(read.images, read.labels.tolist(), strict=True)}
    assert ours == theirs


def test_class_folders_beside_pictures_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="^expected at least one picture"):
        read_images(tmp_path)
    save(tmp_path / "cat" / "a.png", png(GREY))
    assert read_images(tmp_path).labels.tolist() == [0]
    save(tmp_path / "b.png", png(GREY))
    with pytest.raises(ValueError, match="^expected pictures or class folders"):
        read_images(tmp_path)


def test_grey_among_colour_is_repeated_in_either_order(tmp_path):
    save(tmp_path / "b.png", png(GREY))
    for first in ("a.png", "c.png"):
        save(tmp_path / first, png(COLOUR))
        read = read_images(tmp_path)
        grey = read.names.index("b.png")
        assert np.array_equal(read.images[grey], np.repeat(unit(GREY), 3, axis=0))
        assert np.array_equal(read.images[1 - grey], unit(COLOUR))
        (tmp_path / first).unlink()


def test_pictures_of_several_sizes_need_a_declared_size_and_leave(tmp_path):
    save(tmp_path / "a.png", png(GREY))
    save(tmp_path / "b.png", png(np.tile(GREY, (2, 2))))
    with pytest.raises(ValueError, match=r"^expected pictures of one size, got 8 x 8 in .*a.png and 16 x 16 in .*b.png"):
        read_images(tmp_path)
    with pytest.raises(ValueError, match=r"^expected pictures of 8 x 8 pixels, .* got 16 x 16 in .*b.png"):
        read_images(tmp_path, image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="^expected a classifier that declares the size"):
        read_images(tmp_path, resize=True)
    assert read_images(tmp_path, image_shape=(3, 8, 8), resize=True).images.shape == (2, 3, 8, 8)


def test_large_pictures_are_held_one_at_a_time(tmp_path):
    for name in "abcdef":
        save(tmp_path / f"{name}.png", png(np.full((1000, 1000, 3), 200, np.uint8)))
    tracemalloc.start()
    read = read_images(tmp_path, image_shape=(3, 10, 10), resize=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 1000 * 1000 * 4, "of six pictures, never much more than one channel as float32 and one picture's bytes"
    np.testing.assert_allclose(read.images, 200 / 255, rtol=1e-6)


# Fitting


def test_channels_are_changed_only_where_nothing_is_lost():
    grey, colour = unit(GREY)[None], unit(COLOUR)[None]
    assert np.array_equal(fit_images(grey, (3, 8, 8)), np.repeat(grey, 3, axis=1))
    assert np.array_equal(fit_images(np.repeat(grey, 3, axis=1), (1, None, None)), grey)
    assert np.array_equal(fit_images(grey[:, 0], (1, 8, 8)), grey)
    for same in ((3, 8, 8), (None, None, None), None):
        assert fit_images(colour, same) is colour
    with pytest.raises(ValueError, match="^expected pictures of 1 channels.*colours are not turned to grey"):
        fit_images(colour, (1, 8, 8))
    with pytest.raises(ValueError, match="^expected pictures of 4 channels"):
        fit_images(colour, (4, 8, 8))
    with pytest.raises(ValueError, match="channels last"):
        fit_images(np.moveaxis(colour, 1, -1), (3, 8, 8))
    with pytest.raises(ValueError, match="^expected images of shape 5 each"):
        fit_images(colour, (5,))


def test_resizing_is_the_antialiased_bilinear_of_torch():
    torch = pytest.importorskip("torch")
    images = RNG.random((2, 3, 24, 20), dtype=np.float32)
    for height, width in ((8, 8), (7, 13), (48, 30)):
        ours = fit_images(images, (3, height, width), resize=True)
        theirs = torch.nn.functional.interpolate(torch.from_numpy(images), (height, width), mode="bilinear", antialias=True)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    plain = torch.nn.functional.interpolate(torch.from_numpy(images), (8, 8), mode="bilinear").numpy()
    assert np.abs(fit_images(images, (3, 8, 8), resize=True) - plain).max() > 0.1, "without antialiasing it is another picture"
    ones = fit_images(np.ones((1, 1, 24, 20), np.float32), (1, 7, 9), resize=True)
    assert ones.max() <= 1


def test_size_is_refused_without_leave():
    images = np.zeros((2, 1, 28, 28), np.float32)
    with pytest.raises(ValueError, match=r"^expected pictures of 32 x 32 pixels.*got 28 x 28.*--resize"):
        fit_images(images, (1, 32, 32))
    assert fit_images(images, (1, 28, None)) is images
    for undeclared in (None, (1, None, None), (5,)):
        with pytest.raises(ValueError, match="^expected a classifier that declares the size"):
            fit_images(images, undeclared, resize=True)


# Arrays


def test_the_range_is_read_from_the_type(tmp_path, digits):
    images = digits.test.images[:20]
    bytes_ = (images * 255).astype(np.uint8)
    sixteen = (images * 65535).astype(np.uint16)
    for name, array, expected in (
        ("float32", images, images),
        ("float64", images.astype(np.float64), images),
        ("float16", images.astype(np.float16), images.astype(np.float16).astype(np.float32)),
        ("uint8", bytes_, bytes_ / np.float32(255)),
        ("dark uint8", bytes_ // 255, (bytes_ // 255) / np.float32(255)),
        ("uint16", sixteen, sixteen / np.float32(65535)),
        ("big-endian", sixteen.astype(">u2"), sixteen / np.float32(65535)),
        ("Fortran", np.asfortranarray(images), images),
    ):
        np.save(tmp_path / "images.npy", array)
        read = read_images(tmp_path / "images.npy")
        assert read.images.dtype == np.float32, name
        assert np.array_equal(read.images, expected), name
        assert read.names[:2] == ("0", "1")
    for wrong in (images * 255, images - 1, np.where(images == 0, np.nan, images), (images * 9).astype(np.int64), images > 0):
        np.save(tmp_path / "images.npy", wrong)
        with pytest.raises(ValueError, match=r"^expected (images as )?floats in \[0, 1\].* in .*images.npy"):
            read_images(tmp_path / "images.npy")


def test_archives_give_images_and_labels(tmp_path, digits):
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    np.savez_compressed(tmp_path / "one.npz", pixels=images, labels=labels)
    read = read_images(tmp_path / "one.npz")
    assert np.array_equal(read.images, images)
    assert np.array_equal(read.labels, labels)
    np.savez(tmp_path / "keras.npz", x_train=images[:5], x_test=images, y_test=labels, y_soft=labels / 10)
    read = read_images(tmp_path / "keras.npz", column="x_test", label_column="y_test")
    assert np.array_equal(read.images, images)
    assert np.array_equal(read.labels, labels)
    assert read_images(tmp_path / "keras.npz", column="x_test").labels is None
    with pytest.raises(ValueError, match="^expected array images in .* got x_train, x_test, y_test, y_soft"):
        read_images(tmp_path / "keras.npz")
    with pytest.raises(ValueError, match="^expected 20 integer labels, got float64"):
        read_images(tmp_path / "keras.npz", column="x_test", label_column="y_soft")
    with pytest.raises(ValueError, match="^expected 5 integer labels"):
        read_images(tmp_path / "keras.npz", column="x_train", label_column="y_test")


def npy_header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


class Trap:
    """A pickle of it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_arrays_are_refused_in_bounded_memory(tmp_path):
    liar = npy_header((10**6, 3, 224, 224)) + bytes(1000)
    save(tmp_path / "liar.npy", liar)
    save(tmp_path / "overflow.npy", npy_header((2**40, 2**40)) + bytes(1000))
    save(tmp_path / "negative.npy", npy_header((-1, 8)) + bytes(1000))
    for name, content in (("liar", liar), ("short", npy_header((1000, 8, 8)) + bytes(1000))):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            archive.writestr("images.npy", content)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        member.write(npy_header((256 * MEBIBYTE // 64, 8, 8)))
        for _ in range(256):
            member.write(bytes(MEBIBYTE))
    np.save(tmp_path / "pickle.npy", np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    np.savez(tmp_path / "pickle.npz", images=np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    for name in ("liar.npy", "overflow.npy", "negative.npy", "liar.npz", "short.npz", "bomb.npz", "pickle.npy", "pickle.npz"):
        tracemalloc.start()
        with pytest.raises(ValueError, match="^expected .*got") as refused:
            read_images(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 4 * MEBIBYTE, name
        tracemalloc.stop()
        assert "\n" not in str(refused.value), name
    with pytest.raises(ValueError, match="^expected content that unpacks"):
        read_images(tmp_path / "bomb.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_set_that_is_too_large_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", np.zeros((10, 1, 8, 8), np.uint8))
    cells = [{"bytes": png(GREY), "path": None}] * 10
    table(tmp_path / "table.parquet", cells)
    monkeypatch.setattr(image_set, "MAX_SET_BYTES", 10 * 64 * 4)
    for name in ("images.npy", "table.parquet"):
        assert len(read_images(tmp_path / name)) == 10
    monkeypatch.setattr(image_set, "MAX_SET_BYTES", 10 * 64 * 4 - 1)
    for name in ("images.npy", "table.parquet"):
        with pytest.raises(ValueError, match="^expected images that take at most"):
            read_images(tmp_path / name)


# Tables


def test_columns_are_found_by_type_or_named(tmp_path):
    cells = [{"bytes": png(GREY), "path": "g.png"}, {"bytes": png(255 - GREY), "path": None}]
    read = read_images(table(tmp_path / "plain.parquet", cells, label=[3, 1], other=[0.5, 0.5]))
    assert np.array_equal(read.images, np.stack([unit(GREY), unit(255 - GREY)]))
    assert read.labels.tolist() == [3, 1]
    assert read.names == ("g.png", "1")
    raw = table(tmp_path / "raw.parquet", [png(GREY)] * 2, kind=["dog", "cat"])
    assert read_images(raw).labels is None
    named = read_images(raw, label_column="kind")
    assert named.labels.tolist() == [1, 0]
    assert named.class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="^expected an integer label in each row .* got 0.5"):
        read_images(tmp_path / "plain.parquet", label_column="other")
    with pytest.raises(ValueError, match="^expected column none in .*, got image, label, other"):
        read_images(tmp_path / "plain.parquet", column="none")
    with pytest.raises(ValueError, match="^expected"):
        read_images(tmp_path / "plain.parquet", column="label")
    assert read_images(table(tmp_path / "kept back.parquet", cells, label=[None, None])).labels is None
    save_with_features(tmp_path / "two.parquet", cells, fine=[0, 1], coarse=[0, 0])
    with pytest.raises(ValueError, match="^expected one label column .* fine, coarse"):
        read_images(tmp_path / "two.parquet")
    read = read_images(tmp_path / "two.parquet", label_column="fine")
    assert (read.labels.tolist(), read.class_names) == ([0, 1], ("no", "yes"))


def save_with_features(path, cells, **labels):
    features = {"image": {"_type": "Image"}} | {name: {"_type": "ClassLabel", "names": ["no", "yes"]} for name in labels}
    images = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table({"image": images, **labels}).replace_schema_metadata(metadata), path)


def test_a_path_in_a_table_is_never_opened(tmp_path):
    secret = save(tmp_path / "secret.png", png(GREY))
    with pytest.raises(ValueError, match="^expected the bytes of a picture in each row"):
        read_images(table(tmp_path / "table.parquet", [{"bytes": None, "path": str(secret)}, {"bytes": b"", "path": ""}]))


def test_a_table_of_bombs_is_refused_in_bounded_memory(tmp_path):
    bomb = png(GREY) + bytes(100 * MEBIBYTE)
    pq.write_table(pa.table({"image": pa.array([bomb])}), tmp_path / "bomb.parquet", compression="zstd")
    del bomb
    picture = png(np.zeros((99, 99), np.uint8))
    pq.write_table(pa.table({"image": pa.array([picture] * 10**6)}), tmp_path / "repeated.parquet")
    assert (tmp_path / "repeated.parquet").stat().st_size < MEBIBYTE
    for name, message in (("bomb", "content that unpacks"), ("repeated", "images that take at most 8 GiB")):
        before = pa.total_allocated_bytes()
        with pytest.raises(ValueError, match=f"^expected {message}"):
            read_images(tmp_path / f"{name}.parquet")
        assert pa.total_allocated_bytes() - before < MEBIBYTE
    save(tmp_path / "damaged.parquet", b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(ValueError, match="^expected a table of pictures"):
        read_images(tmp_path / "damaged.parquet")


def test_a_folder_of_tables_is_one_split(tmp_path):
    for index in range(2):
        cells = [{"bytes": png(np.full((4, 4), index, np.uint8)), "path": None}]
        table(tmp_path / f"test-0000{index}-of-00002.parquet", cells, label=[index])
    read = read_images(tmp_path)
    assert read.labels.tolist() == [0, 1]
    assert (read.images[:, 0, 0, 0] * 255).round().tolist() == [0, 1]
    table(tmp_path / "train-00000-of-00001.parquet", cells, label=[9])
    with pytest.raises(ValueError, match=r"^expected one split in .*, got test, train; choose one as hf:"):
        read_images(tmp_path)


# Data sets


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A data set in the hub's layout, and the libraries' cache beside it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    cells = [{"bytes": png(np.full((4, 4), index, np.uint8)), "path": f"{index}.png"} for index in range(4)]
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        save_with_features(folder / f"{split}-00000-of-00001.parquet", cells, label=[0, 1, 1, 0])
    return folder


def test_a_hub_data_set_is_the_same_as_its_table(hub_folder):
    direct = read_images(hub_folder / "test-00000-of-00001.parquet")
    for name in ("hf:mine[test]", f"hf:{hub_folder}[test]"):
        read = read_images(name)
        assert np.array_equal(read.images, direct.images)
        assert read.labels.tolist() == direct.labels.tolist() == [0, 1, 1, 0]
        assert read.class_names == direct.class_names == ("no", "yes")
        assert read.names == direct.names == ("0.png", "1.png", "2.png", "3.png")
    assert read_images("hf:mine[test[1:3]]").names == ("1.png", "2.png")
    with pytest.raises(ValueError, match=r"^expected a split of data set mine as hf:mine\[SPLIT\], got none of train, test"):
        read_images("hf:mine")
    for wrong in ("hf:mine[none]", "hf:nobody/nothing[test]", "hf:", "hf:mine[test"):
        with pytest.raises(ValueError, match="^expected .*got") as refused:
            read_images(wrong)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="^expected column none"):
        read_images("hf:mine[test]", column="none")


def test_a_hub_folder_of_pictures_may_name_only_its_own_files(hub_folder, tmp_path):
    save(hub_folder.parent / "plain" / "train" / "cat" / "a.png", png(GREY))
    save(hub_folder.parent / "plain" / "train" / "dog" / "b.png", png(GREY))
    read = read_images("hf:plain[train]")
    assert (read.labels.tolist(), read.names, read.class_names) == ([0, 1], ("a.png", "b.png"), ("cat", "dog"))
    secret = save(tmp_path / "secret.png", png(GREY))
    (hub_folder.parent / "thief").mkdir()
    save_with_features(
        hub_folder.parent / "thief" / "train-00000-of-00001.parquet", [{"bytes": None, "path": str(secret)}] * 2, label=[0, 0]
    )
    with pytest.raises(ValueError, match="^expected a picture within the data set"):
        read_images("hf:thief[train]")


@pytest.mark.skipif(not os.environ.get(DATA_VARIABLE), reason="needs the shared data")
def test_fashion_mnist_is_what_the_study_reads():
    from wobbliness.study.data import load_data

    path = Path(os.environ[DATA_VARIABLE]) / "fashion_mnist" / "test-00000-of-00001.parquet"
    if not path.is_file():
        pytest.skip("no Fashion-MNIST there")
    read, test = read_images(path), load_data("fashion_mnist").test
    assert np.array_equal(read.images, test.images)
    assert np.array_equal(read.labels, test.labels)
    assert read.class_names[1] == "Trouser"
    assert np.array_equal(read_images("hf:fashion_mnist[test[:50]]").images, test.images[:50])


# What is not there


def test_what_is_no_source_is_refused_in_one_line(tmp_path):
    save(tmp_path / "model.onnx", b"nothing")
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "empty.npy", np.zeros((0, 8, 8)))
    for name in ("none.npy", "model.onnx", "folder.npy", "pipe.png", "flat.npy", "empty.npy"):
        with pytest.raises(ValueError, match="^expected .*got") as refused:
            read_images(tmp_path / name)
        assert "\n" not in str(refused.value)
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="^expected a source with columns"):
        read_images(tmp_path / "images.npy", label_column="label")


def test_what_is_read_can_be_measured_whatever_it_was_stored_in(tmp_path, half_space):
    """The same pixels as folder, table and array give the same votes."""
    digits = RNG.integers(0, 256, (6, 8, 8), np.uint8)
    for index, image in enumerate(digits):
        save(tmp_path / "folder" / f"{index}.png", png(image))
    table(tmp_path / "table.parquet", [{"bytes": png(image), "path": None} for image in digits])
    np.save(tmp_path / "array.npy", digits)
    votes = [
        wobbliness.measure(half_space, read_images(tmp_path / name, image_shape=(1, 8, 8)).images, sigma=0.3, draws=50).counts
        for name in ("folder", "table.parquet", "array.npy")
    ]
    assert np.array_equal(votes[0], votes[1])
    assert np.array_equal(votes[0], votes[2])
    assert len({tuple(row) for row in votes[0]}) > 1
