"""A torch module as a classifier on an accelerator."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped

from wobbliness.classifiers.base import ScoredClassifier, in_blocks
from wobbliness.classifiers.execution import BYTES_PER_VALUE, Execution
from wobbliness.classifiers.signature.module_outputs import Reading
from wobbliness.classifiers.signature.wrapped_module import described_steps
from wobbliness.classifiers.torch_module import evaluation_mode, largest_step
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state

# Share of the device's memory for the largest step: other steps, weights and workspace need room.
MEMORY_SHARE = 1 / 8
# Bytes, of a device whose memory is unknown.
ASSUMED_MEMORY = 16 * 2**30
# Copies: fewer leave the device idle between its kernels, more gain nothing.
MIN_DEVICE_BLOCK, MAX_DEVICE_BLOCK = 250, 2**16


def device_block_size(device: torch.device, values_per_image: int) -> int:
    """Computes the number of noisy copies classified at a time on an accelerator.

    The largest step of the network, its input and output for a whole block as float32, takes
    MEMORY_SHARE of the device's memory, but a block has MIN_DEVICE_BLOCK to MAX_DEVICE_BLOCK
    copies. The rule reads sizes alone: a repeat on the same device runs the same blocks.

    Args:
        device: where the network runs; others than `cuda` are taken to have ASSUMED_MEMORY.
        values_per_image: of the largest step.
    """
    memory = (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else ASSUMED_MEMORY
    )
    fitting = int(MEMORY_SHARE * memory) // (BYTES_PER_VALUE * values_per_image)
    return max(MIN_DEVICE_BLOCK, min(MAX_DEVICE_BLOCK, fitting))


class AcceleratedClassifier(ScoredClassifier):
    """A classifier around a module on an accelerator that gives logits `(B, K)`.

    It runs eagerly in evaluation mode, in the type of its own parameters and without TF32, so that
    float32 means float32. Copies are made and votes are counted on its device, too
    (`wobbliness.sampling.counting.device_counting`). `mps` is treated alike and is untested.

    Attributes:
        module: the module itself, on the device.
        is_reduced: whether autocast runs it in bfloat16 where torch does so.
    """

    thread_safe = False

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        device: torch.device,
        num_classes: int | None = None,
        autocast: bool = False,
        image_shape: tuple[int | None, ...] | None = None,
        output: str | int | None = None,
    ) -> None:
        """Wraps a module.

        Args:
            module: gives logits `(B, K)` for a batch of images; lies on `device`.
            device: where it runs.
            num_classes: K, to be checked against the logits.
            autocast: run it in bfloat16 where torch's autocast does so: faster, and some labels
                differ. Their share is measured on the first block of a measurement.
            image_shape: of one image, where it is known.
            output: name or number of the tensor that predicts the classes, where the module gives
                several.
        """
        self.num_classes, self.image_shape = num_classes, image_shape
        self.module, self._device = module, device
        self._wanted = output
        self._reading: Reading | None = None
        self._dtype = next(
            (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()),
            torch.float32,
        )
        self.is_reduced = autocast

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps around the module: pixel values, layout, and a chosen output."""
        output = {} if self._wanted is None else {"output": str(self._wanted)}
        return super().preprocessing() | output | described_steps(self.module)

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each image, copied to the device block by block.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        return self.labels_of(self.answers(images, block_size), len(images))

    def answers(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """Returns the module's answers before a class is chosen.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        with self.made_ready():
            return np.asarray(in_blocks(self._host_scores, images, block_size))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:
        """Determines the block size.

        The module is held only while it runs, for one caller at a time.
        """
        with self.made_ready(), largest_step(self.module) as values:
            self._first_scores(examples)
        values_per_image = (values[0] // len(examples)) or None
        # Without leaf modules nothing is known: the image itself, in and out, is the least.
        yield Execution(
            backend="torch",
            device=self._device.type,
            values_per_image=values_per_image,
            block_size=device_block_size(self._device, values_per_image or 2 * examples[0].size),
        )

    def _first_scores(self, examples: Float32[np.ndarray, "B ..."]) -> None:
        """Computes scores of examples; raises ValueError where the module refuses the block."""
        try:
            self._host_scores(examples)
        except ValueError as error:
            self._reading = None
            try:
                self._host_scores(examples[:1])
            except Exception:  # of any kind
                raise error from None
            raise ValueError(
                f"{error}; it takes one image at a time, which the cpu does: device='cpu'"
            ) from error

    @contextmanager
    def made_ready(self) -> Iterator[None]:
        """Sets evaluation mode and exact float32, and restores both afterwards."""
        with evaluation_mode(self.module), exact_float32(), torch.inference_mode():
            yield

    def device_scores(
        self, batch: Float32[torch.Tensor, "B ..."], *, exact: bool
    ) -> Float32[torch.Tensor, "B K"]:
        """Computes validated logits of a batch on the device.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
            torch.OutOfMemoryError: the batch is too large.
        """
        return self._scores(batch, autocast=self.is_reduced and not exact)

    def _host_scores(self, images: Float32[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B K"]:
        return np.asarray(
            self._scores(self.on_device(images), autocast=self.is_reduced).cpu().numpy()
        )

    def on_device(self, images: np.ndarray) -> Shaped[torch.Tensor, "B ..."]:
        """Copies images to the device as float32, or token ids as integers."""
        values = self.as_input(np.array(images, dtype=np.float32, order="C"))
        return torch.from_numpy(values).to(self._device)

    def _scores(
        self, batch: Shaped[torch.Tensor, "B ..."], *, autocast: bool
    ) -> Float32[torch.Tensor, "B K"]:
        """Computes validated logits; K is set from the first ones."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=autocast):
            answer = self._forward(batch if self.takes_integers else batch.to(self._dtype))
        if self._reading is None:
            self._reading = Reading.of(
                answer, len(batch), wanted=self._wanted, num_classes=self.num_classes
            )
        logits = self._reading.scores(answer)
        self._check_logits(logits, batch)
        self.num_classes = logits.shape[1]
        return logits.float()

    def _check_logits(self, logits: torch.Tensor, batch: torch.Tensor) -> None:
        """Checks shapes alone: reading values would wait for the device."""
        if logits.ndim != 2 or len(logits) != len(batch):
            raise ValueError(
                f"expected the module to give logits ({len(batch)}, K), got shape "
                f"{tuple(logits.shape)}"
            )
        if logits.shape[1] < 2 or self.num_classes not in (None, logits.shape[1]):
            raise ValueError(
                f"expected scores of {self.num_classes or 'at least 2'} classes, got "
                f"{logits.shape[1]}"
            )

    def _forward(self, batch: Shaped[torch.Tensor, "B ..."]) -> object:
        try:
            return self.module(batch)
        # It is a RuntimeError, too: the caller tries again with a smaller batch.
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, TypeError, AssertionError) as error:
            shape = tuple(batch.shape[1:])
            raise ValueError(
                f"expected images that the module accepts, got {shape} each: {reason_of(error)}"
            ) from error


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disables TF32 and non-deterministic algorithms, and restores the settings afterwards.

    This concerns convolutions and matrix products.
    """
    matmul = torch.backends.cuda.matmul
    # torch 2.9 renamed the switch.
    name, exact = (
        ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    )
    with (
        borrowed_state(),
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            allow_tf32=False,
            deterministic=True,
            benchmark=False,
        ),
    ):
        before = getattr(matmul, name)
        setattr(matmul, name, exact)
        try:
            yield
        finally:
            setattr(matmul, name, before)
