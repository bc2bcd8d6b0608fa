"""Input files and objects: what is meant is read; other errors say what to do."""

import json
import os

import numpy as np
import pytest
from model_files import CHANNELS, SIDE, make_network, save_onnx
from onnx import TensorProto, helper
from picture_files import GREY, png, save

import wobbliness
from wobbliness.cli.main import main

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder of its own; its exit code, output and error."""
    monkeypatch.chdir(tmp_path)

    def run_command(*words):
        monkeypatch.setattr("sys.argv", ["wobbliness", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run_command


@pytest.fixture
def model(tmp_path):
    import torch

    return save_onnx(make_network(), tmp_path / "m.onnx", torch.rand(2, CHANNELS, SIDE, SIDE))


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.safetensors", "m.SAFETENSORS", "m.pt"])
def test_models_that_are_pointers_pipes_or_devices_are_refused(run, tmp_path, name):
    path = save(tmp_path / name, POINTER)
    images = save(tmp_path / "a.png", png(GREY))
    code, _, error = run("measure", path, images, "--sigma", 0.1)
    assert (code, error.count("\n")) == (2, 1)
    assert "a pointer of git-lfs to it; fetch it" in error
    kinds = {"a pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero")}
    for kind, make in kinds.items():
        path.unlink()
        make(path)
        code, _, error = run("measure", path, images, "--sigma", 0.1)
        assert (code, error.count("\n")) == (2, 1)
        assert "regular file" in error
        assert f"{name}, {kind}" in error
    path.unlink()
    code, _, error = run("measure", path, images, "--sigma", 0.1)
    assert "which does not exist" in error or "No such file" in error or "--factory" in error


def test_a_pipe_of_any_name_is_called_one(run, tmp_path):
    from wobbliness.runtime.user_files import load_file

    os.mkfifo(tmp_path / "m")
    os.mkfifo(tmp_path / "m.py")
    code, _, error = run("measure", "m", save(tmp_path / "a.png", png(GREY)), "--sigma", 0.1)
    assert (code, "m, a pipe, no regular file" in error) == (2, True)
    for name, said in (("m.py", "a pipe, no regular file"), ("none.py", "which does not exist")):
        with pytest.raises(ValueError, match=said):
            load_file(tmp_path / name)


def test_weights_alone_say_that_they_need_a_factory(run, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3)}, tmp_path / "m.safetensors")
    code, _, error = run(
        "measure", "m.safetensors", save(tmp_path / "a.png", png(GREY)), "--sigma", 0.1
    )
    assert code == 2
    assert "give a --factory that makes the module of its weights" in error
    assert "'architecture'" not in error


def test_endings_may_be_in_capitals(run, tmp_path, model):
    model.rename(tmp_path / "M.ONNX")
    images = np.random.default_rng(0).integers(0, 256, (2, CHANNELS, SIDE, SIDE), np.uint8)
    np.save(tmp_path / "i.npy", images)
    (tmp_path / "i.npy").rename(tmp_path / "I.NPY")
    code, out, error = run("measure", "M.ONNX", "I.NPY", "--sigma", 0.1, "--draws", 5, "--json")
    assert code == 0, error
    assert json.loads(out)


def test_a_sticker_may_be_any_picture(run, tmp_path, model):
    from PIL import Image

    np.save(tmp_path / "i.npy", np.full((2, CHANNELS, SIDE, SIDE), 100, np.uint8))
    Image.fromarray(np.full((4, 4, CHANNELS), 255, np.uint8)).save(tmp_path / "sticker.JPG")
    save(tmp_path / "notes.txt", b"no picture")
    base = ("measure", model, "i.npy", "--sigma", 0.1, "--draws", 5)
    assert run(*base, "--trigger", "sticker.JPG")[0] == 0
    code, _, error = run(*base, "--trigger", "notes.txt")
    assert code == 2
    assert "expected a readable PNG, JPEG or WebP picture, got notes.txt" in error
    code, _, error = run(*base, "--trigger", "none.jpg")
    assert code == 2
    assert "none.jpg: No such file" in error


def test_two_arrays_of_one_archive_are_compared(run, tmp_path, model):
    rng = np.random.default_rng(0)
    clean = rng.random((24, CHANNELS, SIDE, SIDE), dtype=np.float32)
    np.savez(tmp_path / "both.npz", clean=clean, suspect=clean[::-1])
    settings = ("--sigma", 0.1, "--draws", 5)
    code, out, error = run(
        "test", model, "--clean", "both.npz:clean", "--suspect", "both.npz:suspect", *settings
    )
    assert code == 0, error
    assert out
    code, _, error = run(
        "test", model, "--clean", "both.npz:clean", "--suspect", "both.npz:none", *settings
    )
    assert (code, error.count("\n")) == (2, 1)


def test_a_size_for_models_that_declare_none(run, tmp_path):
    steps = [("GlobalAveragePool", "images", "mean"), ("GlobalMaxPool", "images", "most")]
    nodes = [helper.make_node(kind, [source], [target]) for kind, source, target in steps]
    nodes += [helper.make_node("Flatten", [name], [f"flat_{name}"]) for name in ("mean", "most")]
    nodes.append(helper.make_node("Concat", ["flat_mean", "flat_most"], ["logits"], axis=1))
    images = helper.make_tensor_value_info(
        "images", TensorProto.FLOAT, ["batch", 1, "height", "width"]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_model(
        helper.make_graph(nodes, "free", [images], [logits]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    path = tmp_path / "free.onnx"
    path.write_bytes(graph.SerializeToString())
    save(tmp_path / "pictures" / "a.png", png(GREY))
    save(tmp_path / "pictures" / "b.png", png(np.tile(GREY, (2, 3))))
    base = ("measure", path, "pictures", "--sigma", 0.1, "--draws", 5)
    assert run(*base, "--size", "8x10")[0] == 0
    for words in (
        (),
        ("--resize",),
        ("--size", "wide"),
        ("--size", "8"),
        ("--size", "0x8"),
        ("--size", "99999x8"),
    ):
        code, _, error = run(*base, *words)
        assert (code, error.count("\n")) == (2, 1), words
        assert "size" in error


class Sequence:
    """As a data set of torch: length and items, no array."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((1, 8, 8), np.float32), index


def test_what_leads_to_images_says_how_to_get_them(half_space):
    import torch
    from PIL import Image

    images = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    expected = wobbliness.measure(half_space, images, 0.1, draws=5).counts
    for several in (list(images), tuple(images), [torch.from_numpy(image) for image in images]):
        assert np.array_equal(
            wobbliness.measure(half_space, several, 0.1, draws=5).counts, expected
        ), "a list of equal arrays"
    loader = torch.utils.data.DataLoader(Sequence(), batch_size=2)
    pictures = [Image.fromarray(GREY)] * 2
    for strange in (
        Sequence(),
        loader,
        iter(images),
        (image for image in images),
        {"image": images},
        pictures,
        "images.npy",
        None,
    ):
        with pytest.raises(
            ValueError, match=r"^expected (images as one array|arrays or tensors).*np.stack\(list\)"
        ) as refused:
            wobbliness.measure(half_space, strange, 0.1, draws=5)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="^expected images of one shape"):
        wobbliness.measure(half_space, [images[0], images[1, :, :4]], 0.1, draws=5)
