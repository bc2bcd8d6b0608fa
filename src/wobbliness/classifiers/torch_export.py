"""A `torch.export` archive as a torch module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_unflatten

from wobbliness.classifiers.base import ONE_SCORE
from wobbliness.classifiers.signature.layouts import (
    ImageShape,
    Layout,
    described_layout,
    find_layout,
    image_shape,
)
from wobbliness.classifiers.signature.outputs import Output, choose_output, threshold_by_name
from wobbliness.classifiers.signature.pixel_scale import BYTE, PixelScale
from wobbliness.classifiers.signature.wrapped_module import (
    DescribedModule,
    ScaledPixels,
    TwoClasses,
)
from wobbliness.classifiers.untrusted.file_kind import warn_of_code
from wobbliness.classifiers.untrusted.torch_export_archive import checked_archive
from wobbliness.classifiers.untrusted.torch_export_steps import check_repeatable, check_steps
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.quiet_libraries import logs_of

# Steps after which a probability is still one.
RESHAPING = (
    "aten.squeeze",
    "aten.view",
    "aten.reshape",
    "aten.flatten",
    "aten.unsqueeze",
    "aten.select",
    "aten.slice",
    "aten._to_copy",
    "aten.to",
)
# Values of a step for one image from which blocks are cut into pieces; values of a piece's step.
LARGE_STEP, MAX_BLOCK_VALUES = 2**23, 2**28
# Taken for axes of an image that the program leaves free: the side of most pictures for training.
FREE_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class ProgramOptions:
    """The options that a user gives for a program beyond what it declares.

    Attributes:
        layout: where the channels are.
        output: name or number of the output to read.
        num_classes: K.
        threshold: where class 1 begins in one score for two classes.
        scale: the pixel values that it wants.
    """

    layout: Layout | None = None
    output: str | int | None = None
    num_classes: int | None = None
    threshold: float | None = None
    scale: PixelScale | None = None


class ExportedModule(DescribedModule):
    """A torch module around an exported program, for batches of any size, channels first.

    The program gives scores `(B, K)` or labels `(B,)`.

    It stays in the mode it was exported in.

    Attributes:
        batch_size: B where the program fixes it; a block is then split into pieces of that size,
            and the last one is padded.
        image_shape: of one image, channels first.
        threshold: of class 1, where the program gives one score for two classes and the threshold
            is known.
        has_one_score: whether it declares one score for each image.
    """

    def __init__(self, program: torch.export.ExportedProgram, options: ProgramOptions) -> None:
        """Wraps a program.

        Raises:
            ValueError: it takes anything but one tensor of images, has no output of scores, was
                exported in training mode, or makes too large tensors.
        """
        super().__init__()
        images = _image_input(program)
        sizes = [size if isinstance(size, int) else None for size in images.shape]
        self._sizes, self._wanted = sizes, options.output
        self._layout = find_layout(sizes, options.layout)
        self.batch_size: int | None = sizes[0]
        self.image_shape: ImageShape | None = image_shape(sizes, self._layout)
        self._rank, self._dtype = len(sizes), images.dtype
        self._output, self.has_one_score, self.threshold = _scores_of(program, options)
        check_repeatable(program)
        # Guards are Python code that torch writes and runs; the shapes are checked here.
        self._program = program.module(check_guards=False)
        sides = [size or FREE_SIZE for size in sizes[1:]]
        values = check_steps(self._program, [sizes[0], *sides], images.dtype)
        is_large = self.batch_size is None and values > LARGE_STEP
        self._max_images = max(1, MAX_BLOCK_VALUES // values) if is_large else None

    @property
    def takes_bytes(self) -> bool:
        """Checks whether the program takes 8-bit integers."""
        return bool(self._dtype == torch.uint8)

    def preprocessing(self) -> dict[str, str]:
        """Describes the layout, and the output where one was chosen, for comparisons."""
        return described_layout(self._sizes, self._layout) | (
            {} if self._wanted is None else {"output": str(self._wanted)}
        )

    def train(self, mode: bool = True) -> "ExportedModule":
        """Changes nothing but the flag: an exported program has no modes."""
        self.training = mode
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the scores."""
        images = self._arranged(images)
        if self._max_images is not None:
            return torch.cat([self._run(piece) for piece in torch.split(images, self._max_images)])
        if self.batch_size is None:
            return self._run(images)
        return torch.cat([self._run_piece(piece) for piece in torch.split(images, self.batch_size)])

    def _arranged(self, images: torch.Tensor) -> torch.Tensor:
        """Converts images to the program's layout and type; for uint8 it rounds and clips them."""
        if self._layout == "nhwc" and images.ndim == 4:
            images = images.permute(0, 2, 3, 1).contiguous()
        # Flat features, or grey pictures without an axis of channels.
        if self._rank == 2:
            images = images.flatten(1)
        elif self._rank == 3 and images.ndim == 4:
            images = images.squeeze(1)
        # Conversion to bytes cuts off what follows the point and wraps around outside of the range.
        values = images.round().clamp(0, 255) if self.takes_bytes else images
        return values.to(self._dtype)

    def _run_piece(self, images: torch.Tensor) -> torch.Tensor:
        missing = (self.batch_size or 0) - len(images)
        if missing <= 0:
            return self._run(images)
        # Padded with copies of the first image, whose scores are dropped.
        padding = images[:1].expand(missing, *images.shape[1:])
        return self._run(torch.cat([images, padding]))[: len(images)]

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = tree_leaves(self._program(images))[self._output]
        if scores.ndim > 2:
            scores = scores.squeeze(
                [axis for axis in range(1, scores.ndim) if scores.shape[axis] == 1]
            )
        is_column = scores.ndim == 2 and scores.shape[1] == 1
        if not scores.is_floating_point():
            return scores[:, 0] if is_column else scores  # labels
        return scores[:, None] if scores.ndim == 1 else scores


def load_exported(path: Path, *, trust_pickle: bool = False, **options: Any) -> torch.nn.Module:
    """Loads a module from an archive of `torch.export.save`.

    Args:
        path: of the archive.
        trust_pickle: load the file as torch does, which runs any code in it.
        **options: fields of ProgramOptions.

    Raises:
        ValueError: it cannot be read, or holds what may not be loaded.
    """
    if trust_pickle:
        warn_of_code(path)
    source = str(path) if trust_pickle else checked_archive(path)
    try:
        wanted = ProgramOptions(**options)
        return _with_steps(ExportedModule(_loaded(source), wanted), wanted)
    except ValueError as error:
        reason = reason_of(error)
        raise ValueError(reason if str(path) in reason else f"{reason}, in {path}") from error
    except Exception as error:  # what a damaged program raises is not documented
        raise ValueError(
            f"expected a readable archive of torch.export.save, got {path}: {reason_of(error)}"
        ) from error


def _loaded(source: Any) -> torch.export.ExportedProgram:
    # torch logs why it cannot load a program, and then raises another error
    with logs_of("torch.export") as records:
        try:
            return torch.export.load(source)
        except Exception as error:
            causes = [
                record.exc_info[1] for record in records if record.exc_info and record.exc_info[1]
            ]
            raise (causes or [error])[0] from error


def _with_steps(module: ExportedModule, options: ProgramOptions) -> torch.nn.Module:
    """Wraps the module for images in [0, 1] and at least two scores."""
    threshold = module.threshold if options.threshold is None else options.threshold
    if not module.has_one_score and options.threshold is not None:
        raise ValueError(
            f"expected one score for each image with threshold {options.threshold}, got more"
        )
    scale = _byte_scale(options.scale) if module.takes_bytes else options.scale
    if module.has_one_score and threshold is None:
        raise ValueError(ONE_SCORE)
    with_pixels = module if scale is None else ScaledPixels(module, scale)
    if threshold is None or not module.has_one_score:
        return with_pixels
    return TwoClasses(with_pixels, threshold)


def _byte_scale(scale: PixelScale | None) -> PixelScale:
    """Returns the scale of a program of bytes, which no other one may contradict."""
    if scale not in (None, PixelScale(), BYTE):
        raise ValueError(
            "expected an input range of 0,255 without mean and std for a program of uint8, got "
            f"{scale}"
        )
    return BYTE


def _image_input(program: torch.export.ExportedProgram) -> Any:
    """Reads the program's declaration of its single input."""
    # Weights and buffers are inputs of the graph, too; the signature tells which are the user's.
    specs = program.graph_signature.input_specs
    names = [spec.arg.name for spec in specs if spec.kind == InputKind.USER_INPUT]
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    values = [node.meta.get("val") for node in inputs if node.name in names]
    if len(values) != 1 or not _is_of_images(values[0]):
        raise ValueError(
            f"expected a program of one float input (B, ...), got {len(values)} inputs {values}"
        )
    return values[0]


def _is_of_images(value: object) -> bool:
    """Checks for a batch of floats or of bytes."""
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return False
    return value.is_floating_point() or value.dtype == torch.uint8


def _scores_of(
    program: torch.export.ExportedProgram, options: ProgramOptions
) -> tuple[int, bool, float | None]:
    """Returns the output to read, whether it is one score, and the threshold of class 1."""
    nodes = _output_nodes(program)
    outputs = [_declared(name, node) for name, node in zip(_names(program), nodes, strict=True)]
    # Where there are scores to read, labels next to them are of no use.
    has_scores = options.output is None and any(
        output.is_float and output.may_hold_classes for output in outputs
    )
    index = choose_output(
        outputs,
        options.output,
        num_classes=options.num_classes,
        source="the program",
        wants_scores=has_scores,
    )
    chosen = outputs[index]
    if not chosen.is_float:
        return index, False, None
    return index, chosen.width == 1, _threshold_of(nodes[index], chosen)


def _output_nodes(program: torch.export.ExportedProgram) -> list[Any]:
    """Returns the nodes of the user's outputs, which come last, after updated buffers."""
    nodes = list(next(node for node in program.graph.nodes if node.op == "output").args[0])
    return nodes[len(nodes) - len(program.graph_signature.user_outputs) :]


def _names(program: torch.export.ExportedProgram) -> list[str]:
    """Returns the names of the outputs: keys of a dict, numbers in a tuple."""
    spec = program.call_spec.out_spec
    assert spec is not None
    paths, _ = tree_flatten_with_path(tree_unflatten(range(spec.num_leaves), spec))
    names = [
        ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        for path, _ in paths
    ]
    return [name or "0" for name in names]


def _declared(name: str, node: Any) -> Output:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    if not isinstance(value, torch.Tensor):  # a constant, such as a loss of None
        return Output(name=name, dtype=type(value).__name__, shape=())
    sizes: list[Any] = list(value.shape)  # some are symbols
    shape = tuple(size if isinstance(size, int) else None for size in sizes)
    return Output(name=name, dtype=str(value.dtype), shape=shape)


def _threshold_of(node: torch.fx.Node, output: Output) -> float | None:
    """Returns the threshold of class 1 in an output of one score.

    It is 0.5 where the last step is a sigmoid; else the name decides: 0 for logits, 0.5 for
    probabilities.
    """
    while node.op == "call_function" and str(node.target).startswith(RESHAPING):
        (node, *_) = node.all_input_nodes
    return 0.5 if str(node.target).startswith("aten.sigmoid") else threshold_by_name(output)
