"""A `torch.export` archive as a torch module."""

from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.graph_signature import InputKind

from wobbliness.classifiers.exported_checks import checked_archive
from wobbliness.classifiers.layouts import ImageShape, Layout, find_layout, image_shape
from wobbliness.classifiers.model_file import warn_of_code

MAX_STEP_VALUES = 2**28  # made by one operator for one block of the size it was exported with, 1 GiB as float32
FREE_SIZE = 224  # taken for axes of an image that the program leaves free


class ExportedModule(torch.nn.Module):
    """An exported program that gives logits `(B, K)` for images channels first and for batches of any size.

    It stays in the mode it was exported in.

    Attributes:
        batch_size: B where the program fixes it; a block is then cut into pieces of that size, and what the last one lacks is
            filled up and dropped.
        image_shape: of one image, channels first.
    """

    def __init__(self, program: torch.export.ExportedProgram, layout: Layout | None) -> None:
        """Wraps a program.

        Raises:
            ValueError: it takes anything but one tensor of floats, was exported in training mode, or makes too large tensors.
        """
        super().__init__()
        images = _image_input(program)
        sizes = [size if isinstance(size, int) else None for size in images.shape]
        self._layout = find_layout(sizes, layout)
        self.batch_size: int | None = sizes[0]
        self.image_shape: ImageShape | None = image_shape(sizes, self._layout)
        self._is_flat, self._dtype = len(sizes) == 2, images.dtype
        _check_mode(program)
        self._program = program.module(check_guards=False)
        _check_steps(self._program, [sizes[0] or 2, *(size or FREE_SIZE for size in sizes[1:])], images.dtype)

    def train(self, mode: bool = True) -> "ExportedModule":
        """Changes nothing but the flag: an exported program has no modes."""
        self.training = mode
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        images = images.flatten(1) if self._is_flat else images
        images = images.permute(0, 2, 3, 1).contiguous() if self._layout == "nhwc" else images
        images = images.to(self._dtype)
        if self.batch_size is None:
            return self._run(images)
        return torch.cat([self._run_piece(piece) for piece in torch.split(images, self.batch_size)])

    def _run_piece(self, images: torch.Tensor) -> torch.Tensor:
        missing = (self.batch_size or 0) - len(images)
        if missing <= 0:
            return self._run(images)
        return self._run(torch.cat([images, images[:1].expand(missing, *images.shape[1:])]))[: len(images)]

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        answer = self._program(images)
        while isinstance(answer, tuple | list | dict) and answer:
            answer = next(iter(answer.values() if isinstance(answer, dict) else answer))
        return answer  # type: ignore[no-any-return]


def load_exported(path: Path, *, layout: Layout | None, trust_pickle: bool = False) -> ExportedModule:
    """A module from an archive of `torch.export.save`.

    Args:
        path: of the archive.
        layout: where the channels are, for programs that do not tell.
        trust_pickle: load the file as torch does, which runs what code it holds.

    Raises:
        ValueError: it cannot be read, or holds what may not be loaded.
    """
    if trust_pickle:
        warn_of_code(path)
    source = str(path) if trust_pickle else checked_archive(path)
    try:
        program = torch.export.load(source)
        return ExportedModule(program, layout)
    except ValueError as error:
        reason = str(error).splitlines()[0]  # torch adds the program's own text below
        raise ValueError(reason if str(path) in reason else f"{reason}, in {path}") from error
    except Exception as error:  # what a damaged program raises is not documented
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(f"expected a readable archive of torch.export.save, got {path}: {reason}") from error


def _image_input(program: torch.export.ExportedProgram) -> Any:
    """What the program says of its one input."""
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or not values[0].is_floating_point() or values[0].ndim < 2:
        raise ValueError(f"expected a program of one float input (B, ...), got {len(values)} inputs {values}")
    return values[0]


def _check_mode(program: torch.export.ExportedProgram) -> None:
    """ValueError where dropout or batch normalisation were exported in training mode: each answer would differ."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for index, argument in enumerate(schema.arguments if schema else ()):
            given = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in ("train", "training") and given is True:
                raise ValueError(f"expected a program exported in evaluation mode, got {node.target} in training mode")


def _check_steps(module: torch.nn.Module, shape: list[int], dtype: torch.dtype) -> None:
    """Runs the program on shapes alone; ValueError where an operator makes more than MAX_STEP_VALUES."""
    assert isinstance(module, torch.fx.GraphModule)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        _Sizes(module).run(torch.empty(shape, dtype=dtype))


class _Sizes(torch.fx.Interpreter):
    """Looks at the size of what each operator makes."""

    def run_node(self, n: torch.fx.Node) -> Any:
        """As its parent does, and ValueError where the result is too large."""
        result = super().run_node(n)
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor) and part.numel() > MAX_STEP_VALUES:
                raise ValueError(f"expected steps of at most {MAX_STEP_VALUES} values, got {part.numel()} by {n.target}")
        return result
