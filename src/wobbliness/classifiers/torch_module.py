"""A torch module as a classifier."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """A fixed number of torch's threads, which also fixes the order of its sums; set back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchClassifier(ScoredClassifier):
    """A module that gives logits `(B, K)`.

    It runs on the device and in the type of its own parameters, in evaluation mode; on the CPU channels-last and on one core per
    calling thread, so that a measurement uses each core once and rounds alike for any number of workers.
    """

    def __init__(self, module: torch.nn.Module, *, num_classes: int | None = None) -> None:
        self.num_classes = num_classes
        self._module = module
        parameter = next(module.parameters(), torch.empty(0))
        self._device, self._dtype = parameter.device, parameter.dtype
        self._is_channels_last = True
        self.thread_safe = self._device.type == "cpu"

    def classify(self, images: Float32[np.ndarray, "B ..."]) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        batch = torch.from_numpy(images).to(device=self._device, dtype=self._dtype)
        with torch.inference_mode():
            logits = self._forward(batch)
        if logits.ndim != 2:
            raise ValueError(f"expected the module to give logits ({len(images)}, K), got shape {tuple(logits.shape)}")
        return self.labels_of(logits.float(), len(images))

    @contextmanager
    def session(self) -> Iterator[None]:
        """Evaluation mode and one thread per call; both are set back afterwards."""
        modes = [(module, module.training) for module in self._module.modules()]
        try:
            self._module.eval()
            with torch_threads(1):
                yield
        finally:
            for module, training in modes:
                module.training = training

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        try:
            logits = self._run(batch)
        except (RuntimeError, IndexError, TypeError, AssertionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"expected images that the module accepts, got {tuple(batch.shape[1:])} each: {reason}") from error
        if not isinstance(logits, torch.Tensor):
            raise ValueError(f"expected the module to give a tensor of logits, got {type(logits).__name__}")
        return logits

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        """Channels-last, unless the module cannot: `x.view(n, -1)` wants contiguous features. Then never again."""
        if batch.ndim == 4 and self._is_channels_last:
            try:
                return self._module(batch.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]
            except RuntimeError:
                logits: torch.Tensor = self._module(batch)
                self._is_channels_last = False
                return logits
        return self._module(batch)  # type: ignore[no-any-return]
