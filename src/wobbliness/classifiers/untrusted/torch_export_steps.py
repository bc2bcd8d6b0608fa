"""The sizes and repeatability of an exported program's steps, derived without running them."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

# Values made by one operator for one block of the size it was exported with: 1 GiB as float32.
MAX_STEP_VALUES = 2**28
# Values held at one time by steps that are still needed.
MAX_LIVE_VALUES = 2**29
# Images per block for a program of a free batch. Not 1: torch takes an axis of length 1 for fixed.
SMALL_BATCH, LARGE_BATCH = 2, 128
# Of what is held for many images: more than for few by no more than each step is.
NO_LIMIT = 2**62
# Factor by which a large batch may need more for each image than a small one.
SLACK = 2
TRAINING_FLAGS = ("train", "training")  # names of flags
DROPOUT_RATES = ("dropout", "dropout_p")  # names of rates


def check_repeatable(program: torch.export.ExportedProgram) -> None:
    """Refuses programs that draw random numbers or normalise by the statistics of a block.

    Raises:
        ValueError: with the operator's name.
    """
    for node in _all_nodes(program.graph_module):
        given = _arguments(node)
        if any(given.get(flag) is True for flag in TRAINING_FLAGS):
            raise ValueError(
                f"expected a program exported in evaluation mode, got {node.target} in training "
                "mode"
            )
        # Dropout draws nothing where its flag is off, or where its rate is 0.
        if not _is_random(node) or any(given.get(flag) is False for flag in TRAINING_FLAGS):
            continue
        rates = [given[name] for name in DROPOUT_RATES if name in given]
        if not rates or any(rate != 0 for rate in rates):
            raise ValueError(f"expected a program that answers alike each time, got {node.target}")


def check_steps(module: torch.nn.Module, shape: list[int | None], dtype: torch.dtype) -> int:
    """Runs a program on shapes alone, and adds up the values that it makes.

    A program for free batches is run with few images and with many.

    Args:
        module: of the program.
        shape: of its input, None where the batch is free.
        dtype: of its input.

    Returns:
        The values that the largest step makes for one image.

    Raises:
        ValueError: an operator makes more than MAX_STEP_VALUES, all together hold more than
            MAX_LIVE_VALUES at a time, or make much more for each image of a large block than of a
            small one.
    """
    batch, *rest = shape
    few = _largest_step(module, [batch or SMALL_BATCH, *rest], dtype, MAX_STEP_VALUES)
    # A large batch may need SLACK times the values of as many images in small batches.
    if batch is None:
        allowed = max(MAX_STEP_VALUES + 1, SLACK * LARGE_BATCH // SMALL_BATCH * few)
        _largest_step(module, [LARGE_BATCH, *rest], dtype, allowed)
    return -(-few // (batch or SMALL_BATCH))


def _largest_step(module: torch.nn.Module, shape: list[Any], dtype: torch.dtype, limit: int) -> int:
    """Returns the most values that a step makes, or raises ValueError above `limit`."""
    assert isinstance(module, torch.fx.GraphModule)
    # Fake tensors have shapes and types but no values: nothing is computed, however large.
    with FakeTensorMode(allow_non_fake_inputs=True), _SizeWatch(limit) as watch, torch.no_grad():
        images = torch.empty(shape, dtype=dtype)
        _LiveValues(module, MAX_LIVE_VALUES if limit == MAX_STEP_VALUES else NO_LIMIT).run(images)
    return int(watch.largest)


class _SizeWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """A dispatch mode that checks the output size of each operator, also inside composite ones.

    Attributes:
        largest: values of the largest output so far.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.largest = 0
        self._limit = limit

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Made before it is checked: a fake tensor takes no memory.
        result = func(*args, **(kwargs or {}))
        made = sum(part.numel() for part in _tensors(result)) + _scores(func, args)
        if made > self._limit:
            raise ValueError(
                f"expected steps of at most {self._limit} values, got {made} by {func}"
            )
        self.largest = max(self.largest, made)
        return result


class _LiveValues(torch.fx.Interpreter):
    """An interpreter that adds up the values held from step to step."""

    def __init__(self, module: torch.fx.GraphModule, limit: int) -> None:
        super().__init__(module)
        self._limit, self._held, self._sizes = limit, 0, dict[torch.fx.Node, int]()

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs a node as its parent does; ValueError where too many values are held."""
        result = super().run_node(n)
        self._sizes[n] = (
            sum(part.numel() for part in _tensors(result)) if n.op == "call_function" else 0
        )
        self._held += self._sizes[n]
        if self._held > self._limit:
            raise ValueError(
                f"expected steps that hold at most {self._limit} values at a time, got "
                f"{self._held} at {n.target}"
            )
        # Values whose last use this was are freed.
        for done in self.user_to_last_uses.get(n, []):
            self._held -= self._sizes.pop(done, 0)
        return result


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    for part in result if isinstance(result, tuple | list) else [result]:
        if isinstance(part, torch.Tensor):
            yield part


def _scores(operator: Any, args: tuple[Any, ...]) -> int:
    """Counts attention's scores: one for each head and pair of a query and a key.

    Some implementations keep them.
    """
    if "scaled_dot_product" not in str(operator) or len(args) < 2:
        return 0
    # (..., positions, width) of both: a score for each pair of positions.
    queries, keys = args[0], args[1]
    return int(math.prod(queries.shape[:-1]) * keys.shape[-2])


def _all_nodes(module: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            yield from part.graph.nodes


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Returns the arguments of a step by name, with the operator's own defaults."""
    schema = getattr(node.target, "_schema", None)
    given: dict[str, Any] = {}
    for index, argument in enumerate(schema.arguments if schema else ()):
        # By position where the step gives so many, else by name, else the default.
        by_name = node.kwargs.get(argument.name, argument.default_value)
        given[argument.name] = node.args[index] if index < len(node.args) else by_name
    return given


def _is_random(node: torch.fx.Node) -> bool:
    # torch's own mark of operators that draw from the generator.
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
