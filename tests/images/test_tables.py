"""Pictures in Parquet tables and hub data sets."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picture_files import GREY, MEBIBYTE, RNG, png, save, save_with_features, table, unit

from wobbliness import read_images
from wobbliness.images.columns import Columns, labels_from
from wobbliness.images.parquet_pages import unpacked_size
from wobbliness.study.training.data import DATA_VARIABLE


@pytest.mark.parametrize("label", [2**63, -(2**63), 2**64, True, 0.5, None])
def test_a_label_that_no_class_can_have_is_named(label):
    columns = Columns(image="image", label="label", class_names=None)
    with pytest.raises(ValueError, match="expected an integer label in each row of data, got"):
        labels_from([3, label], columns, "data")
    labels, _ = labels_from([3, 2**63 - 1], columns, "data")
    assert labels.tolist() == [3, 2**63 - 1]


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
    assert (
        read_images(table(tmp_path / "kept back.parquet", cells, label=[None, None])).labels is None
    )
    save_with_features(tmp_path / "two.parquet", cells, fine=[0, 1], coarse=[0, 0])
    with pytest.raises(ValueError, match="^expected one label column .* fine, coarse"):
        read_images(tmp_path / "two.parquet")
    read = read_images(tmp_path / "two.parquet", label_column="fine")
    assert (read.labels.tolist(), read.class_names) == ([0, 1], ("no", "yes"))


def test_a_table_of_two_columns_of_one_name_or_of_no_rows_is_refused(tmp_path):
    pictures = pa.array([png(GREY)] * 2)
    for columns, names, said in (
        (
            [pictures, pictures],
            ["image", "image"],
            "^expected columns of different names, got image, image$",
        ),
        ([pictures[:0]], ["image"], "^expected at least one picture, got none in"),
    ):
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "table.parquet")
        with pytest.raises(ValueError, match=said):
            read_images(tmp_path / "table.parquet")
    pq.write_table(
        pa.Table.from_arrays([pictures, pictures], ["image", "other"]), tmp_path / "table.parquet"
    )
    assert len(read_images(tmp_path / "table.parquet")) == 2


def test_a_path_in_a_table_is_never_opened(tmp_path):
    secret = save(tmp_path / "secret.png", png(GREY))
    with pytest.raises(ValueError, match="^expected the bytes of a picture in each row"):
        read_images(
            table(
                tmp_path / "table.parquet",
                [{"bytes": None, "path": str(secret)}, {"bytes": b"", "path": ""}],
            )
        )


def with_a_lying_footer(content):
    """A Parquet file whose footer claims that its one column unpacks to a few bytes."""

    def unpacked(file):
        return pq.read_metadata(io.BytesIO(file)).row_group(0).column(0).total_uncompressed_size

    zigzag, groups = 2 * unpacked(content), []
    while zigzag:
        groups.append(zigzag & 127)
        zigzag >>= 7
    stated = bytes([group | 128 for group in groups[:-1]] + groups[-1:])
    place = content.index(stated, content.index(b"schema"))
    lie = (
        content[:place]
        + bytes([0x80 | 100] + [0x80] * (len(stated) - 2) + [0])
        + content[place + len(stated) :]
    )
    assert unpacked(lie) == 50
    return lie


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_pages_unpack_to_what_an_honest_footer_says(tmp_path, compression):
    cells = [
        {"bytes": png(RNG.integers(0, 256, (8, 8), np.uint8)), "path": str(index)}
        for index in range(500)
    ]
    path = tmp_path / "table.parquet"
    for options in (
        {},
        {"use_dictionary": False, "data_page_version": "2.0"},
        {"write_statistics": False, "row_group_size": 99},
    ):
        content = pa.table({"image": cells, "label": list(range(500))})
        pq.write_table(content, path, compression=compression, data_page_size=1000, **options)
        metadata = pq.read_metadata(path)
        for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
            for chunk in (group.column(index) for index in range(group.num_columns)):
                with path.open("rb") as stream:
                    unpacked = unpacked_size(stream, chunk)
                # the footer counts the pages' headers, too
                headers = chunk.total_uncompressed_size - unpacked
                assert 0 < headers < 0.2 * chunk.total_uncompressed_size + 100


def test_a_table_of_bombs_is_refused_in_bounded_memory(tmp_path):
    bomb = png(GREY) + bytes(100 * MEBIBYTE)
    pq.write_table(
        pa.table({"image": pa.array([bomb])}), tmp_path / "bomb.parquet", compression="zstd"
    )
    del bomb
    picture = png(np.zeros((99, 99), np.uint8))
    pq.write_table(pa.table({"image": pa.array([picture] * 10**6)}), tmp_path / "repeated.parquet")
    assert (tmp_path / "repeated.parquet").stat().st_size < MEBIBYTE
    (tmp_path / "lie.parquet").write_bytes(
        with_a_lying_footer((tmp_path / "bomb.parquet").read_bytes())
    )
    bomb, repeated = "content that unpacks", "images that take at most 8 GiB"
    for name, message in (("bomb", bomb), ("lie", bomb), ("repeated", repeated)):
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
    with pytest.raises(
        ValueError, match=r"^expected one split in .*, got test, train; choose one as hf:"
    ):
        read_images(tmp_path)


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A data set in the hub's layout, and the libraries' cache next to it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    cells = [
        {"bytes": png(np.full((4, 4), index, np.uint8)), "path": f"{index}.png"}
        for index in range(4)
    ]
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
    with pytest.raises(
        ValueError,
        match=r"^expected a split of data set mine as hf:mine\[SPLIT\], got none of train, test",
    ):
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
    assert (read.labels.tolist(), read.names, read.class_names) == (
        [0, 1],
        ("a.png", "b.png"),
        ("cat", "dog"),
    )
    secret = save(tmp_path / "secret.png", png(GREY))
    (hub_folder.parent / "thief").mkdir()
    save_with_features(
        hub_folder.parent / "thief" / "train-00000-of-00001.parquet",
        [{"bytes": None, "path": str(secret)}] * 2,
        label=[0, 0],
    )
    with pytest.raises(ValueError, match="^expected a picture within the data set"):
        read_images("hf:thief[train]")


@pytest.mark.scale
@pytest.mark.skipif(not os.environ.get(DATA_VARIABLE), reason="needs the shared data")
def test_fashion_mnist_is_what_the_study_reads(fashion_mnist):
    path = Path(os.environ[DATA_VARIABLE]) / "fashion_mnist" / "test-00000-of-00001.parquet"
    if not path.is_file():
        pytest.skip("no Fashion-MNIST there")
    read, test = read_images(path), fashion_mnist.test
    assert np.array_equal(read.images, test.images)
    assert np.array_equal(read.labels, test.labels)
    assert read.class_names[1] == "Trouser"
    assert np.array_equal(read_images("hf:fashion_mnist[test[:50]]").images, test.images[:50])
