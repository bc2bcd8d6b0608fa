"""Images as users have them: folders of pictures, and what is fitted to a classifier."""

import os
import tracemalloc

import numpy as np
import pytest
from picture_files import COLOUR, GREY, RNG, png, save, table, unit

import wobbliness
from wobbliness import fit_images, read_images
from wobbliness.images import image_set
from wobbliness.images.fitting import Target
from wobbliness.images.stacking import stack_pictures


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


def test_fitting_is_refused_before_too_much_memory_is_taken(monkeypatch):
    images = np.zeros((10, 1, 8, 8), np.float32)
    monkeypatch.setattr(image_set, "MAX_SET_BYTES", 3 * images.nbytes)
    assert fit_images(images, (3, 8, 8)).shape == (10, 3, 8, 8)
    with pytest.raises(ValueError, match="^expected images that take at most"):
        fit_images(images, (3, 8, 9), resize=True)


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


def test_a_source_that_miscounts_its_pictures_is_refused():
    encoded = [("a", png(GREY)), ("b", png(GREY))]
    assert stack_pictures(encoded, 2, Target(), "x").shape == (2, 1, 8, 8)
    for stated in (1, 3):
        with pytest.raises(ValueError, match=f"^expected {stated} pictures in x, as it states itself, got"):
            stack_pictures(encoded, stated, Target(), "x")
