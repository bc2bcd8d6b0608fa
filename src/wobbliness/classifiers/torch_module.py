"""A torch module as a classifier, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier, in_blocks
from wobbliness.classifiers.compiled import compile_module, disagreement
from wobbliness.classifiers.onnx_graph import OnnxGraph
from wobbliness.errors import reason_of
from wobbliness.execution import Execution


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """A fixed number of torch's threads, which also fixes the order of its sums; set back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


CPU = torch.device("cpu")


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module's parameters and buffers are, by the first of them; one without any is taken to be on the CPU."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), CPU)


def has_fast_bfloat16(device: torch.device = CPU) -> bool:
    """Whether the processor, or an accelerator, has instructions for products in bfloat16."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; each part's own mode is set back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


class TorchClassifier(ScoredClassifier):
    """A module on the CPU that gives logits `(B, K)`.

    It is compiled to an ONNX graph and checked on real inputs (see `compiled.disagreement`); where that fails it runs eagerly,
    channels-last, in the type of its own parameters. Either way in evaluation mode and on one core per calling thread, so that a
    measurement uses each core once and rounds alike for any number of workers.

    Attributes:
        module: the module itself.
    """

    thread_safe = True

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        num_classes: int | None = None,
        compiled: bool = True,
        image_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Wraps a module.

        Args:
            module: gives logits `(B, K)` for a batch of images.
            num_classes: K, to be checked against the logits.
            compiled: whether to compile it where that can be done.
            image_shape: of one image, where it is known.
        """
        self.num_classes, self.image_shape = num_classes, image_shape
        self.module = module
        tensors = (tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point())
        self._dtype = next(tensors, torch.empty(0)).dtype
        self._is_channels_last = True
        self._wants_compiled = compiled
        self._graph: OnnxGraph | None = None

    def classify(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        if self._graph is None:
            return self.labels_of(in_blocks(self._eager_scores, images, block_size), len(images))
        return self.labels_of(self._graph.run(images, block_size), len(images))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:
        """Evaluation mode, one thread per call, and the compiled graph where it agrees with the module; all undone afterwards."""
        with evaluation_mode(self.module), torch_threads(1):
            with largest_step(self.module) as values_per_image:
                scores = self._eager_scores(examples)
            self._graph, reason = self._compiled(examples, scores)
            try:
                yield Execution(
                    backend="torch" if self._graph is None else "onnxruntime",
                    reason=reason,
                    values_per_image=(values_per_image[0] // len(examples)) or None,
                )
            finally:
                self._graph = None

    def _compiled(self, examples: np.ndarray, scores: np.ndarray) -> tuple[OnnxGraph | None, str | None]:
        if not self._wants_compiled:
            return None, "eager as asked"
        if self._dtype != torch.float32:
            return None, f"its parameters are {self._dtype}, not torch.float32"
        compilation = compile_module(self.module, examples)
        if compilation.graph is None:
            return None, compilation.reason
        reason = disagreement(compilation.graph, examples, scores)
        return (compilation.graph, None) if reason is None else (None, reason)

    def _eager_scores(self, images: Float32[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B K"]:
        with torch.inference_mode():
            logits = self._forward(torch.from_numpy(images).to(dtype=self._dtype))
        if logits.ndim != 2:
            raise ValueError(f"expected the module to give logits ({len(images)}, K), got shape {tuple(logits.shape)}")
        return logits.float().numpy()

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        try:
            logits = self._run(batch)
        except (RuntimeError, IndexError, TypeError, AssertionError) as error:
            reason = reason_of(error)
            raise ValueError(f"expected images that the module accepts, got {tuple(batch.shape[1:])} each: {reason}") from error
        if not isinstance(logits, torch.Tensor):
            raise ValueError(f"expected the module to give a tensor of logits, got {type(logits).__name__}")
        return logits

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        """Channels-last, unless the module cannot: `x.view(n, -1)` wants contiguous features. Then never again."""
        if batch.ndim == 4 and self._is_channels_last:
            try:
                return self.module(batch.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]
            except RuntimeError:
                logits: torch.Tensor = self.module(batch)
                self._is_channels_last = False
                return logits
        return self.module(batch)  # type: ignore[no-any-return]


@contextmanager
def largest_step(module: torch.nn.Module) -> Iterator[list[int]]:
    """While open, keeps in a list of one the most values seen in input and output of one part that has no parts of its own."""
    most = [0]

    def note(_: torch.nn.Module, inputs: object, output: object) -> None:
        tensors = [value for value in (*(inputs if isinstance(inputs, tuple) else ()), output) if isinstance(value, torch.Tensor)]
        most[0] = max(most[0], sum(tensor.numel() for tensor in tensors))

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    hooks = [part.register_forward_hook(note) for part in leaves if not isinstance(part, torch.jit.ScriptModule)]
    try:
        yield most
    finally:
        for hook in hooks:
            hook.remove()
