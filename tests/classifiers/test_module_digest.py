"""The digest that decides whether a kept graph still serves a module; changes need no export."""

import enum
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import wobbliness
from wobbliness.classifiers.compile import export as compiled
from wobbliness.classifiers.compile.module_digest import module_digest

SWAPPED = False


class Mode(enum.Enum):
    PLAIN = 1
    SWAPPED = 2


@dataclass
class Settings:
    mode: Mode = Mode.PLAIN
    scales: tuple[float, ...] = (1.0, 2.0)


def helper(scores):
    return scores.flip(1) if SWAPPED else scores


class Module(nn.Module):
    """Swaps its answer where the first pixel is as bright as no clean one, if it is told to."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
        self.flag, self.settings, self.names = (
            False,
            Settings(),
            {"list": [1, 2], "set": {"a", "b"}},
        )
        self.table, self.plain = np.zeros(3, np.float32), torch.zeros(3)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)

    def forward(self, batch):
        scores = (
            helper(self.layers(batch)) * self.factor
            + self.hidden
            + self.plain
            + torch.from_numpy(self.table)
        )
        if self.flag or self.settings.mode is Mode.SWAPPED:
            return torch.where(batch.flatten(1)[:, :1] > 0.9, scores.flip(1), scores)
        return scores


def make():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Module().eval()


def other_forward(self, batch):
    return self.layers(batch).flip(1)


CHANGES = {
    "flag": lambda module, _: setattr(module, "flag", True),
    "enum in a dataclass": lambda module, _: setattr(module.settings, "mode", Mode.SWAPPED),
    "number in a tuple": lambda module, _: setattr(module.settings, "scales", (1.0, 3.0)),
    "item of a list": lambda module, _: module.names["list"].append(3),
    "member of a set": lambda module, _: module.names["set"].add("c"),
    "array": lambda module, _: module.table.__setitem__(0, 1),
    "plain tensor": lambda module, _: module.plain.add_(1),
    "buffer that is not saved": lambda module, _: module.hidden.add_(1),
    "weight": lambda module, _: module.layers[1].weight.data.neg_(),
    "layer of equal weights": lambda module, _: module.layers.__setitem__(2, nn.Sigmoid()),
    "size of a step": lambda module, _: setattr(module.layers[1], "in_features", 65),
    "forward of the instance": lambda module, _: setattr(
        module, "forward", types.MethodType(other_forward, module)
    ),
    "function as forward": lambda module, _: setattr(
        module, "forward", lambda batch: module.layers(batch).flip(1)
    ),
    "forward of the class": lambda _, patch: patch.setattr(Module, "forward", other_forward),
    "attribute of the class": lambda _, patch: patch.setattr(Module, "factor", -1.0),
    "flag of the file": lambda _, patch: patch.setitem(globals(), "SWAPPED", True),
    "function of the file": lambda _, patch: patch.setitem(globals(), "helper", torch.neg),
    "forward of a layer's class": lambda _, patch: patch.setattr(
        nn.ReLU, "forward", lambda _, values: values
    ),
    "function of torch": lambda _, patch: patch.setattr(
        nn.functional,
        "relu",
        lambda values, inplace=False: values,  # noqa: ARG005
    ),
    "hook": lambda module, _: module.layers[1].register_forward_hook(
        lambda _module, _inputs, output: -output
    ),
    "hook before": lambda module, _: module.register_forward_pre_hook(
        lambda _module, inputs: (-inputs[0],)
    ),
    "parametrised weight": lambda module, _: nn.utils.parametrizations.weight_norm(
        module.layers[1]
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_in_the_digest(name, monkeypatch):
    module = make()
    before = module_digest(module)
    assert before.is_certain
    assert module_digest(module) == before, "control"
    with torch.no_grad():
        module(torch.rand(2, 1, 8, 8))
    assert module_digest(module.train().eval()) == before, "control: running it is no change"
    CHANGES[name](module, monkeypatch)
    assert module_digest(module) != before


def test_equal_modules_have_equal_digests():
    assert module_digest(make()) == module_digest(make())
    assert module_digest(make(), (1, 8, 8)) != module_digest(make(), (1, 9, 9))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_cannot_be_read_is_not_certain():
    module = make()
    module.generator = torch.Generator()
    assert not module_digest(module).is_certain
    assert not module_digest(
        torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    ).is_certain


def test_a_module_that_contains_itself_has_a_digest():
    module = make()
    module.names["self"] = module.names
    module.names["module"] = [module]
    assert module_digest(module).is_certain


@pytest.mark.parametrize("name", ["flag", "layer of equal weights", "flag of the file"])
def test_a_changed_module_is_compiled_anew(name, images, monkeypatch):
    module, few = make(), images[:8].copy()
    few[:, :, 0, 0] = 1.0
    ran, exported = [], compiled._exported
    monkeypatch.setattr(
        compiled, "_exported", lambda *arguments: ran.append(1) or exported(*arguments)
    )
    before = [wobbliness.measure(module, few, 0.1, draws=50) for _ in range(2)][-1]
    assert len(ran) == 1
    CHANGES[name](module, monkeypatch)
    after = wobbliness.measure(module, few, 0.1, draws=50)
    eager = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=False), few, 0.1, draws=50
    )
    assert len(ran) == 2
    assert np.abs(after.counts - eager.counts).sum() <= 2
    assert not np.array_equal(after.counts, before.counts)


def test_a_declared_network_that_was_changed_is_exported_itself():
    module = make()
    compiled.declare_structure(module, "declared")
    assert compiled._structure_of(module) == "declared"
    module.layers[1].weight.data.neg_()
    assert compiled._structure_of(module) == "declared"
    module.layers[2] = nn.Sigmoid()
    assert compiled._structure_of(module) is None


def test_a_branch_for_a_patch_is_found_by_the_check():
    """An exporter that follows one branch only is found out by the images with a patch."""

    class Patched(Module):
        def forward(self, batch):
            scores = self.layers(batch)
            is_bright = batch.amax(dim=(1, 2, 3)) > 0.9
            hidden = torch.where(is_bright[:, None], scores.flip(1), scores)
            return scores if torch.compiler.is_exporting() else hidden

    module = Patched().eval()
    votes = wobbliness.measure(module, np.zeros((64, 1, 8, 8), np.float32), 0.05, draws=10)
    assert votes.execution.backend == "torch"
    assert "differ" in votes.execution.reason
