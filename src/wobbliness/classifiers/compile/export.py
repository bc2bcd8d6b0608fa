"""The export of a torch module to an ONNX graph, compared with the module itself."""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import get_ident
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import torch
from jaxtyping import Shaped

from wobbliness.classifiers.compile.cache import load_graph, store_graph
from wobbliness.classifiers.compile.gates import LOOKED_AT, gated_model
from wobbliness.classifiers.compile.graph import OnnxGraph, over_blocks
from wobbliness.classifiers.compile.module_digest import ModuleDigest, module_digest
from wobbliness.classifiers.compile.template import GraphTemplate, template_of
from wobbliness.classifiers.signature.module_outputs import OneOutput, Reading
from wobbliness.classifiers.untrusted.onnx_sorted import sorts_scores
from wobbliness.perturbations.network.gated_nodes import GatedNodes, NodeKind
from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.process_state import borrowed_state, quiet_thread

# Largest difference of scores, as a share of the largest score in the batch or of 1: other kernels
# sum in another order, and float32 has seven digits.
SCORE_TOLERANCE = 1e-4
# Its name, and the shape of an input.
Structure: TypeAlias = tuple[str, tuple[int, ...]]
# Of another number than those that a graph is checked with.
FEW_EXAMPLES = 3
# An axis of length 1 would be taken for a constant.
EXPORT_ROWS = 2
PLAIN = Reading()
# Objects in a list of a module that are looked at; longer lists are data.
MAX_REFERENCES = 10_000
# The tables of a module that an exporter changes.
TABLES = ("_parameters", "_buffers", "_modules")
# Packages that log while a module is exported.
EXPORTERS = ("torch", "onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A module's graph, or the reason why there is none.

    Attributes:
        digest: of the module and the input's shape it was made from.
        graph: None where there is none.
        reason: why there is none.
        sorts: whether the graph's steps sort its scores.
        network: the graph's content, without the loop over blocks; None where it is not kept.
    """

    digest: ModuleDigest
    graph: OnnxGraph | None
    reason: str | None
    sorts: bool = False
    network: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class GatedGraph:
    """A module's graph with gates, for rows, and the number of gates in each."""

    nodes: GatedNodes
    graph: OnnxGraph
    num_gates: int


@dataclass(frozen=True, kw_only=True)
class Gateable:
    """A module's graph before it is opened, with what its batch normalisations give.

    Attributes:
        digest: of the module and the input's shape it was made from.
        model: the graph.
        batch_norms: names of their outputs; the exporter folds them into convolutions, whose
            outputs then have these names.
        graphs: with gates, the last one of each kind of nodes.
    """

    digest: ModuleDigest
    model: onnx.ModelProto
    batch_norms: tuple[str, ...]
    graphs: dict[NodeKind, GatedGraph] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A declared structure: its name, and the module's digest without its numbers at that time."""

    name: str
    digest: ModuleDigest


# By module, as long as it is there: weak keys let go of modules that nobody else holds.
_compilations: WeakKeyDictionary[torch.nn.Module, Compilation] = WeakKeyDictionary()
_gateables: WeakKeyDictionary[torch.nn.Module, Gateable] = WeakKeyDictionary()
_structures: WeakKeyDictionary[torch.nn.Module, Declared] = WeakKeyDictionary()
# For all modules of a structure; None where the exporter folds tensors into each other.
_templates: dict[Structure, GraphTemplate | None] = {}


def declare_structure(module: torch.nn.Module, structure: str) -> None:
    """Declares that all modules of this structure compute the same except for their numbers.

    One export then serves them all.

    The export is stored on disk for later processes, so the name must change with the code of the
    modules.

    Only for modules that the caller has built. Different code in a module from elsewhere would not
    be noticed here, and scores of a few real inputs would not show a difference on rare ones.
    """
    _structures[module] = Declared(name=structure, digest=module_digest(module, with_tensors=False))


def compile_module(
    module: torch.nn.Module,
    examples: Shaped[np.ndarray, "B ..."],
    reading: Reading = PLAIN,
    check: Callable[[], object] | None = None,
    *,
    keep_network: bool = False,
) -> Compilation:
    """Exports the module as an ONNX graph (`torch.onnx`, dynamo exporter).

    The graph is kept as long as the module's digest stays the same.

    A graph is not kept where the digest does not cover all that the module computes with.

    Args:
        module: in evaluation mode, on the CPU.
        examples: real inputs; their type, and their shape except the first axis, become the
            graph's.
        reading: how scores are read from the module's answers.
        check: called after a graph was made; the graph is kept unless it raises an error.
        keep_network: whether to keep the graph's content as well, as large as the weights.
    """
    with borrowed_state():
        digest = _digest(module, examples, reading)
        known = _compilations.get(module)
        if (
            known is None
            or known.digest != digest
            or not _is_kept(known)
            or (keep_network and known.graph is not None and known.network is None)
        ):
            known = _compilation(digest, module, examples, reading, keep_network=keep_network)
            if check is not None and known.graph is not None:
                check()
            _compilations[module] = known
        return known


def compile_gated(
    module: torch.nn.Module,
    examples: Shaped[np.ndarray, "B ..."],
    nodes: GatedNodes,
    reading: Reading = PLAIN,
    check: Callable[[], object] | None = None,
) -> GatedGraph:
    """Exports the module as an ONNX graph with gates, and keeps it as `compile_module` does.

    Args:
        module: in evaluation mode, on the CPU.
        examples: real inputs.
        nodes: which nodes get a gate.
        reading: how scores are read from the module's answers.
        check: called after an export, which is kept unless it raises an error.

    Raises:
        ValueError: the module cannot be exported, or its graph has none, or too few, of the nodes.
    """
    with borrowed_state():
        digest = _digest(module, examples, reading)
        known = _gateables.get(module)
        if known is None or known.digest != digest or not digest.is_certain:
            known = _gateable(digest, module, examples, reading)
            if check is not None:
                check()
            _gateables[module] = known
        gated = known.graphs.get(nodes.kind)
        if gated is None or gated.nodes != nodes:
            gated = known.graphs[nodes.kind] = _gated(known, nodes, examples)
        return gated


def _gateable(
    digest: ModuleDigest, module: torch.nn.Module, examples: np.ndarray, reading: Reading
) -> Gateable:
    whole = module if reading.is_plain else OneOutput(module, reading)
    try:
        program = _program(whole, examples, optimize=False)
        nodes = program.model_proto.graph.node
        # Looked up before the graph is optimised, as `_exported` optimises it, too.
        norms = [node.output[0] for node in nodes if node.op_type == "BatchNormalization"]
        with quiet_thread(*EXPORTERS):
            program.optimize()
    except Exception as error:  # the exporter raises whatever the module or the tracer does
        raise ValueError(
            f"expected a module that can be exported, got no ONNX export: {_root_cause(error)}"
        ) from error
    return Gateable(digest=digest, model=program.model_proto, batch_norms=tuple(norms))


def _gated(known: Gateable, nodes: GatedNodes, examples: np.ndarray) -> GatedGraph:
    images = np.resize(examples, (LOOKED_AT, *examples.shape[1:]))
    name, norms = known.model.graph.input[0].name, known.batch_norms
    made = gated_model(known.model, nodes, images, image_input=name, batch_norms=norms)
    graph = OnnxGraph(over_blocks(made.model).SerializeToString(), takes_blocks=True)
    return GatedGraph(nodes=nodes, graph=graph, num_gates=made.num_gates)


def _is_kept(known: Compilation) -> bool:
    """Checks whether a module of the same digest has the same graph for certain, or has none."""
    return known.digest.is_certain or known.graph is None


def _compilation(
    digest: ModuleDigest,
    module: torch.nn.Module,
    examples: np.ndarray,
    reading: Reading,
    *,
    keep_network: bool,
) -> Compilation:
    try:
        model = _graph(module, examples, reading)
        network = model.SerializeToString() if keep_network else None
        graph = OnnxGraph(over_blocks(model).SerializeToString(), takes_blocks=True)
    except Exception as error:  # the exporter raises whatever the module or the tracer does
        return Compilation(
            digest=digest, graph=None, reason=f"no ONNX export: {_root_cause(error)}"
        )
    # Read from the graph without the loop around it, whose body is a graph of its own.
    sorts = sorts_scores(model.graph, model.graph.output[0].name)
    return Compilation(digest=digest, graph=graph, reason=None, sorts=sorts, network=network)


def disagreement(
    graph: OnnxGraph, examples: Shaped[np.ndarray, "B ..."], scores: Shaped[np.ndarray, "B ..."]
) -> str | None:
    """Describes how the graph's answer differs from the module's scores; None if it agrees.

    Scores may differ by SCORE_TOLERANCE of the largest one (at least of 1), labels only where two
    scores lie as close as that.

    Args:
        graph: of the module.
        examples: real inputs.
        scores: what the module gives for them.
    """
    try:
        compiled = graph.run(examples, len(examples))
        # a graph that holds the answers to the examples as constants gives them for any batch
        few = graph.run(examples[:FEW_EXAMPLES], FEW_EXAMPLES)
    except ValueError as error:
        return str(error)
    if compiled.shape != scores.shape or not np.isfinite(scores).all():
        return (
            f"the graph gives scores {compiled.shape} and the module {scores.shape}, or some are "
            "infinite"
        )
    if few.shape != scores[:FEW_EXAMPLES].shape:
        return f"the graph gives scores {few.shape} for {len(examples[:FEW_EXAMPLES])} images"
    return _difference(compiled, scores)


def _difference(compiled: np.ndarray, scores: np.ndarray) -> str | None:
    tolerance = SCORE_TOLERANCE * max(1.0, float(np.abs(scores).max()))
    difference = float(np.abs(compiled - scores).max())
    # Written so that NaN is a difference.
    if not difference <= tolerance:
        return (
            f"scores of the graph differ by {difference:.2g} from the module's, more than "
            f"{tolerance:.2g}"
        )
    return None


def _graph(module: torch.nn.Module, examples: np.ndarray, reading: Reading) -> onnx.ModelProto:
    """Exports a module, from the template of its declared structure where possible."""
    # Declared structures are those of networks of images, which a template fits.
    may_be_declared = reading.is_plain and examples.dtype == np.float32
    structure = _structure_of(module) if may_be_declared else None
    if structure is None:
        return _exported(module if reading.is_plain else OneOutput(module, reading), examples)
    # In this process first, then on disk, and exported only where neither has it.
    key, tensors = (structure, examples.shape[1:]), module.state_dict()
    if key in _templates:
        template = _templates[key]
        return _exported(module, examples) if template is None else template.filled(tensors)
    return _from_cache(key, tensors) or _first_of_its_structure(key, module, examples)


def _from_cache(key: Structure, tensors: Mapping[str, torch.Tensor]) -> onnx.ModelProto | None:
    """Builds a graph from the template that another process stored."""
    content = load_graph(_name_on_disk(key))
    if content is None:
        return None
    template = GraphTemplate(content=content)
    # A template that does not fit the module, as after a change of its code, is made again.
    try:
        model = template.filled(tensors)
    except ValueError:
        return None
    _templates[key] = template
    return model


def _first_of_its_structure(
    key: Structure, module: torch.nn.Module, examples: np.ndarray
) -> onnx.ModelProto:
    model = _exported(module, examples)
    template = _templates[key] = template_of(model, module.state_dict())
    if template is not None:
        store_graph(_name_on_disk(key), template.content)
    return model


def _name_on_disk(key: Structure) -> str:
    """Returns a key of all that influences an export."""
    return repr((*key, EXPORT_ROWS, torch.__version__, onnx.__version__, version("onnxscript")))


def _exported(module: torch.nn.Module, examples: np.ndarray) -> onnx.ModelProto:
    model: onnx.ModelProto = _program(module, examples).model_proto
    return model


def _program(module: torch.nn.Module, examples: np.ndarray, *, optimize: bool = True) -> Any:
    rows = torch.from_numpy(np.resize(examples, (EXPORT_ROWS, *examples.shape[1:])))
    # The first axis stays free: the graph takes batches of any size.
    free = ({0: torch.export.Dim("batch")},)
    _load_exporter()
    # the absence of torchvision and deprecations are no user's concern
    with quiet_thread(*EXPORTERS), _without_graphs():
        program = torch.onnx.export(
            _twin(module),
            (rows,),
            dynamo=True,
            dynamic_shapes=free,
            verbose=False,
            optimize=optimize,
        )
    if program is None:
        raise ValueError("the exporter gave nothing")
    return program


def _load_exporter() -> None:
    """Imports the exporter, so that its loggers exist before they are silenced."""
    for name in (
        "torch.onnx._internal.exporter._core",
        "torch._export.non_strict_utils",
        "onnxscript",
        "onnx_ir",
    ):
        with suppress(ImportError), quiet_thread(*EXPORTERS):
            importlib.import_module(name)


@contextmanager
def _without_graphs() -> Iterator[None]:
    """Silences the graph that torch prints on standard error where it fails.

    What other threads print is not affected.
    """
    tracer, thread = importlib.import_module("torch.export._trace"), get_ident()

    def say(*values: object, **options: Any) -> None:
        if get_ident() != thread:
            print(*values, **options)

    # A name of torch's module comes before the built-in one: its calls of `print` become ours.
    with borrowed_state():
        vars(tracer)["print"] = say
        try:
            yield
        finally:
            vars(tracer).pop("print", None)


def _twin(module: torch.nn.Module) -> torch.nn.Module:
    """Copies a module, sharing its tensors, for the exporter, which replaces them while it traces.

    The module itself stays usable by other threads. It is its own twin where its parts refer
    to each other in other ways than as submodules: copies would refer to the originals.
    """
    parts = list(module.modules())
    if any(isinstance(part, torch.jit.ScriptModule) or _refers_to_others(part) for part in parts):
        return module
    # Twins get copies of the tables of parameters, buffers and submodules, which the exporter
    # changes, and share all other attributes with their originals.
    twins = {part: object.__new__(type(part)) for part in parts}
    for part, twin in twins.items():
        twin.__dict__ |= {
            name: copy(value) if name in TABLES else value for name, value in vars(part).items()
        }
        twin.__dict__["_modules"] |= {
            name: twins[own] for name, own in part._modules.items() if own is not None
        }
    return twins[module]


def _refers_to_others(part: torch.nn.Module) -> bool:
    return any(_refers_to_a_part(value) for name, value in vars(part).items() if name not in TABLES)


def _refers_to_a_part(value: object) -> bool:
    """Checks for a module, a function that knows one, or a collection that contains either."""
    if isinstance(value, list | tuple | set | dict) and len(value) <= MAX_REFERENCES:
        inside = value.values() if isinstance(value, dict) else value
        return any(map(_knows_a_module, inside))
    return _knows_a_module(value)


def _knows_a_module(value: object) -> bool:
    """Checks for a module, a method of one, or a function that holds one, as hooks do."""
    # What a function refers to: by its closure, by the arguments of a partial call, as a method.
    cells = [_content(cell) for cell in getattr(value, "__closure__", None) or ()]
    bound = [*value.args, *value.keywords.values()] if isinstance(value, functools.partial) else []
    known = [value, *cells, *bound]
    return any(isinstance(getattr(one, "__self__", one), torch.nn.Module) for one in known)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _digest(
    module: torch.nn.Module, examples: np.ndarray, reading: Reading = PLAIN
) -> ModuleDigest:
    shape, kind = examples.shape[1:], examples.dtype.str
    return module_digest(module, shape, kind, reading.name, reading.is_plain)


def _structure_of(module: torch.nn.Module) -> str | None:
    """Returns the declared structure of a module if only its numbers have changed since."""
    declared = _structures.get(module)
    if declared is None or declared.digest != module_digest(module, with_tensors=False):
        return None
    return declared.name


def _root_cause(error: BaseException) -> str:
    """Returns the message of the error that caused all others; causes may form a cycle."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return cause_of(error)
