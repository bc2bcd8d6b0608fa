"""Arrays and archives as images: ranges by type, labels, hostile files."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from picture_files import GREY, MEBIBYTE, png, save, table

from wobbliness import read_images
from wobbliness.images import image_set


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
    for wrong in (
        images * 255,
        images - 1,
        np.where(images == 0, np.nan, images),
        (images * 9).astype(np.int64),
        images > 0,
    ):
        np.save(tmp_path / "images.npy", wrong)
        with pytest.raises(
            ValueError, match=r"^expected (images as )?floats in \[0, 1\].* in .*images.npy"
        ):
            read_images(tmp_path / "images.npy")


def test_archives_give_images_and_labels(tmp_path, digits):
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    np.savez_compressed(tmp_path / "one.npz", pixels=images, labels=labels)
    read = read_images(tmp_path / "one.npz")
    assert np.array_equal(read.images, images)
    assert np.array_equal(read.labels, labels)
    np.savez(
        tmp_path / "keras.npz", x_train=images[:5], x_test=images, y_test=labels, y_soft=labels / 10
    )
    read = read_images(tmp_path / "keras.npz", column="x_test", label_column="y_test")
    assert np.array_equal(read.images, images)
    assert np.array_equal(read.labels, labels)
    assert read_images(tmp_path / "keras.npz", column="x_test").labels is None
    with pytest.raises(
        ValueError, match="^expected array images in .* got x_train, x_test, y_test, y_soft"
    ):
        read_images(tmp_path / "keras.npz")
    with pytest.raises(ValueError, match="^expected 20 integer labels, got float64"):
        read_images(tmp_path / "keras.npz", column="x_test", label_column="y_soft")
    with pytest.raises(ValueError, match="^expected 5 integer labels"):
        read_images(tmp_path / "keras.npz", column="x_train", label_column="y_test")


def npy_header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
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
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(npy_header((256 * MEBIBYTE // 64, 8, 8)))
        for _ in range(256):
            member.write(bytes(MEBIBYTE))
    np.save(
        tmp_path / "pickle.npy", np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True
    )
    np.savez(
        tmp_path / "pickle.npz",
        images=np.array([Trap(tmp_path / "sprung")], object),
        allow_pickle=True,
    )
    for name in (
        "liar.npy",
        "overflow.npy",
        "negative.npy",
        "liar.npz",
        "short.npz",
        "bomb.npz",
        "pickle.npy",
        "pickle.npz",
    ):
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


def test_what_was_read_does_not_change_with_its_file(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((2, 1, 4, 4), np.float32))
    read = read_images(path)
    with path.open("r+b") as file:
        file.seek(-16, 2)
        file.write(np.ones(4, np.float32).tobytes())
    assert read.images.max() == 0
    assert read_images(path).images.max() == 1
