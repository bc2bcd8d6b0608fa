"""A torch module as a compiled ONNX graph, checked against the module itself."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import torch
from jaxtyping import Float32

from wobbliness.classifiers.graph_template import GraphTemplate, template_of
from wobbliness.classifiers.kept_exports import keep, recall
from wobbliness.classifiers.onnx_graph import OnnxGraph, over_blocks
from wobbliness.errors import cause_of

SCORE_TOLERANCE = 1e-4  # largest difference of scores, as a share of the largest score in the batch or of 1
Structure: TypeAlias = tuple[str, tuple[int, ...]]  # its name, and the shape of an input
EXPORT_ROWS = 2  # an axis of length 1 would be taken for a constant


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A module's graph, or the reason why there is none.

    `digest` is that of the weights and the input's shape it was made from.
    """

    digest: bytes
    graph: OnnxGraph | None
    reason: str | None


_compilations: WeakKeyDictionary[torch.nn.Module, Compilation] = WeakKeyDictionary()
_structures: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
_templates: dict[Structure, GraphTemplate | None] = {}


def declare_structure(module: torch.nn.Module, structure: str) -> None:
    """Says that all modules declared by this name compute the same, but for their numbers: one export then serves them all.

    It is kept on disk for the processes to come, so the name must change with the code of the modules.

    For modules that the caller has built himself. Nothing here could tell of a stranger's module that its code is another one's,
    and scores on a few real inputs would not show a difference that is hidden for rare ones.
    """
    _structures[module] = structure


def compile_module(module: torch.nn.Module, examples: Float32[np.ndarray, "B ..."]) -> Compilation:
    """The module as an ONNX graph (`torch.onnx`, dynamo exporter); kept for as long as its weights stay the same.

    Args:
        module: in evaluation mode, on the CPU.
        examples: real inputs; their shape but for the first axis becomes the graph's.
    """
    digest = _digest(module, examples.shape[1:])
    known = _compilations.get(module)
    if known is None or known.digest != digest:
        try:
            known = Compilation(digest=digest, graph=OnnxGraph(_export(module, examples), takes_blocks=True), reason=None)
        except Exception as error:  # the exporter raises whatever the module or the tracer does
            known = Compilation(digest=digest, graph=None, reason=f"no ONNX export: {_first_cause(error)}")
        _compilations[module] = known
    return known


def disagreement(graph: OnnxGraph, examples: Float32[np.ndarray, "B ..."], scores: Float32[np.ndarray, "B K"]) -> str | None:
    """How the graph's answer differs from the module's own scores; None where it does not.

    Scores may differ by SCORE_TOLERANCE of the largest one (at least of 1), labels only where two scores lie as close as that.

    Args:
        graph: of the module.
        examples: real inputs.
        scores: what the module gives for them.
    """
    try:
        compiled = graph.run(examples, len(examples))
    except ValueError as error:
        return str(error)
    if compiled.shape != scores.shape or not np.isfinite(scores).all():
        return f"the graph gives scores {compiled.shape} and the module {scores.shape}, or some are infinite"
    tolerance = SCORE_TOLERANCE * max(1.0, float(np.abs(scores).max()))
    difference = float(np.abs(compiled - scores).max())
    if not difference <= tolerance:
        return f"scores of the graph differ by {difference:.2g} from the module's, more than {tolerance:.2g}"
    return None


def _export(module: torch.nn.Module, examples: np.ndarray) -> bytes:
    content: bytes = over_blocks(_graph(module, examples)).SerializeToString()
    return content


def _graph(module: torch.nn.Module, examples: np.ndarray) -> onnx.ModelProto:
    """Of a module of known structure from the export of the first one, where that is possible; any other is exported itself."""
    if module not in _structures:
        return _exported(module, examples)
    key, tensors = (_structures[module], examples.shape[1:]), module.state_dict()
    if key in _templates:
        template = _templates[key]
        return _exported(module, examples) if template is None else template.filled(tensors)
    return _kept(key, tensors) or _first_of_its_structure(key, module, examples)


def _kept(key: Structure, tensors: Mapping[str, torch.Tensor]) -> onnx.ModelProto | None:
    """From the export of another process."""
    content = recall(_name_on_disk(key))
    if content is None:
        return None
    template = GraphTemplate(content=content)
    try:
        model = template.filled(tensors)
    except ValueError:
        return None
    _templates[key] = template
    return model


def _first_of_its_structure(key: Structure, module: torch.nn.Module, examples: np.ndarray) -> onnx.ModelProto:
    model = _exported(module, examples)
    template = _templates[key] = template_of(model, module.state_dict())
    if template is not None:
        keep(_name_on_disk(key), template.content)
    return model


def _name_on_disk(key: Structure) -> str:
    """With all that has a say in an export."""
    return repr((*key, EXPORT_ROWS, torch.__version__, onnx.__version__, version("onnxscript")))


def _exported(module: torch.nn.Module, examples: np.ndarray) -> onnx.ModelProto:
    rows = np.resize(examples, (EXPORT_ROWS, *examples.shape[1:]))
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(module, (torch.from_numpy(rows),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    if program is None:
        raise ValueError("the exporter gave nothing")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports the absence of torchvision, its own deprecations and whole graphs: no concern of the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _digest(module: torch.nn.Module, shape: tuple[int, ...]) -> bytes:
    digest = hashlib.blake2b(repr(shape).encode(), digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return cause_of(error)
