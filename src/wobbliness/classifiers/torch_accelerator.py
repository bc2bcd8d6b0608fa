"""A torch module as a classifier on an accelerator, with the noise drawn and the votes counted there."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped, UInt64

from wobbliness.classifiers.base import ScoredClassifier, in_blocks
from wobbliness.classifiers.execution import BYTES_PER_VALUE, Execution
from wobbliness.classifiers.probing import COMPANY, require_close, watched_rows
from wobbliness.classifiers.signature.module_outputs import Reading
from wobbliness.classifiers.signature.wrapped_module import described_steps
from wobbliness.classifiers.torch_module import evaluation_mode, largest_step
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state
from wobbliness.runtime.progress import Advance

# draws made at once, needed or not: a generator's values depend on how many are asked for
PAGE = 256
# of the device's, for the largest step: other steps, weights and work space need room too
MEMORY_SHARE = 1 / 8
ASSUMED_MEMORY = 16 * 2**30  # bytes, of a device that does not tell
MIN_DEVICE_BLOCK, MAX_DEVICE_BLOCK = 250, 2**16  # copies
# blocks between two copies of counts from the device, of which the last one is padded
SHARD_BLOCKS = 16


def device_block_size(device: torch.device, values_per_image: int) -> int:
    """The number of noisy copies classified at once on an accelerator.

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
    """A module on an accelerator that gives logits `(B, K)`.

    It runs eagerly in evaluation mode, in the type of its own parameters and without TF32, so that
    float32 means float32. Noise is drawn on the device and votes are counted there: once the images
    are there, counts are all that crosses. All blocks of a measurement have the same shape, since a
    network's rounding may depend on it. `mps` goes the same way and is untested.

    Attributes:
        module: the module itself, on the device.
        changed_labels: share of labels that autocast changed in the first block of the last
            measurement; None without autocast.
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
            output: name or number of the tensor that says the classes, where the module gives
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
        self._autocast = autocast
        self.changed_labels: float | None = None
        self._is_watched = False  # whether the next block is compared with a small one

    def preprocessing(self) -> dict[str, str]:
        """Also pixel values and layout, and the output where one was asked for."""
        output = {} if self._wanted is None else {"output": str(self._wanted)}
        return super().preprocessing() | output | described_steps(self.module)

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """The class of each image, copied to the device block by block.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        return self.labels_of(self.answers(images, block_size), len(images))

    def answers(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """What it gives for each image before a class is chosen.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        with self._made_ready():
            return np.asarray(in_blocks(self._host_scores, images, block_size))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:
        """Learns the size of a block. The module is held only while it runs, for one caller at a time."""
        self.changed_labels, self._is_watched = None, True
        with self._made_ready(), largest_step(self.module) as values:
            self._first_scores(examples)
        values_per_image = (values[0] // len(examples)) or None
        yield Execution(
            backend="torch",
            device=self._device.type,
            values_per_image=values_per_image,
            block_size=device_block_size(self._device, values_per_image or 2 * examples[0].size),
        )

    def _first_scores(self, examples: Float32[np.ndarray, "B ..."]) -> None:
        """ValueError where the module does not take a block."""
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
    def _made_ready(self) -> Iterator[None]:
        """Evaluation mode and exact float32, undone afterwards."""
        with evaluation_mode(self.module), exact_float32(), torch.inference_mode():
            yield

    def count_votes(
        self,
        images: np.ndarray,
        keys: UInt64[np.ndarray, " N"],
        sigmas: Sequence[float],
        *,
        seed: int,
        draws: range,
        block_size: int,
        advance: Advance,
    ) -> Int[np.ndarray, "N S K"]:
        """The votes of noisy copies of images.

        Args:
            images: `(N, ...)` floats in [0, 1].
            keys: `(N,)` of the noise.
            sigmas: standard deviations that share the draws, pixel units of [0, 1].
            seed: of the noise.
            draws: which draws of each image.
            block_size: copies classified at once; halved, for good, whenever the device's memory
                runs out.
            advance: called with the number of images just done.

        Raises:
            CompanyError: images of the first block have other scores in a small one.
            ValueError: as `classify` does; NaN scores.
            torch.OutOfMemoryError: not even one copy fits.
        """
        counts: list[np.ndarray] = []
        first = 0
        while first < len(images):
            stop = first + _images_per_shard(len(draws), block_size)
            with self._made_ready():
                shard = _Shard(
                    self, images[first:stop], keys[first:stop], sigmas, seed=seed, draws=draws
                )
                block_size = shard.run(block_size)
                counts.append(shard.counts())
            advance(len(counts[-1]))
            first += len(counts[-1])
        return np.concatenate(counts)

    def labels_at(
        self,
        sigmas: Sequence[float],
        images: Float32[torch.Tensor, "B ..."],
        noise: Float32[torch.Tensor, "B ..."],
        num_rows: int,
    ) -> Int[torch.Tensor, "S R"]:
        """Labels of the first `num_rows` images with noise at each sigma; K where a score is NaN."""
        labels = self._labels_at(sigmas, images, noise, autocast=self._autocast)[:, :num_rows]
        self._is_watched = False
        if self._autocast and self.changed_labels is None:
            exact = self._labels_at(sigmas, images, noise, autocast=False)[:, :num_rows]
            self.changed_labels = float((labels != exact).float().mean())
        return labels

    def _labels_at(
        self, sigmas: Sequence[float], images: torch.Tensor, noise: torch.Tensor, *, autocast: bool
    ) -> Int[torch.Tensor, "S B"]:
        noisy = (torch.add(images, noise, alpha=sigma) for sigma in sigmas)
        return torch.stack(
            [_labels_or_nan(self._watched_scores(block, autocast=autocast)) for block in noisy]
        )

    def _watched_scores(
        self, batch: Float32[torch.Tensor, "B ..."], *, autocast: bool
    ) -> Float32[torch.Tensor, "B K"]:
        scores = self._scores(batch, autocast=autocast)
        if self._is_watched and len(batch) > COMPANY:
            rows = watched_rows(len(batch))
            again = self._scores(batch[rows], autocast=autocast)
            require_close(scores[rows].cpu().numpy(), again.cpu().numpy())
        return scores

    def _host_scores(self, images: Float32[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B K"]:
        return np.asarray(
            self._scores(self.on_device(images), autocast=self._autocast).cpu().numpy()
        )

    def on_device(self, images: np.ndarray) -> Float32[torch.Tensor, "B ..."]:
        """A copy of images as float32."""
        return torch.from_numpy(np.array(images, dtype=np.float32, order="C")).to(self._device)

    def _scores(
        self, batch: Float32[torch.Tensor, "B ..."], *, autocast: bool
    ) -> Float32[torch.Tensor, "B K"]:
        """Checked logits; K is learnt from them."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=autocast):
            answer = self._forward(batch.to(self._dtype))
        if self._reading is None:
            self._reading = Reading.of(
                answer, len(batch), wanted=self._wanted, num_classes=self.num_classes
            )
        logits = self._reading.scores(answer)
        if logits.ndim != 2 or len(logits) != len(batch):
            raise ValueError(
                f"expected the module to give logits ({len(batch)}, K), got shape {tuple(logits.shape)}"
            )
        if logits.shape[1] < 2 or self.num_classes not in (None, logits.shape[1]):
            raise ValueError(
                f"expected scores of {self.num_classes or 'at least 2'} classes, got {logits.shape[1]}"
            )
        self.num_classes = logits.shape[1]
        return logits.float()

    def _forward(self, batch: Float[torch.Tensor, "B ..."]) -> object:
        try:
            return self.module(batch)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, TypeError, AssertionError) as error:
            shape = tuple(batch.shape[1:])
            raise ValueError(
                f"expected images that the module accepts, got {shape} each: {reason_of(error)}"
            ) from error


class _Shard:
    """The noisy copies of some images, one image after the other, in blocks of one shape; their votes are fetched once.

    Draws come in pages of PAGE from torch's generator of the device, seeded with a 63-bit digest of
    seed, key and page. So a draw depends on (seed, key, draw) alone and not on how it is reached;
    another kind of device makes other draws. (On the CPU, where tests run it, torch's generator
    reads 32 bits of its seed.)
    """

    def __init__(
        self,
        classifier: AcceleratedClassifier,
        images: np.ndarray,
        keys: UInt64[np.ndarray, " M"],
        sigmas: Sequence[float],
        *,
        seed: int,
        draws: range,
    ) -> None:
        self._classifier, self._images = classifier, classifier.on_device(images)
        self._keys, self._sigmas, self._seed, self._draws = keys, sigmas, seed, draws
        self._num_rows = len(images) * len(draws)
        self._generator = torch.Generator(self._images.device)
        self._page: tuple[tuple[int, int], torch.Tensor] | None = None
        self._counts: torch.Tensor | None = None

    def run(self, block_size: int) -> int:
        """Classifies all copies; the block size that fitted, which is halved whenever the device's memory runs out."""
        first = 0
        while first < self._num_rows:
            labels = self._try_labels(first, block_size)
            if labels is None:
                block_size //= 2
                continue
            self._count(first, labels)
            first += labels.shape[1]
        return block_size

    def counts(self) -> Int[np.ndarray, "M S K"]:
        """The votes.

        Raises:
            ValueError: some scores were NaN.
        """
        assert self._counts is not None
        counts = self._counts.cpu().numpy().reshape(len(self._images), len(self._sigmas), -1)
        if counts[..., -1].any():
            raise ValueError(
                f"expected scores that are numbers, got NaN for {counts[..., -1].sum()} noisy copies"
            )
        return np.asarray(counts[..., :-1])

    def _try_labels(self, first: int, block_size: int) -> Int[torch.Tensor, "S B"] | None:
        """Labels of the next block at each sigma, without those of the padding; None where it needed too much memory."""
        try:
            images, noise = self._block(first, block_size)
            num_rows = min(block_size, self._num_rows - first)
            return self._classifier.labels_at(self._sigmas, images, noise, num_rows)
        except torch.OutOfMemoryError:
            if block_size == 1:
                raise
        if (
            self._images.device.type == "cuda"
        ):  # outside `except`, whose traceback keeps the block's tensors
            torch.cuda.empty_cache()
        return None

    def _count(self, first: int, labels: Int[torch.Tensor, "S B"]) -> None:
        """Adds votes; NaN scores vote for a class K of their own."""
        width, device = (self._classifier.num_classes or 1) + 1, labels.device
        if self._counts is None:
            self._counts = torch.zeros(
                len(self._images) * len(labels) * width, dtype=torch.int64, device=device
            )
        rows = torch.arange(len(labels), device=device)[:, None]
        cells = (
            (self._owners(first, labels.shape[1]) * len(labels) + rows) * width + labels
        ).flatten()
        self._counts.scatter_add_(0, cells, torch.ones_like(cells))

    def _owners(self, first: int, num_rows: int) -> Int[torch.Tensor, " B"]:
        """Which image each row is a copy of; rows beyond the last one count as the last image's."""
        rows = torch.arange(first, first + num_rows, device=self._images.device)
        return rows.clamp_(max=self._num_rows - 1).div_(len(self._draws), rounding_mode="floor")

    def _block(self, first: int, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and their standard-normal draws, row by row; rows beyond the last one have no noise."""
        images = self._images[self._owners(first, num_rows)]
        noise = torch.zeros_like(images)
        for image, start, stop in _split(
            first, min(first + num_rows, self._num_rows), len(self._draws)
        ):
            to_draw = self._draws.start - image * len(self._draws)
            for page, begin, end in _split(start + to_draw, stop + to_draw, PAGE):
                draws = self._normal(image, page)[begin - page * PAGE : end - page * PAGE]
                noise[begin - to_draw - first : end - to_draw - first] = draws
        return images, noise

    def _normal(self, image: int, page: int) -> Float32[torch.Tensor, "B ..."]:
        """A page of an image's draws; the last one is kept, since blocks end within pages."""
        if self._page is None or self._page[0] != (image, page):
            digest = hashlib.blake2b(
                f"{self._seed} {int(self._keys[image])} {page}".encode(), digest_size=8
            ).digest()
            self._generator.manual_seed(int.from_bytes(digest, "little") >> 1)
            shape, device = (PAGE, *self._images.shape[1:]), self._images.device
            draws = torch.randn(
                shape, generator=self._generator, device=device, dtype=torch.float32
            )
            self._page = (image, page), draws
        return self._page[1]


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 in convolutions and matrix products, and the same algorithms every time; set back afterwards."""
    matmul = torch.backends.cuda.matmul
    name, exact = (
        ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    )  # torch >= 2.9, before
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


def _images_per_shard(num_draws: int, block_size: int) -> int:
    """As many images as SHARD_BLOCKS hold, one at least, and no more than one block's worth of them."""
    return min(block_size, max(1, SHARD_BLOCKS * block_size // num_draws))


def _split(first: int, stop: int, length: int) -> Iterator[tuple[int, int, int]]:
    """The parts of first ... stop - 1 that lie within one stretch of `length`: number of the stretch, start, stop."""
    for number in range(first // length, -(-stop // length)):
        yield number, max(first, number * length), min(stop, (number + 1) * length)


def _labels_or_nan(scores: Float32[torch.Tensor, "B K"]) -> Int[torch.Tensor, " B"]:
    """The arg-max (Eq. 1), or K where a score is NaN."""
    return torch.where(scores.isnan().any(dim=1), scores.shape[1], scores.argmax(dim=1))
