"""Data sets in local folders: read by their files alone, in the layouts that users have."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from network_access import ask_nothing
from picture_files import GREY, RNG, png, save, save_with_features, table, unit

from wobbliness import read_images

PIXELS = RNG.integers(0, 256, (6, 3, 8, 8), np.uint8)
CELLS = [
    {"bytes": png(image.transpose(1, 2, 0)), "path": f"{index}.png"}
    for index, image in enumerate(PIXELS)
]
UNIT = PIXELS / np.float32(255)

STRANGE_READMES = {
    "an address": "http://198.51.100.1/data/*.parquet",
    "the hub": "hf://datasets/someone/data/train.parquet",
    "a bucket": "s3://bucket/train.parquet",
    "a server": "ftp://198.51.100.1/train.parquet",
    "another folder": "../secret/*.parquet",
    "a path": "/etc/*.parquet",
    "a zip within an address": "zip://x.parquet::https://198.51.100.1/a.zip",
}


def readme(data_files):
    return f"---\nconfigs:\n- config_name: default\n  data_files: {data_files!r}\n---\n"


def parquet_set(folder, **files):
    folder.mkdir(parents=True)
    for name, rows in files.items():
        save_with_features(
            folder / f"{name}.parquet",
            [CELLS[row] for row in rows],
            label=[row % 2 for row in rows],
        )
    return folder


def test_a_local_data_set_asks_nobody(tmp_path):
    """Whatever its README names; the control is a name of the hub, which is asked for."""
    names, fine = [], {}
    for number, (_, data_files) in enumerate(STRANGE_READMES.items()):
        bare = tmp_path / f"bare{number}"
        bare.mkdir()
        (bare / "README.md").write_text(readme(data_files))
        full = parquet_set(tmp_path / f"full{number}", **{"test-00000-of-00001": [0, 1]})
        (full / "README.md").write_text(readme(data_files))
        fine[f"hf:{full}[test]"] = [2, 3, 8, 8]
        names.append((f"hf:{bare}[train]", f"hf:{bare}", str(bare))[number % 3])
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    in_variable = parquet_set(tmp_path / "sets" / "mine", **{"train-00000-of-00001": [0, 1, 2]})
    (in_variable / "README.md").write_text(readme("https://198.51.100.1/x.parquet"))
    fine["hf:mine[train]"] = [3, 3, 8, 8]
    names += [
        f"hf:{script}",
        f"hf:{script}/script.py",
        "hf:http://198.51.100.1/x",
        f"hf:{tmp_path}/none[train]",
    ]
    answer = ask_nothing("images", *fine, *names, WOBBLINESS_DATA=str(tmp_path / "sets"))
    assert answer["asked"] == []
    for name, shape in fine.items():
        assert answer["answers"][name] == shape, "control: what lies in the folder is read"
    for name in names:
        assert str(answer["answers"][name]).startswith("expected "), name
    assert not (tmp_path / "ran").exists()
    assert ask_nothing("images", "hf:someone/data[train]")["asked"], (
        "control: the hub is asked for its own"
    )


def test_the_studies_data_asks_nobody_either(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from wobbliness.study.training import data

    def refuse(*_, **__):
        raise AssertionError("a local folder is read by its files")

    for name in ("load_dataset", "load_dataset_builder"):
        monkeypatch.setattr(datasets, name, refuse)
    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path))
    folder = parquet_set(
        tmp_path / "fashion_mnist", **{"train-00000-of-00001": [0, 1], "test-00000-of-00001": [2]}
    )
    (folder / "README.md").write_text(readme("https://198.51.100.1/x.parquet"))
    data.require_data("fashion_mnist")
    read = data._load_split("fashion_mnist", "test")
    assert np.array_equal(read.images, UNIT[2:3])
    assert read.labels.tolist() == [0]
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(ValueError, match="^expected data set cifar10"):
        data.require_data("cifar10")


def test_splits_configurations_and_slices_are_those_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "train-00000-of-00002": [0, 1],
        "train-00001-of-00002": [2, 3],
        "test-00000-of-00001": [4, 5],
    }
    plain = parquet_set(tmp_path / "plain", **rows)
    parquet_set(tmp_path / "nested" / "data", **rows)
    parquet_set(tmp_path / "two" / "small", **rows)
    for source in (plain, tmp_path / "nested", f"{tmp_path / 'two'}:small"):
        for split in (
            "train",
            "test",
            "train[:3]",
            "train[1:3]",
            "train[-1:]",
            "train[:50%]",
            "train+test",
            "train[3:]+test[:1]",
        ):
            read = read_images(f"hf:{source}[{split}]")
            loaded = datasets.load_dataset(
                "parquet",
                data_files={
                    name: [str(file) for file in sorted(plain.glob(f"{name}-*"))]
                    for name in ("train", "test")
                },
                split=split,
                cache_dir=str(tmp_path / "cache"),
            )
            expected = [
                int(cell["path"][0])
                for cell in loaded.cast_column("image", datasets.Image(decode=False))["image"]
            ]
            assert np.array_equal(read.images, UNIT[expected]), split
            assert read.labels.tolist() == [row % 2 for row in expected]
            assert read.names == tuple(f"{row}.png" for row in expected)
    for wrong in ("none", "train[", "train[:x]", "train+none", "+", "[]"):
        with pytest.raises(ValueError, match="^expected a split of data set") as refused:
            read_images(f"hf:{plain}[{wrong}]")
        assert "\n" not in str(refused.value)
    for config in ("none", ".."):
        with pytest.raises(ValueError, match="^expected a configuration of"):
            read_images(f"hf:{plain}:{config}[train]")


def test_a_copy_of_a_hub_data_set_says_how_it_is_read(tmp_path):
    """Its tables are in folders of their own, or its pictures in those of splits beside a card."""
    tables = parquet_set(tmp_path / "ds" / "data", **{"train-00000-of-00001": range(4)}).parent
    save(tables / "README.md", readme([]).encode())
    pictures = tmp_path / "pictures"
    for name in ("train/a/0.png", "train/b/1.png", "README.md"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        save(pictures / name, CELLS[0]["bytes"])
    for folder, name in ((tables, f"hf:{tables}"), (pictures, f"hf:{pictures}[train]")):
        with pytest.raises(ValueError, match="a copy of a hub data set; read it as hf:") as refused:
            read_images(folder)
        assert str(refused.value).endswith(f"read it as hf:{folder} or hf:{folder}[SPLIT]")
        assert len(read_images(name)) in (2, 4)
    (pictures / "README.md").unlink()
    assert read_images(pictures / "train").class_names == ("a", "b")
    (tmp_path / "mixed").mkdir()
    save(tmp_path / "mixed" / "README.md", b"no data set")
    with pytest.raises(ValueError, match="expected only pictures"):
        read_images(tmp_path / "mixed")


def test_a_table_may_name_pictures_of_its_own_folder_only(tmp_path):
    folder = parquet_set(tmp_path / "set")
    save(folder / "pictures" / "a.png", png(GREY))
    secret = save(tmp_path / "secret.png", png(GREY))
    (folder / "linked.png").symlink_to(secret)
    for number, (path, match) in enumerate(
        (
            (str(secret), "within the data set"),
            ("../secret.png", "within the data set"),
            ("linked.png", "within the data set"),
        )
    ):
        thief = parquet_set(tmp_path / f"thief{number}")
        (thief / "linked.png").symlink_to(secret)
        save_with_features(
            thief / "train-00000-of-00001.parquet", [{"bytes": None, "path": path}], label=[0]
        )
        with pytest.raises(ValueError, match=match):
            read_images(f"hf:{thief}[train]")
    save_with_features(
        folder / "train-00000-of-00001.parquet",
        [{"bytes": None, "path": "pictures/a.png"}],
        label=[0],
    )
    assert np.array_equal(read_images(f"hf:{folder}[train]").images[0], unit(GREY)), "control"


def saved(folder, kind):
    datasets = pytest.importorskip("datasets")
    features = {"label": datasets.ClassLabel(names=["no", "yes"])}
    columns = {"label": [row % 2 for row in range(6)]}
    if kind == "pictures":
        features["image"], columns["image"] = datasets.Image(), CELLS
    else:
        features["image"], columns["image"] = datasets.Array3D((3, 8, 8), "uint8"), list(PIXELS)
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    made.save_to_disk(folder / "one")
    datasets.DatasetDict(
        {"train": made.select([0, 1, 2]), "test": made.select([3, 4, 5])}
    ).save_to_disk(folder / "both")
    return made


@pytest.mark.parametrize("kind", ["pictures", "arrays"])
def test_what_save_to_disk_wrote_is_read(tmp_path, kind):
    saved(tmp_path, kind)
    for name in (tmp_path / "one", f"hf:{tmp_path / 'one'}", f"hf:{tmp_path / 'one'}[train]"):
        read = read_images(name, image_shape=(3, 8, 8))
        assert np.array_equal(read.images, UNIT)
        assert (read.labels.tolist(), read.class_names) == ([0, 1, 0, 1, 0, 1], ("no", "yes"))
    assert np.array_equal(read_images(f"hf:{tmp_path / 'both'}[test]").images, UNIT[3:])
    assert np.array_equal(
        read_images(f"hf:{tmp_path / 'both'}[test[1:]+train[:1]]").images, UNIT[[4, 5, 0]]
    )
    with pytest.raises(
        ValueError,
        match=r"^expected a split of data set .*both as hf:.*both\[SPLIT\], "
        r"got none of train, test",
    ):
        read_images(tmp_path / "both")


def test_a_saved_folder_names_its_own_files_and_is_not_compressed(tmp_path):
    saved(tmp_path, "pictures")
    folder, file = tmp_path / "one", tmp_path / "one" / "data-00000-of-00001.arrow"
    state = json.loads((folder / "state.json").read_text())
    for names in (["../secret.arrow"], ["/etc/passwd"], [""], [None], "data", None):
        files = [{"filename": name} for name in names] if isinstance(names, list) else names
        (folder / "state.json").write_text(json.dumps(state | {"_data_files": files}))
        with pytest.raises(ValueError, match="^expected names of Arrow files"):
            read_images(folder)
    (folder / "state.json").write_text(json.dumps(state))
    content = pa.ipc.open_stream(file.read_bytes()).read_all()
    with (
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_stream(
            sink, content.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        ) as writer,
    ):
        writer.write_table(content)
    with pytest.raises(ValueError, match="got a compressed one"):
        read_images(folder)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content)
    assert np.array_equal(read_images(folder).images, UNIT), "control"
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="^expected ") as refused:
        read_images(folder)
    assert "\n" not in str(refused.value)
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": ["../one"]}))
    with pytest.raises(ValueError, match="^expected a list of splits"):
        read_images(f"hf:{tmp_path / 'both'}[train]")


def test_columns_of_numbers_are_images(tmp_path):
    lists = {
        "nested lists": pa.array(UNIT.tolist(), pa.list_(pa.list_(pa.list_(pa.float32())))),
        "large lists": pa.array(
            UNIT.tolist(), pa.large_list(pa.large_list(pa.large_list(pa.float64())))
        ),
        "lists of one size": pa.array(
            UNIT.tolist(), pa.list_(pa.list_(pa.list_(pa.float32(), 8), 8), 3)
        ),
        "bytes as numbers": pa.array(PIXELS.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
        "channels last": pa.array(
            UNIT.transpose(0, 2, 3, 1).tolist(), pa.list_(pa.list_(pa.list_(pa.float32())))
        ),
    }
    for kind, column in lists.items():
        path = tmp_path / f"{kind}.parquet"
        pa.parquet.write_table(pa.table({"pixels": column, "label": list(range(6))}), path)
        read = read_images(path, image_shape=(3, 8, 8))
        assert np.array_equal(read.images, UNIT), kind
        assert read.labels.tolist() == list(range(6))
    flat = pa.table({"features": pa.array(UNIT.reshape(6, -1).tolist(), pa.list_(pa.float32()))})
    pa.parquet.write_table(flat, tmp_path / "flat.parquet")
    assert np.array_equal(
        read_images(tmp_path / "flat.parquet", image_shape=(192,)).images, UNIT.reshape(6, -1)
    )
    uneven = [[[0.5, 0.5], [0.5, 0.5]], [[0.5], [0.5, 0.5]]]
    for bad, match in (
        (uneven, "lists of one length"),
        ([[[0.5, None]]], "expected numbers"),
        ([[[0.5]], None], "expected numbers"),
        ([[[0.5]], [[0.5], [0.5]]], "images of one shape"),
        ([[[7.0]]], r"floats in \[0, 1\]"),
    ):
        pa.parquet.write_table(
            pa.table({"image": pa.array(bad, pa.list_(pa.list_(pa.float32())))}),
            tmp_path / "bad.parquet",
        )
        with pytest.raises(ValueError, match=match):
            read_images(tmp_path / "bad.parquet")
    pa.parquet.write_table(
        pa.table({"a": lists["nested lists"], "b": lists["nested lists"]}), tmp_path / "two.parquet"
    )
    with pytest.raises(ValueError, match="^expected one image column"):
        read_images(tmp_path / "two.parquet")
    assert len(read_images(f"{tmp_path / 'two.parquet'}:b")) == 6


def test_runs_of_equal_numbers_and_repeated_names_are_no_bombs(tmp_path):
    zeros = pa.array([np.zeros(3 * 10**7, np.float32)], pa.list_(pa.float32()))
    pa.parquet.write_table(pa.table({"image": zeros}), tmp_path / "zeros.parquet")
    assert (tmp_path / "zeros.parquet").stat().st_size < 10**6
    with pytest.raises(ValueError, match="^expected content that unpacks to at most 100 times"):
        read_images(tmp_path / "zeros.parquet")
    long = table(tmp_path / "long.parquet", CELLS[:2], label=["x" * 10**6] * 2)
    with pytest.raises(ValueError, match="^expected names of at most 4096 letters"):
        read_images(long, label_column="label")
    assert read_images(
        table(tmp_path / "short.parquet", CELLS[:2], label=["x" * 100] * 2), label_column="label"
    ).class_names
