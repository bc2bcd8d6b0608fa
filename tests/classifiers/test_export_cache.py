"""One export serves all networks of a structure, in this process and in those to come."""

import numpy as np
import pytest
import torch

from wobbliness.classifiers.compile import cache as kept_exports
from wobbliness.classifiers.compile import export as compiled
from wobbliness.classifiers.compile.cache import FOLDER
from wobbliness.study.training import networks
from wobbliness.study.training.networks import build_network

_made = {}


@pytest.fixture
def num_exports(monkeypatch, tmp_path):
    """Counts exports; equal modules get the first one's graph, since the exporter takes seconds."""
    ran = []
    exported = compiled._exported

    def count(module, examples):
        ran.append(module)
        digest = compiled._digest(module, examples).content
        if digest not in _made:
            _made[digest] = exported(module, examples)
        return _made[digest]

    monkeypatch.setattr(compiled, "_exported", count)
    monkeypatch.setattr(compiled, "_templates", {})
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    return lambda: len(ran)


SMALL = np.random.default_rng(0).uniform(size=(4, 1, 8, 8)).astype(np.float32)


def small(seed):
    return build_network("small_cnn", (1, 8, 8), 10, seed=seed).eval()


def larger():
    return build_network("small_cnn", (1, 8, 8), 11, seed=0).eval()


def exported(network, images):
    return compiled._graph(network, images, compiled.PLAIN).SerializeToString()


def declared(seed):
    """A network of a structure that is declared, and its graph."""
    network = small(seed)
    compiled.declare_structure(network, networks.structure(network))
    return network, exported(network, SMALL)


def another_process(monkeypatch, folder=None):
    monkeypatch.setattr(compiled, "_templates", {})
    if folder is not None:
        monkeypatch.setenv(FOLDER, str(folder))


@pytest.mark.parametrize(
    ("architecture", "shape", "exports"),
    [
        ("small_cnn", (1, 8, 8), 1),
        pytest.param("large_cnn", (1, 12, 12), 1, marks=pytest.mark.scale),
        ("resnet18_width16", (3, 8, 8), 2),
    ],
)
def test_one_export_serves_modules_of_one_structure(architecture, shape, exports, num_exports):
    images = np.random.default_rng(0).uniform(size=(4, *shape)).astype(np.float32)
    pair = [build_network(architecture, shape, 10, seed=seed).eval() for seed in (0, 1)]
    own = [exported(network, images) for network in pair]
    assert num_exports() == 2
    for network in pair:
        compiled.declare_structure(network, architecture)
    assert [exported(network, images) for network in pair] == own
    # normalisation folded into the weights of a convolution: each is exported by itself
    assert num_exports() == 2 + exports


def test_an_export_serves_the_processes_to_come(num_exports, monkeypatch, tmp_path):
    first, content = declared(seed=0)
    another_process(monkeypatch)
    assert exported(first, SMALL) == content
    second, from_kept = declared(seed=1)
    assert num_exports() == 1
    another_process(monkeypatch, tmp_path / "empty")
    assert exported(second, SMALL) == from_kept
    assert num_exports() == 2
    assert len(list((tmp_path / "kept" / "graphs").iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "another's", "huge", "a folder"])
def test_a_damaged_export_is_made_again(damage, num_exports, monkeypatch, tmp_path):
    network, content = declared(seed=0)
    (path,) = (tmp_path / "kept" / "graphs").iterdir()
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "another's":
        kept_exports.store_graph("another", whole[kept_exports.SEAL_BYTES :])
        (other,) = set(path.parent.iterdir()) - {path}
        other.replace(path)
    elif damage == "huge":
        with path.open("r+b") as file:
            file.truncate(kept_exports.MAX_GRAPH_BYTES + 1)
    else:
        path.write_bytes(
            {"cut": whole[:-9], "flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "emptied": b""}[
                damage
            ]
        )
    another_process(monkeypatch)
    assert exported(network, SMALL) == content
    assert num_exports() == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing unfinished
    assert path.is_dir() or path.read_bytes() == whole


def test_a_kept_graph_of_other_shapes_is_made_again(num_exports, monkeypatch):
    network, content = declared(seed=0)
    for other in (
        b"no graph",
        compiled.template_of(compiled._exported(larger(), SMALL), larger().state_dict()).content,
    ):
        another_process(monkeypatch)
        monkeypatch.setattr(compiled, "load_graph", lambda _, kept=other: kept)
        assert exported(network, SMALL) == content
    assert num_exports() == 4


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(num_exports, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    _, content = declared(seed=0)
    another_process(monkeypatch, tmp_path / "file")
    assert declared(seed=0)[1] == content
    assert num_exports() == 2


def test_the_name_of_a_network_holds_its_layers_and_their_code(monkeypatch):
    names = {networks.structure(network) for network in (small(seed=0), small(seed=1))}
    assert len(names) == 1
    assert networks.structure(larger()) not in names
    monkeypatch.setattr(networks, "_code", lambda: "other code")
    assert networks.structure(small(seed=0)) not in names


def test_modules_of_no_declared_structure_are_exported_each(num_exports):
    images = np.zeros((2, 1, 8, 8), np.float32)
    for seed in (0, 1):
        compiled.compile_module(build_network("small_cnn", (1, 8, 8), 10, seed=seed).eval(), images)
    assert num_exports() == 2


def test_a_wrongly_declared_structure_is_noticed(num_exports):
    images = np.random.default_rng(0).uniform(size=(4, 1, 8, 8)).astype(np.float32)
    first, second = (
        build_network("small_cnn", (1, 8, 8), classes, seed=0).eval() for classes in (10, 9)
    )
    for network in (first, second):
        compiled.declare_structure(network, "the same")
    assert compiled.compile_module(first, images).graph is not None
    assert "other ones" in compiled.compile_module(second, images).reason
    third = torch.nn.Sequential(first, torch.nn.Softmax(dim=1))[:1].eval()
    compiled.declare_structure(third, "the same")
    assert "other ones" in compiled.compile_module(third, images).reason
    assert num_exports() == 1
