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
    other = datasets.load_dataset(
        str(tmp_path / "pictures"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert tuple(other.features["label"].names) == read.class_names
    theirs = {int(np.asarray(row["image"])[0, 0, 0]): row["label"] for row in other}
    ours = {
        round(float(image[0, 0, 0]) * 255): label
        for image, label in zip(read.images, read.labels.tolist(), strict=True)
    }
    assert ours == theirs


def test_class_folders_next_to_pictures_and_empty_folders_are_refused(tmp_path):
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
    with pytest.raises(
        ValueError,
        match=r"^expected pictures of one size, got 8 x 8 in .*a.png and 16 x 16 in .*b.png",
    ):
        read_images(tmp_path)
    with pytest.raises(
        ValueError, match=r"^expected pictures of 8 x 8 pixels, .* got 16 x 16 in .*b.png"
    ):
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
    assert peak < 2.5 * 1000 * 1000 * 4, (
        "of six pictures, never much more than one channel as float32 and one picture's bytes"
    )
    np.testing.assert_allclose(read.images, 200 / 255, rtol=1e-6)


def test_channels_are_changed_only_where_nothing_is_lost():
    grey, colour = unit(GREY)[None], unit(COLOUR)[None]
    assert np.array_equal(fit_images(grey, (3, 8, 8)), np.repeat(grey, 3, axis=1))
    assert np.array_equal(fit_images(np.repeat(grey, 3, axis=1), (1, None, None)), grey)
    assert np.array_equal(fit_images(grey[:, 0], (1, 8, 8)), grey)
    for same in ((3, 8, 8), (None, None, None), None):
        assert fit_images(colour, same) is colour
    with pytest.raises(
        ValueError, match="^expected pictures of 1 channels.*colours are not turned to grey"
    ):
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
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(images), (height, width), mode="bilinear", antialias=True
        )
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(images), (8, 8), mode="bilinear"
    ).numpy()
    assert np.abs(fit_images(images, (3, 8, 8), resize=True) - plain).max() > 0.1, (
        "without antialiasing it is another picture"
    )
    ones = fit_images(np.ones((1, 1, 24, 20), np.float32), (1, 7, 9), resize=True)
    assert ones.max() <= 1


def test_size_is_refused_without_leave():
    images = np.zeros((2, 1, 28, 28), np.float32)
    with pytest.raises(
        ValueError, match=r"^expected pictures of 32 x 32 pixels.*got 28 x 28.*--resize"
    ):
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
        wobbliness.measure(
            half_space,
            read_images(tmp_path / name, image_shape=(1, 8, 8)).images,
            sigma=0.3,
            draws=50,
        ).counts
        for name in ("folder", "table.parquet", "array.npy")
    ]
    assert np.array_equal(votes[0], votes[1])
    assert np.array_equal(votes[0], votes[2])
    assert len({tuple(row) for row in votes[0]}) > 1


def test_what_systems_leave_is_no_class(tmp_path):
    for name in ("cat/a.png", "dog/b.png", "cat/c.png"):
        save(tmp_path / name, png(GREY))
    expected = read_images(tmp_path)
    stray = [
        "__MACOSX",
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        ".git",
        "__pycache__",
    ]
    stray += [".ipynb_checkpoints", ".AppleDouble", "#recycle"]
    for folder in (tmp_path, tmp_path / "cat"):
        for name in stray:
            save(folder / name / "a.png", png(255 - GREY))
        for name in ("Thumbs.db", "thumbs.db", "._a.png", ".DS_Store", "desktop.ini", "Icon\r"):
            save(folder / name, b"nothing")
    for empty in ("aaa", "bbb/@eaDir", "cat/empty"):
        (tmp_path / empty).mkdir(parents=True)
    read = read_images(tmp_path)
    assert read.names == expected.names == ("cat/a.png", "cat/c.png", "dog/b.png")
    assert read.class_names == expected.class_names == ("cat", "dog")
    assert read.labels.tolist() == expected.labels.tolist() == [0, 0, 1]
    save(tmp_path / "bird" / "d.png", png(GREY))
    assert read_images(tmp_path).class_names == ("bird", "cat", "dog"), (
        "control: a folder with pictures is a class"
    )


def test_folders_in_class_folders_are_refused(tmp_path):
    """As classes they would be wrong where the outer folders are splits."""
    for name in ("train/cat/a.png", "test/cat/a.png"):
        save(tmp_path / name, png(GREY))
    with pytest.raises(
        ValueError,
        match=r"^expected pictures in class folder .*test, got folder cat in it; name a folder",
    ):
        read_images(tmp_path)
    assert read_images(tmp_path / "train").class_names == ("cat",)


ONE_PICTURE = RNG.random((3, 8, 6), dtype=np.float32)


@pytest.mark.parametrize(
    ("array", "image_shape", "resize"),
    [
        (ONE_PICTURE, (3, 8, 6), False),
        (ONE_PICTURE, (3, None, None), False),
        (ONE_PICTURE.transpose(1, 2, 0), (3, 8, 6), False),
        (ONE_PICTURE.transpose(1, 2, 0), (3, None, None), False),
        (ONE_PICTURE.transpose(1, 2, 0)[None], (3, 8, 6), False),
        (ONE_PICTURE[None], (3, 8, 6), False),
        (ONE_PICTURE, (3, 8, 6), True),
        (ONE_PICTURE.transpose(1, 2, 0), (3, 8, 6), True),
        (ONE_PICTURE.transpose(1, 2, 0)[None], (3, 8, 6), True),
    ],
)
def test_one_picture_in_an_array_is_one_picture(tmp_path, array, image_shape, resize):
    with (tmp_path / "one.NPY").open("wb") as file:
        np.save(file, array)
    read = read_images(tmp_path / "one.NPY", image_shape=image_shape, resize=resize)
    assert np.array_equal(read.images, ONE_PICTURE[None])
    with (tmp_path / "one.NPZ").open("wb") as file:
        np.savez(file, picture=array)
    read = read_images(f"{tmp_path / 'one.NPZ'}:picture", image_shape=image_shape, resize=resize)
    assert np.array_equal(read.images, ONE_PICTURE[None])


@pytest.mark.parametrize(
    ("shape", "image_shape", "resize"),
    [
        *(
            ((32, 32, 3), (1, 28, 28), True),
            ((8, 8, 4), (3, 32, 32), True),
            ((28, 28, 1), (3, 32, 32), True),
        ),
        *(((32, 32, 3), (1, None, None), False), ((32, 32, 3), (None, None, None), False)),
        *(
            ((5, 784), (1, 28, 28), True),
            ((50, 784), (1, 28, 28), True),
            ((5, 784), (3, None, None), False),
        ),
    ],
)
def test_what_may_be_one_picture_or_several_is_refused(tmp_path, shape, image_shape, resize):
    np.save(tmp_path / "a.npy", RNG.random(shape, dtype=np.float32))
    with pytest.raises(ValueError, match=r"which may be .*for one picture, array\[None"):
        read_images(tmp_path / "a.npy", image_shape=image_shape, resize=resize)


@pytest.mark.parametrize(
    ("shape", "image_shape", "resize", "found"),
    [
        ((5, 8, 3), (1, 8, 3), False, (5, 1, 8, 3)),
        ((8, 9, 9), (3, 32, 32), True, (8, 3, 32, 32)),
        ((40, 28), (1, None, None), False, (1, 1, 40, 28)),
        ((32, 30, 30), (None, None, None), False, (32, 1, 30, 30)),
    ],
)
def test_pictures_of_other_sizes_are_still_several(tmp_path, shape, image_shape, resize, found):
    np.save(tmp_path / "a.npy", RNG.random(shape, dtype=np.float32))
    assert (
        read_images(tmp_path / "a.npy", image_shape=image_shape, resize=resize).images.shape
        == found
    )


def test_arrays_of_several_pictures_stay_several(tmp_path):
    grey = RNG.random((5, 8, 6), dtype=np.float32)
    np.save(tmp_path / "grey.npy", grey)
    assert np.array_equal(
        read_images(tmp_path / "grey.npy", image_shape=(1, 8, 6)).images, grey[:, None]
    )
    assert read_images(tmp_path / "grey.npy", image_shape=(3, 8, 6)).images.shape == (5, 3, 8, 6)
    assert np.array_equal(read_images(tmp_path / "grey.npy").images, grey)
    np.save(tmp_path / "one grey.npy", grey[0])
    assert np.array_equal(
        read_images(tmp_path / "one grey.npy", image_shape=(1, 8, 6)).images, grey[:1, None]
    )
    np.savez(tmp_path / "three.npz", images=grey[:3], labels=np.arange(3))
    three = read_images(tmp_path / "three.npz", image_shape=(3, 8, 9), resize=True)
    assert three.images.shape == (3, 3, 8, 9), "as many labels as pictures"
    narrow = RNG.random((5, 8, 3), dtype=np.float32)
    np.save(tmp_path / "narrow.npy", narrow)
    assert read_images(tmp_path / "narrow.npy", image_shape=(3, 8, 3)).images.shape == (
        5,
        3,
        8,
        3,
    ), "the declared size is exact"
    np.save(tmp_path / "either.npy", RNG.random((3, 8, 3), dtype=np.float32))
    with pytest.raises(
        ValueError, match="may be the first or the last axis; add an axis for one picture"
    ):
        read_images(tmp_path / "either.npy", image_shape=(3, None, None))
    with pytest.raises(
        ValueError,
        match=r"^expected images of shape \(N, ...\), got \(3, 8, 6\), "
        r"one picture or as many grey ones",
    ):
        fit_images(ONE_PICTURE, (3, 8, 6))


def test_a_size_of_the_users_own_for_classifiers_that_declare_none(tmp_path):
    save(tmp_path / "a.png", png(GREY))
    save(tmp_path / "b.png", png(np.tile(GREY, (2, 3))))
    read = read_images(tmp_path, image_shape=(3, None, None), size=(8, 10)).images
    assert read.shape == (2, 3, 8, 10)
    assert np.array_equal(read[:1], fit_images(unit(GREY)[None], (3, 8, 10), resize=True))
    assert read_images(tmp_path, size=(8, 10)).images.shape == (2, 1, 8, 10)
    with pytest.raises(ValueError, match=r"^expected pictures of one size, .*--size HxW"):
        read_images(tmp_path, image_shape=(3, None, None))
    for image_shape, size in (
        ((3, 8, 8), (8, 10)),
        ((5,), (8, 10)),
        (None, (0, 8)),
        (None, (8, 10**6)),
    ):
        with pytest.raises(
            ValueError, match=r"^expected (no size for a classifier|a size of 1 to 8192 pixels)"
        ):
            read_images(tmp_path, image_shape=image_shape, size=size)


def test_an_array_of_an_archive_is_named_behind_a_colon(tmp_path):
    first, second = (
        RNG.random((2, 1, 4, 4), dtype=np.float32),
        RNG.random((3, 1, 4, 4), dtype=np.float32),
    )
    np.savez(tmp_path / "both.npz", clean=first, suspect=second)
    assert np.array_equal(read_images(f"{tmp_path}/both.npz:suspect").images, second)
    assert np.array_equal(read_images(tmp_path / "both.npz:clean").images, first)
    with pytest.raises(ValueError, match="^expected array none in"):
        read_images(f"{tmp_path}/both.npz:none")
    with pytest.raises(ValueError, match="^expected one column, got clean in"):
        read_images(f"{tmp_path}/both.npz:clean", column="suspect")
    with pytest.raises(ValueError, match="does not exist"):
        read_images(f"{tmp_path}/none.npz:clean")
    np.savez(tmp_path / "both.npz:clean", only=second)
    (tmp_path / "both.npz:clean.npz").rename(tmp_path / "both.npz:clean")
    with pytest.raises(ValueError, match=r"^expected images as .npy"):
        read_images(f"{tmp_path}/both.npz:clean")
    np.savez(tmp_path / "a:b.npz", only=second)
    assert np.array_equal(read_images(f"{tmp_path}/a:b.npz").images, second), (
        "an existing file goes first"
    )


def test_sources_that_are_none_say_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ending in (".npy", ".npz", ".parquet", ".png"):
        path = save(
            tmp_path / f"pointer{ending}",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        )
        with pytest.raises(ValueError, match=r"a pointer of git-lfs to it.*git lfs pull"):
            read_images(path)
        os.mkfifo(tmp_path / f"pipe{ending}")
        (tmp_path / f"device{ending}").symlink_to("/dev/zero")
        for name in ("pipe", "device"):
            said = f"^expected images, got .*{name}{ending}, a {name}, no regular file$"
            with pytest.raises(ValueError, match=said) as refused:
                read_images(tmp_path / f"{name}{ending}")
            assert "\n" not in str(refused.value)
    save(tmp_path / "pictures.ZIP", b"PK")
    with pytest.raises(ValueError, match="a packed one; unpack it first"):
        read_images("pictures.ZIP")
    table(tmp_path / "table.PARQUET", [{"bytes": png(GREY), "path": None}])
    assert len(read_images(tmp_path / "table.PARQUET")) == 1, "endings may be in capitals"


def test_a_source_that_miscounts_its_pictures_is_refused():
    encoded = [("a", png(GREY)), ("b", png(GREY))]
    assert stack_pictures(encoded, 2, Target(), "x").shape == (2, 1, 8, 8)
    for stated in (1, 3):
        with pytest.raises(
            ValueError, match=f"^expected {stated} pictures in x, as it states itself, got"
        ):
            stack_pictures(encoded, stated, Target(), "x")
