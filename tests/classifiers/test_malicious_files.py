"""Malicious model files: each is refused in one line, runs no code and takes little memory."""

import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from malicious_files import edit_program, nodes_of, refuse, rewritten
from model_files import save_exported, save_vit
from onnx import TensorProto, helper
from onnx_graphs import OPSETS, constant, graph_file
from safetensors.torch import save_file

import wobbliness
from wobbliness.classifiers.untrusted import file_kind as model_file
from wobbliness.classifiers.untrusted import onnx_content as onnx_checks
from wobbliness.classifiers.untrusted.file_kind import file_kind
from wobbliness.cli import main as cli
from wobbliness.study.cells.cleanse import load_candidates
from wobbliness.study.cells.universal import load_universal
from wobbliness.study.training.saved_networks import load_network


class Command:
    """A pickle of it creates a folder when it is opened."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (os.mkdir, (str(self.proof),))


@pytest.fixture
def proof(tmp_path):
    """A file that exists if a stranger's code was run."""
    path = tmp_path / "code was run"
    yield path
    assert not path.exists(), "code was run"


PICKLES = {
    "model.pkl": lambda bad: pickle.dumps(bad),
    "model.pt": lambda bad: torch_saved(bad),
    "model.pth": lambda bad: pickle.dumps(bad, protocol=0),
    "model.joblib": lambda bad: pickle.dumps(bad),
    "model.bin": lambda bad: torch_saved({"weight": bad}),
    "model.onnx": lambda bad: pickle.dumps(bad),
    "zip.onnx": lambda bad: torch_saved(bad),
    "model.pt2": lambda bad: torch_saved(bad),
    "model.safetensors": lambda bad: pickle.dumps(bad),
    "model": lambda bad: pickle.dumps(bad),
}


def torch_saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("name", PICKLES)
def test_no_pickle_is_opened_whatever_its_name(name, tmp_path, proof):
    path = tmp_path / name
    path.write_bytes(PICKLES[name](Command(proof)))
    refuse(path, "can run any code when it is opened")


def test_the_pickle_does_harm_when_it_is_trusted(tmp_path):
    """Control of the tests above: the warning comes first, then the code runs."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Command(tmp_path / "code was run")))
    with (
        pytest.warns(UserWarning, match="runs whatever code"),
        pytest.raises(ValueError, match="expected"),
    ):
        wobbliness.open_classifier(tmp_path / "model.pkl", trust_pickle=True)
    assert (tmp_path / "code was run").exists()


def test_the_command_line_refuses_and_warns_in_one_line(tmp_path, monkeypatch, capsys, images):
    torch.save(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), tmp_path / "model.pt"
    )
    np.save(tmp_path / "images.npy", images[:2])
    for extra, code, start in (
        ([], 2, "error: expected a model that runs no code"),
        (["--trust-pickle"], 0, "warning: opening"),
    ):
        arguments = [
            "measure",
            tmp_path / "model.pt",
            tmp_path / "images.npy",
            "--sigma",
            0.1,
            "--draws",
            5,
            *extra,
        ]
        monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        err = capsys.readouterr().err
        assert (stopped.value.code or 0, err.count("\n")) == (code, 1)
        assert err.startswith(start)


def external(location, dims=(64, 3), **entries):
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


LINEAR = [
    helper.make_node("Flatten", ["x"], ["flat"]),
    helper.make_node("MatMul", ["flat", "w"], ["y"]),
]


def test_external_data_stays_in_its_folder(tmp_path):
    """A good file opens; the same file outside, by an absolute path or through a link does not."""
    folder = tmp_path / "model"
    folder.mkdir()
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    for place in (folder, tmp_path):
        (place / "w.bin").write_bytes(weights.tobytes())
    os.symlink(tmp_path / "w.bin", folder / "link.bin")
    path = folder / "m.onnx"
    classifier = wobbliness.open_classifier(graph_file(path, LINEAR, [external("w.bin")]))
    images = np.random.default_rng(1).uniform(size=(5, 1, 8, 8)).astype(np.float32)
    assert np.array_equal(
        classifier.classify(images, 5), (images.reshape(5, 64) @ weights).argmax(axis=1)
    ), "control"
    outside = [
        "../w.bin",
        str(tmp_path / "w.bin"),
        "link.bin",
        "",
        "none.bin",
        "*/_ORT_MEM_ADDR_/*",
        "/etc/passwd",
        ".",
    ]
    for location in outside:
        refuse(graph_file(path, LINEAR, [external(location)]), "own folder")
    refuse(
        graph_file(path, LINEAR, [external("none.bin")]),
        "'none.bin', which does not exist; the weights are in that file",
    )
    for entries in ({"offset": 8}, {"length": 10**12}, {"offset": -8}, {"length": 4}):
        refuse(graph_file(path, LINEAR, [external("w.bin", **entries)]), "external data")
    refuse(graph_file(path, LINEAR, [external("w.bin", dims=(2**40, 3))]), "external data")


@pytest.fixture
def hub_cache(tmp_path):
    """A model of the hub's cache (links into `blobs`), its weights, and a function that links."""
    cache = tmp_path / "models--x--y"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0a1b" / "onnx"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    (blobs / "bb").write_bytes(weights.tobytes())
    (tmp_path / "outside.bin").write_bytes(weights.tobytes())
    (snapshot / "weights.bin").write_bytes(weights.tobytes())
    os.symlink("../../../blobs/bb", snapshot / "model.onnx_data")
    os.symlink(tmp_path / "outside.bin", snapshot / "out.bin")
    os.symlink(tmp_path / "outside.bin", blobs / "cc")
    os.symlink("../../../blobs/cc", snapshot / "far.bin")
    os.symlink("../../../blobs/aa", snapshot / "model.onnx")
    return snapshot, weights


def test_external_data_of_the_hubs_cache_is_a_link_in_it(hub_cache, tmp_path):
    snapshot, weights = hub_cache
    blob, images = (
        snapshot.parents[2] / "blobs" / "aa",
        np.random.default_rng(1).uniform(size=(5, 1, 8, 8)).astype(np.float32),
    )
    for name in ("model.onnx_data", "weights.bin"):
        graph_file(blob, LINEAR, [external(name)])
        classifier = wobbliness.open_classifier(snapshot / "model.onnx")
        assert np.array_equal(
            classifier.classify(images, 5), (images.reshape(5, 64) @ weights).argmax(axis=1)
        )
    for name in (
        "out.bin",
        "far.bin",
        "../../../blobs/bb",
        "../../../../outside.bin",
        str(tmp_path / "outside.bin"),
    ):
        graph_file(blob, LINEAR, [external(name)])
        refuse(snapshot / "model.onnx", "own folder")
    refuse(graph_file(snapshot / "plain.onnx", LINEAR, [external("model.onnx_data")]), "own folder")


HUGE = constant("huge", np.array([2**20, 2**12]))
BOMBS = {
    "ConstantOfShape": ([helper.make_node("ConstantOfShape", ["huge"], ["big"])], [HUGE]),
    "Expand": (
        [helper.make_node("Expand", ["one", "huge"], ["big"])],
        [HUGE, constant("one", np.ones((1, 1), np.float32))],
    ),
    "Tile": (
        [helper.make_node("Tile", ["one", "huge"], ["big"])],
        [HUGE, constant("one", np.ones((1, 1), np.float32))],
    ),
    "RandomNormal": ([helper.make_node("RandomNormal", [], ["big"], shape=[2**20, 2**12])], []),
    "Range": (
        [helper.make_node("Range", ["a", "b", "c"], ["big"])],
        [constant(name, np.array(value)) for name, value in (("a", 0), ("b", 2**40), ("c", 1))],
    ),
    "doubling": (
        [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(40)],
        [],
    ),
    "outer product": (
        [
            helper.make_node("ConstantOfShape", ["long"], ["a"]),
            helper.make_node("Einsum", ["a", "a"], ["big"], equation="i,j->ij"),
        ],
        [constant("long", np.array([10**6]))],
    ),
    "unknown size": (
        [
            helper.make_node("NonZero", ["x"], ["where"]),
            helper.make_node("ReduceSum", ["where"], ["sum"], keepdims=0),
            helper.make_node("Reshape", ["sum", "minus"], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["big"]),
        ],
        [constant("minus", np.array([-1]))],
    ),
    "many constants": (
        [helper.make_node("ConstantOfShape", ["large"], [f"big{i}"]) for i in range(50)],
        [constant("large", np.array([2**22]))],
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_graphs_that_make_too_much_are_refused(name, tmp_path):
    nodes, tensors = BOMBS[name]
    first = [helper.make_node("Identity", ["x"], ["v0"])]
    last = [helper.make_node("Flatten", ["x"], ["y"])]
    refuse(
        graph_file(tmp_path / "m.onnx", [*first, *nodes, *last], tensors),
        "expected (steps|a graph|sizes)",
    )


def test_modest_constants_are_let_through(tmp_path):
    """Control of the test above: an expanded token, as in a vision transformer, and a padding."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["size"], axis=0),
        helper.make_node("Expand", ["token", "size"], ["tokens"]),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Concat", ["flat", "tokens"], ["y"], axis=1),
    ]
    tensors = [
        constant(name, np.array([value])) for name, value in (("zero", 0), ("one", 1), ("rest", 3))
    ]
    tensors.append(constant("token", np.ones((1, 3), np.float32)))
    classifier = wobbliness.open_classifier(graph_file(tmp_path / "m.onnx", nodes, tensors))
    assert classifier.classify(np.zeros((4, 1, 8, 8), np.float32), 4).tolist() == [64] * 4


def test_tensors_larger_than_the_file_are_refused(tmp_path):
    for tensor in (
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 3], raw_data=b"\0" * 12),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 3]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-64, 3], raw_data=b"\0" * 12),
        TensorProto(name="w", data_type=77, dims=[64, 3], raw_data=b"\0" * 12),
    ):
        refuse(graph_file(tmp_path / "m.onnx", LINEAR, [tensor]), "expected (a tensor|tensors)")
        inside = helper.make_node("Constant", [], ["w"])
        inside.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
        refuse(graph_file(tmp_path / "m.onnx", [inside, *LINEAR]), "expected (a tensor|tensors)")


def test_custom_operators_are_refused_but_functions_are_not(tmp_path):
    path, call = tmp_path / "m.onnx", helper.make_node("Run", ["x"], ["y"], domain="evil")
    refuse(graph_file(path, [call], domains=["evil"]), "custom operator evil::Run")
    context = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    refuse(
        graph_file(path, [context], domains=["com.microsoft"]),
        "custom operator com.microsoft::EPContext",
    )
    branch = helper.make_graph(
        [call], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    hidden = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    refuse(graph_file(path, [hidden], [yes], domains=["evil"]), "custom operator")
    body = [helper.make_node("Flatten", ["x"], ["y"])]
    good = helper.make_function("evil", "Run", ["x"], ["y"], body, OPSETS)
    wobbliness.open_classifier(graph_file(path, [call], domains=["evil"], functions=[good]))


def test_an_input_without_a_batch_is_refused(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for shape in ((), (3,)):
        refuse(graph_file(tmp_path / "m.onnx", nodes, shape=shape), "one float input")


def test_functions_that_explode_are_refused(tmp_path):
    opsets = [*OPSETS, helper.make_opsetid("own", 1)]

    def function(name, callee):
        body = [
            *(
                helper.make_node(
                    callee, [f"t{i}"], [f"t{i + 1}"], domain="own" if callee != "Relu" else ""
                )
                for i in range(10)
            ),
            helper.make_node("Identity", ["t10"], ["y"]),
        ]
        return helper.make_function("own", name, ["t0"], ["y"], body, opsets)

    functions = [function("f0", "Relu"), *(function(f"f{i}", f"f{i - 1}") for i in range(1, 9))]
    call = helper.make_node("f8", ["x"], ["y"], domain="own")
    refuse(
        graph_file(tmp_path / "m.onnx", [call], domains=["own"], functions=functions),
        "when its functions are written out",
    )
    circle = [function("f8", "f8")]
    refuse(
        graph_file(tmp_path / "m.onnx", [call], domains=["own"], functions=circle),
        "do not call themselves",
    )


def test_large_files_are_refused_unread(tmp_path, monkeypatch):
    for name in ("m.onnx", "m.safetensors", "m.pt2"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(model_file.MAX_FILE_BYTES + 1)  # sparse: takes no room on the disk
        refuse(tmp_path / name, "at most")
    monkeypatch.setattr(onnx_checks, "MAX_FILE_BYTES", 100)
    (tmp_path / "w.bin").write_bytes(b"\0" * 768)
    refuse(
        graph_file(tmp_path / "m.onnx", LINEAR, [external("w.bin")]),
        "external data of at most 100 bytes",
    )


def header(content, length=None):
    text = json.dumps(content).encode() if not isinstance(content, bytes) else content
    return struct.pack("<Q", len(text) if length is None else length) + text


LYING_HEADERS = {
    "length beyond the file": header({}, length=2**40),
    "length of all bits": header({}, length=2**64 - 1),
    "offsets beyond the file": header(
        {"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}
    ),
    "shape beyond the offsets": header(
        {"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 4]}}
    )
    + b"\0" * 4,
    "shape that overflows": header(
        {"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}
    ),
    "offsets that overlap": header(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("v", "w")},
    )
    + b"\0" * 4,
    "no document": header(b"{ nothing"),
    "empty file": b"",
}


@pytest.mark.parametrize("name", LYING_HEADERS)
def test_safetensors_headers_that_lie_are_refused(name, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(LYING_HEADERS[name])
    refuse(path, "safetensors", factory="collections:OrderedDict")
    with pytest.raises(ValueError, match="expected a network file"):
        load_network(path)
    with pytest.raises(ValueError, match="expected the file of a universal perturbation"):
        load_universal(path)
    with pytest.raises(ValueError, match="expected the file of candidates"):
        load_candidates(path, "first")


@pytest.mark.parametrize("facts", ["[]", "{}", "[" * 10_000, '{"norm": 2.0, "unknown": 1}'])
def test_a_perturbation_without_its_facts_is_refused(tmp_path, facts):
    save_file({"values": torch.zeros(1, 4, 4)}, tmp_path / "m.safetensors", {"facts": facts})
    with pytest.raises(ValueError, match="expected the file of a universal perturbation"):
        load_universal(tmp_path / "m.safetensors")


@pytest.mark.parametrize("shape", ["null", "[]", '["a", 8, 8]', "[" * 10_000, f"[1, 8, {10**400}]"])
def test_a_study_network_of_no_shape_is_refused(tmp_path, shape):
    header = {"architecture": "small_cnn", "image_shape": shape, "num_classes": "10"}
    save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors", header)
    with pytest.raises(ValueError, match="expected a network file"):
        load_network(tmp_path / "m.safetensors")


def test_a_study_network_that_lies_about_its_size_is_refused(tmp_path):
    save_file(
        {"1.weight": torch.zeros(32, 1, 3, 3)},
        tmp_path / "m.safetensors",
        {"architecture": "large_cnn", "image_shape": "[1, 200000, 200000]", "num_classes": "10"},
    )
    with pytest.raises(ValueError, match="expected a network file"):
        load_network(tmp_path / "m.safetensors")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 3)
    ).eval()
    return save_exported(
        module, tmp_path_factory.mktemp("archive") / "good.pt2", torch.rand(2, 1, 8, 8)
    )


def edit_config(kind, change):
    def edit(contents):
        name = f"data/{kind}/model_{kind}_config.json"
        config = json.loads(contents[name])
        change(config["config"], contents)
        contents[name] = json.dumps(config).encode()

    return edit


def call_system(program):
    command = [{"name": "command", "arg": {"as_string": "touch x"}, "kind": 1}]
    nodes_of(program).insert(
        0, {**nodes_of(program)[0], "target": "torch.os.system", "inputs": command}
    )


def read_file(program):
    nodes_of(program)[0]["target"] = "torch.ops.aten.from_file.default"


def size_that_runs(proof):
    expression = f"__import__('pathlib').Path({str(proof)!r}).touch()"

    def change(program):
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = expression

    return change


def name_that_runs(proof):
    def change(program):
        text = json.dumps(program).replace(
            '"relu"', json.dumps(f"relu = open({str(proof)!r}, 'w')\n    x")
        )
        program.update(json.loads(text))

    return change


def pickled_weight(proof):
    def change(config, contents):
        first = next(iter(config.values()))
        first["use_pickle"] = True
        contents[f"data/weights/{first['path_name']}"] = pickle.dumps(Command(proof))

    return change


def opaque_constant(proof):
    def change(config, contents):
        config["c"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        contents["data/constants/opaque_obj_0"] = pickle.dumps(Command(proof))

    return change


def huge_weight(config, contents):
    first = next(iter(config.values()))
    contents[f"data/weights/{first['path_name']}"] = b""
    first["tensor_meta"]["sizes"] = [{"as_int": 2**40}]


def library(contents):
    contents["data/aotinductor/model/model.so"] = b"\x7fELF"


def subgraph(program):
    nodes_of(program)[0]["inputs"].append(
        {"name": "g", "arg": {"as_graph": {"name": "g", "graph": {}}}, "kind": 1}
    )


HOSTILE_ARCHIVES = {
    "operator outside aten": lambda _: edit_program(call_system),
    "file that is read": lambda _: edit_program(read_file),
    "graph in a graph": lambda _: edit_program(subgraph),
    "size that runs": lambda proof: edit_program(size_that_runs(proof)),
    "name that runs": lambda proof: edit_program(name_that_runs(proof)),
    "pickled weight": lambda proof: edit_config("weights", pickled_weight(proof)),
    "opaque constant": lambda proof: edit_config("constants", opaque_constant(proof)),
    "weight of nothing": lambda _: edit_config("weights", huge_weight),
    "library": lambda _: library,
    "no program": lambda _: lambda contents: contents.pop("models/model.json"),
    "broken program": lambda _: lambda contents: contents.update({"models/model.json": b"{"}),
    "program of nothing": lambda _: lambda contents: contents.update({"models/model.json": b"[]"}),
}


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_archives_that_could_run_code_are_refused(name, archive, tmp_path, proof):
    path = rewritten(archive, tmp_path / "m.pt2", HOSTILE_ARCHIVES[name](proof))
    refuse(path, "expected")


@pytest.mark.parametrize("name", ["size that runs", "pickled weight", "opaque constant"])
def test_torch_itself_runs_the_code_of_archives(name, archive, tmp_path):
    """Control of the test above: why archives are checked at all."""
    done = tmp_path / "code was run"
    path = rewritten(archive, tmp_path / "m.pt2", HOSTILE_ARCHIVES[name](done))
    with pytest.warns(UserWarning, match="runs whatever code"), contextlib.suppress(ValueError):
        wobbliness.open_classifier(path, trust_pickle=True)
    assert done.exists()


def test_sample_inputs_and_guards_are_never_looked_at(archive, tmp_path, proof):
    """torch.export.load unpickles one and evaluates the other; both are no part of the answer."""

    def change(contents):
        contents["data/sample_inputs/model.pt"] = torch_saved((Command(proof),))
        edit_program(lambda program: program["guards_code"].append(f"open({str(proof)!r}, 'w')"))(
            contents
        )

    classifier = wobbliness.open_classifier(rewritten(archive, tmp_path / "m.pt2", change))
    images = np.random.default_rng(0).uniform(size=(6, 1, 8, 8)).astype(np.float32)
    assert np.array_equal(
        classifier.classify(images, 6), wobbliness.open_classifier(archive).classify(images, 6)
    )


def test_torch_itself_runs_the_sample_inputs(archive, tmp_path):
    """Control of the test above: why archives are checked at all."""
    bad = torch_saved((Command(tmp_path / "code was run"),))
    path = rewritten(
        archive,
        tmp_path / "m.pt2",
        lambda contents: contents.update({"data/sample_inputs/model.pt": bad}),
    )
    with (
        pytest.warns(UserWarning, match="runs whatever code"),
        pytest.raises(ValueError, match="expected"),
    ):
        wobbliness.open_classifier(path, trust_pickle=True)
    assert (tmp_path / "code was run").exists()


def test_decompression_bombs_are_refused(archive, tmp_path):
    def inflate(contents):
        contents["data/weights/weight_0"] = bytes(2**27)

    path = rewritten(archive, tmp_path / "m.pt2", inflate, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refuse(path, "without compression")


@pytest.mark.parametrize("error", [EOFError, IndexError, NotImplementedError])
def test_whatever_reading_an_archive_raises_is_one_line(archive, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "read", fail)
    refuse(archive, "expected a readable archive")


def test_archives_whose_steps_are_too_large_are_refused(tmp_path):
    class Large(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3] + torch.zeros(2**16, 2**16).sum()

    refuse(save_exported(Large(), tmp_path / "m.pt2", torch.rand(2, 1, 8, 8)), "steps of at most")


def test_hub_folders_with_code_pickles_or_lies_are_refused(tmp_path, proof):
    folder = save_vit(tmp_path / "vit")
    wobbliness.open_classifier(folder)
    good = json.loads((folder / "config.json").read_text())
    for change, match in (
        (
            {"auto_map": {"AutoModelForImageClassification": "code.Model"}, "model_type": "own"},
            "needs no code",
        ),
        ({"hidden_size": 2**20, "intermediate_size": 2**20}, "as the configuration says"),
        ({"attn_implementation": "someone/kernel"}, "comes with transformers"),
        (
            {"num_labels": 7, "id2label": {str(index): "x" for index in range(7)}, "label2id": {}},
            "expected",
        ),
        ({"model_type": "gpt2"}, "expected"),
    ):
        (folder / "config.json").write_text(json.dumps({**good, **change}))
        (folder / "code.py").write_text(f"open({str(proof)!r}, 'w')\n")
        refuse(folder, match)
    (folder / "config.json").write_text(json.dumps(good))
    wobbliness.open_classifier(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(torch_saved({"w": Command(proof)}))
    refuse(folder, "expected weights as safetensors")
    (folder / "part.safetensors").write_bytes(header({}))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "pytorch_model.bin"}})
    )
    refuse(folder, "other files")


def test_kinds_are_told_without_unpacking(tmp_path, archive):
    assert file_kind(archive) == "exported program"
    path = tmp_path / "like a pickle.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"x": "y" * (0x280 - 64)})
    content = path.read_bytes()
    padding = 0x280 - struct.unpack("<Q", content[:8])[0]
    path.write_bytes(struct.pack("<Q", 0x280) + content[8:-4] + b" " * padding + content[-4:])
    assert path.read_bytes()[:2] == b"\x80\x02", "as pickles of protocol 2 begin"
    assert file_kind(path) == "safetensors"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_graph_is_refused_under_a_memory_limit(tmp_path):
    """In a process that may take 1 GiB beyond its libraries: the bomb would take 16 GiB."""
    nodes, tensors = BOMBS["ConstantOfShape"]
    path = graph_file(
        tmp_path / "m.onnx", [*nodes, helper.make_node("Flatten", ["x"], ["y"])], tensors
    )
    script = (
        "import resource, sys, wobbliness, wobbliness.classifiers.onnx\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n    wobbliness.open_classifier(sys.argv[1])\n"
        "except ValueError as error:\n    print('refused:', error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("refused: expected steps of at most")
