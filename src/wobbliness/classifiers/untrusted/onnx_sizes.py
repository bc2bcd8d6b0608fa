"""The number of values that the steps of an ONNX graph make, derived from the graph alone."""

import copy
import math
from collections import Counter
from dataclasses import dataclass, field

import onnx

from wobbliness.classifiers.untrusted.onnx_bounds import full_name, upper_bound, workspace
from wobbliness.classifiers.untrusted.onnx_claims import all_graphs, all_nodes, inner_graphs
from wobbliness.classifiers.untrusted.onnx_contrib import (
    Shape,
    replace_contrib_operators,
    replace_transposed_products,
    shape_of,
)
from wobbliness.classifiers.untrusted.onnx_folding import fold_small_values
from wobbliness.runtime.errors import reason_of

# Values made by one step for one image: 1 GiB as float32.
MAX_STEP_VALUES = 2**28
# Values held at one time for one image: what a step takes, what it makes, what later steps still
# need. Again 1 GiB.
MAX_LIVE_VALUES = 2**28
# Values made out of nothing: by all steps that enlarge, or that need no image. Each of them costs a
# file a few bytes only, so it is their sum that is limited.
MAX_CREATED_VALUES = 2**27
# A graph of a free batch is checked with one image and with a block of this many.
LARGE_BATCH = 128
# Factor by which a large batch may need more for each image than a single image: without a limit a
# graph could be small for one image and grow with the square of the batch.
SLACK = 2
# Each round of inference finds the shapes that are computed from those of the round before.
MAX_ROUNDS = 60
# Further rounds: each finds the shape of the next product of transposed matrices.
MAX_PRODUCTS = 200
# Bytes of a string besides its characters, as C++ keeps it.
TEXT_OVERHEAD = 32
# Operators whose output may be larger than what they take.
# fmt: off
ENLARGING = {
    # made from a shape or a number
    "ConstantOfShape", "Expand", "Tile", "Range", "EyeLike", "OneHot",
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
    # pictures of another size
    "Pad", "Resize", "Upsample", "CenterCropPad", "Col2Im",
    "AffineGrid", "GridSample", "MaxUnpool", "RoiAlign", "MaxRoiPool",
    # texts and sound
    "TfIdfVectorizer", "MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow",
    "DFT", "STFT",
}
# fmt: on
# Domains whose operators the ONNX library knows, all of them.
STANDARD_DOMAINS = ("", "ai.onnx.ml")
# The output is as large as the value of a number or a text, which inference does not know.
GROWING = {"Loop", "SequenceMap", "StringConcat", "StringSplit", "ImageDecoder"}


@dataclass(frozen=True, kw_only=True)
class GraphSizes:
    """The sizes of a graph for one image.

    Attributes:
        values_per_image: that the largest step takes and makes; None where no step takes the image.
        held_per_image: held at one time, at most.
    """

    values_per_image: int | None
    held_per_image: int


def check_sizes(model: onnx.ModelProto, *, outside: str | None = None) -> GraphSizes:
    """Adds up the values that a graph makes for one image, ignoring the file's declared sizes.

    The sizes come from ONNX's shape inference, or, where that leaves one unknown, from a bound on
    the operator's output (`onnx_bounds`). An operator without either is refused.

    Args:
        model: as `written_out` gives it; its operators are changed.
        outside: name of a tensor in another file that may be a shape, for a refusal.

    Raises:
        ValueError: a step makes more than MAX_STEP_VALUES, all together hold more than
            MAX_LIVE_VALUES at a time or make more than MAX_CREATED_VALUES of their own, or a size
            is unknown.
    """
    replaced = replace_contrib_operators(model)
    batch, text = _batch(model.graph), _values_per_text(model)
    # One image, or the batch that the graph fixes, against the absolute limits.
    few = _Sizes(values_per_text=text, replaced=replaced, outside=outside)
    try:
        few.check(_inferred(_with_batch(model, batch or 1)).graph, _Known())
    except ValueError:
        _check_fits(_with_batch(model, batch or 1), batch)
        raise
    if not batch:
        many = few.scaled(SLACK * LARGE_BATCH)
        many.check(_inferred(_with_batch(model, LARGE_BATCH)).graph, _Known())
    step, held = (-(-values // (batch or 1)) for values in (few.largest, few.live))
    return GraphSizes(values_per_image=step or None, held_per_image=held)


def shape_outside(model: onnx.ModelProto) -> str | None:
    """Returns the name of a tensor in another file that may be a shape; None if there is none."""
    outside = (
        tensor.name
        for graph in all_graphs(model)
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        and tensor.data_type == onnx.TensorProto.INT64
        and len(tensor.dims) <= 1
    )
    return next(outside, None)


def _batch(graph: onnx.GraphProto) -> int:
    """Returns the number of images that a graph takes at a time; 0 for any."""
    # Older files declare their tensors as inputs, too: the first that is none takes the images.
    tensors = _tensor_names(graph)
    images = next((value for value in graph.input if value.name not in tensors), None)
    sizes = images.type.tensor_type.shape.dim if images is not None else []
    return int(sizes[0].dim_value) if sizes else 1


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Copies a graph with the number of images in a batch fixed."""
    model = copy.deepcopy(model)
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim[:1]:
            dimension.dim_value = dimension.dim_value or batch
    return model


def _check_fits(model: onnx.ModelProto, batch: int) -> None:
    """Raises ValueError where steps have incompatible shapes.

    An exporter may have taken the number of images for a constant, for instance.
    """
    try:
        onnx.shape_inference.infer_shapes(_inferred(model), strict_mode=True)
    except Exception as error:  # the checker's own classes share no base but Exception
        wanted = f"{batch} images at once" if batch else "any number of images at once"
        raise ValueError(
            f"expected a graph whose steps fit {wanted}, as it declares, got {reason_of(error)}; "
            "where its exporter took the number of images for a constant (len(images) for "
            "images.shape[0]), export it for one image or anew"
        ) from error


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infers the shapes of a graph's steps, for one image.

    ONNX could propagate values itself (`data_prop`). It then makes an object for each value of a
    row before any size is known: rows that are concatenated repeatedly would fill the memory. So
    small values alone are computed here.
    """
    try:
        # In turn: infer shapes, write out the products whose ranks are now known, and compute the
        # small numbers that further shapes depend on, until nothing changes.
        rounds, products = MAX_ROUNDS, MAX_PRODUCTS
        while rounds and products:
            model = onnx.shape_inference.infer_shapes(model)
            has_transposed = replace_transposed_products(model)
            has_folded = fold_small_values(model)
            rounds, products = rounds - (not has_transposed), products - has_transposed
            if not has_transposed and not has_folded:
                break
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # the checker's own classes share no base but Exception
        reason = reason_of(error)
        raise ValueError(f"expected a graph whose sizes can be told, got {reason}") from error


def _tensor_names(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer}


def _values_per_text(model: onnx.ModelProto) -> int:
    """Returns how many values of four bytes a text of the file counts as."""
    return -(-(_longest_text(model) + TEXT_OVERHEAD) // 4)


def _longest_text(model: onnx.ModelProto) -> int:
    """Returns the bytes of the longest string in a file: no allowed step makes a longer one."""
    longest = 0
    for graph in all_graphs(model):
        for tensor in graph.initializer:
            longest = max(longest, *map(len, tensor.string_data), 0)
    for node in all_nodes(list(model.graph.node)):
        for attribute in node.attribute:
            texts = (attribute.s, *attribute.strings, *attribute.t.string_data)
            longest = max(longest, *map(len, texts))
    return longest


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The known facts about the values of a graph and of those around it.

    Attributes:
        shapes: by name, None where unknown.
        sizes: by name, upper bounds on the number of values.
        constants: names of values that need no image.
        texts: names of values that hold strings.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)

    def within(self, graph: onnx.GraphProto) -> "_Known":
        """Extends the facts by the values that a graph declares or that were inferred for it."""
        values = (*graph.value_info, *graph.output, *graph.input)
        shapes = {value.name: shape_of(value) for value in values}
        # The sizes of tensors in the file are those of their content, whatever is declared.
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        sizes = {name: math.prod(shape) for name, shape in shapes.items() if shape is not None}
        # A name of the graph hides an equal one around it, also where its size is not known.
        own = {value.name for value in values}
        outer = {name: size for name, size in self.sizes.items() if name not in own}
        return _Known(
            shapes={**self.shapes, **shapes},
            sizes={**outer, **sizes},
            constants=self.constants | _tensor_names(graph),
            texts=self.texts | {value.name for value in values if _is_text(value)},
        )


def _is_text(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.STRING)


@dataclass(kw_only=True)
class _Sizes:
    """The running sums over the steps of a graph and of those in it.

    Attributes:
        values_per_text: room of a string, in values of four bytes.
        replaced: steps that were replaced by others, by their first output.
        outside: name of a tensor in another file that may be a shape.
        max_step: limit on the values of one step.
        max_live: limit on the values held at a time.
        max_created: limit on the values made out of nothing.
        created: values made out of nothing so far.
        largest: values of the largest step that takes the image: its first input and its outputs.
        step: values of the largest output so far.
        live: the most values that were held at a time so far.
    """

    values_per_text: int
    replaced: dict[str, onnx.NodeProto]
    outside: str | None = None
    max_step: int = MAX_STEP_VALUES
    max_live: int = MAX_LIVE_VALUES
    max_created: int = MAX_CREATED_VALUES
    created: int = 0
    largest: int = 0
    step: int = 0
    live: int = 0

    def scaled(self, factor: int) -> "_Sizes":
        """Returns new sums for a larger batch, with these limits or these sums times a factor."""
        return _Sizes(
            values_per_text=self.values_per_text,
            replaced=self.replaced,
            outside=self.outside,
            max_step=max(self.max_step, factor * self.step),
            max_live=max(self.max_live, factor * self.live),
            max_created=max(self.max_created, factor * self.created),
        )

    def check(
        self, graph: onnx.GraphProto, outer: _Known, held: int = 0, times: int = 1
    ) -> list[int | None]:
        """Checks a graph and returns upper bounds on its outputs.

        Args:
            graph: with inferred shapes.
            outer: what is known around it.
            held: values that are held around it.
            times: how often it is run, for values made out of nothing.
        """
        known, live = outer.within(graph), _LiveValues(graph, held)
        for node in graph.node:
            made = self._make(node, known, live.total, times)
            self._add(node, made, known, times)
            # The workspace is that of the file's own step, not of a standard one in its place.
            original = self.replaced.get(next(iter(made), ""), node)
            now = live.step(node, made, workspace(original, *_given(original, known)))
            if now > self.max_live:
                limit = f"at most {self.max_live} values at a time, got {now} at {node.op_type}"
                raise ValueError(f"expected steps that hold {limit}")
            self.live = max(self.live, now)
        return [known.sizes.get(value.name) for value in graph.output]

    def _make(self, node: onnx.NodeProto, known: _Known, held: int, times: int) -> dict[str, int]:
        """Computes the sizes of a step's outputs and records them."""
        if node.op_type in GROWING:
            raise _unknown(node, self.outside)
        bound = _bound(node, known)
        # The output of If is that of a branch; of Scan, inference has to know it.
        if inner := inner_graphs(node):
            found = [
                self.check(graph, known, held, times * _num_runs(node, known)) for graph in inner
            ]
            bound = _largest(found) if node.op_type == "If" else None
        made = {name: self._size(node, known, name, bound) for name in node.output if name}
        known.sizes.update(made)
        return made

    def _size(self, node: onnx.NodeProto, known: _Known, name: str, bound: int | None) -> int:
        """Returns the size of an output: by its inferred shape, else by the step's bound."""
        shape = known.shapes.get(name)
        size = bound if shape is None else math.prod(shape)
        if size is None:
            raise _unknown(node, self.outside)
        return size * (self.values_per_text if name in known.texts else 1)

    def _add(self, node: onnx.NodeProto, made: dict[str, int], known: _Known, times: int) -> None:
        """Adds what a step makes to the sums, each of which has its limit."""
        largest_output, num_made = max(made.values(), default=0), sum(made.values())
        if largest_output > self.max_step:
            raise ValueError(
                f"expected steps of at most {self.max_step} values, got {largest_output} by "
                f"{node.op_type}"
            )
        self.step = max(self.step, largest_output)
        # A step is constant if all that it takes is: its values count as made out of nothing.
        is_constant = all(name in known.constants for name in _needed(node))
        if is_constant:
            known.constants.update(made)
        else:
            num_taken = known.sizes.get(next(iter(node.input), ""), 0)
            self.largest = max(self.largest, num_taken + num_made)
        if is_constant or node.op_type in ENLARGING:
            self._create(num_made * times, node.op_type)

    def _create(self, num_values: int, op_type: str) -> None:
        self.created += num_values
        if self.created > self.max_created:
            raise ValueError(
                f"expected a graph that makes at most {self.max_created} values of its own, got "
                f"{self.created} by {op_type}"
            )


class _LiveValues:
    """The values that are held while a graph runs in the order of its steps.

    Attributes:
        total: their present number, including those held around the graph.
    """

    def __init__(self, graph: onnx.GraphProto, held: int) -> None:
        self.total = held
        self._sizes: dict[str, int] = {}
        # How often each value is still needed; one that the graph gives is never dropped.
        self._uses = Counter(name for node in graph.node for name in _needed(node))
        self._uses.update(value.name for value in graph.output)

    def step(self, node: onnx.NodeProto, made: dict[str, int], extra: int) -> int:
        """Adds a step's outputs, drops unused values, and returns how many were held meanwhile."""
        # While the step runs, its inputs, all its outputs and its workspace are held.
        peak = self.total + sum(made.values()) + extra
        kept = {name: size for name, size in made.items() if self._uses[name]}
        self._sizes |= kept
        self.total += sum(kept.values())
        # A value is dropped after its last use.
        for name in _needed(node):
            self._uses[name] -= 1
            if not self._uses[name]:
                self.total -= self._sizes.pop(name, 0)
        return peak


def _needed(node: onnx.NodeProto) -> list[str]:
    """Returns the names that a step takes, including those that its inner graphs take."""
    names = list(filter(None, node.input))
    for graph in inner_graphs(node):
        names += [name for inner in graph.node for name in _needed(inner)] + [
            value.name for value in graph.output
        ]
    return names


def _given(node: onnx.NodeProto, known: _Known) -> tuple[list[Shape], Shape]:
    """Returns the shapes of a step's inputs and of its first output."""
    output = known.shapes.get(node.output[0]) if node.output else None
    return [known.shapes.get(name) for name in node.input], output


def _bound(node: onnx.NodeProto, known: _Known) -> int | None:
    # An input without a name is one that the step leaves out.
    sizes = [known.sizes.get(name) if name else 0 for name in node.input]
    bounds = [size for size in sizes if size is not None]
    return upper_bound(node, bounds, _given(node, known)[0]) if len(bounds) == len(sizes) else None


def _largest(found: list[list[int | None]]) -> int | None:
    """Returns the largest output of several branches."""
    bounds = [size for sizes in found for size in sizes if size is not None]
    return max(bounds, default=0) if len(bounds) == sum(map(len, found)) else None


def _num_runs(node: onnx.NodeProto, known: _Known) -> int:
    """Returns an upper bound on the runs of a step's inner graph.

    That is one for each row of the longest input of a Scan.
    """
    if node.op_type != "Scan":
        return 1
    return max((size for shape in _given(node, known)[0] for size in shape or ()), default=1)


def _exists(node: onnx.NodeProto) -> bool:
    """Returns whether ONNX or ONNX Runtime has such an operator."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain in STANDARD_DOMAINS:
        return bool(onnx.defs.has(node.op_type, domain))
    # Slow to import, and asked only before an error.
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return any(
        (schema.domain, schema.name) == (domain, node.op_type)
        for schema in get_all_operator_schema()
    )


def _unknown(node: onnx.NodeProto, outside: str | None) -> ValueError:
    name = full_name(node)
    if not _exists(node):
        return ValueError(f"expected operators of ONNX, got {name}, which is unknown")
    # Other files are not read for the check: they hold weights, and these say nothing of sizes.
    way = (
        "export with fixed sizes"
        if outside is None
        else f"its shape may lie in an external file, as {outside!r} does: save small tensors in "
        "the graph (size_threshold=1024)"
    )
    return ValueError(f"expected sizes that the graph tells, got {name} of unknown size; {way}")
