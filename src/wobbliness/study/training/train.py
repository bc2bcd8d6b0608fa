"""Training of clean and poisoned networks, deterministic for a seed."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import nn

from wobbliness.attacks.base import Attack
from wobbliness.attacks.poisoning import PoisonedData, backdoor_accuracy, poisoned_by
from wobbliness.classifiers.torch_accelerator import exact_float32
from wobbliness.classifiers.torch_module import CPU, device_of, has_fast_bfloat16, torch_threads
from wobbliness.runtime.progress import Progress, progress_bar
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.checkpoints import Checkpoint
from wobbliness.study.training.data import ImageData
from wobbliness.study.training.loop import TrainingLoop
from wobbliness.study.training.networks import Normalise, build_network
from wobbliness.study.training.smooth_adv import adversarial_shift, noise_of_step, noisy_copies

EVALUATION_BATCH, ACCELERATOR_EVALUATION_BATCH = 50, 1000
# of each training: networks are trained side by side, and the order of every sum is fixed
THREADS = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """Trained network and its results.

    `backdoor_accuracy` is None for a clean network. `losses` holds the mean training loss of each
    epoch. `precision` is that of the products while training; the weights and everything measured
    are float32.
    """

    network: nn.Sequential
    clean_accuracy: float
    backdoor_accuracy: float | None
    losses: Float[np.ndarray, " E"]
    poisoned_indices: Int[np.ndarray, " P"]
    precision: str


def training_precision(device: torch.device = CPU) -> str:
    """Returns the precision of the products while training.

    `bfloat16` on a device with instructions for it, where it doubles the speed and costs no
    accuracy; else `float32`.
    """
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def train_network(
    spec: NetworkSpec,
    data: ImageData,
    *,
    device: torch.device = CPU,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainedNetwork:
    """Trains one network as the spec says, with Adam and a half-cosine learning rate.

    With `spec.smoothing` on noisy or adversarial copies of each batch (`SmoothAdv`).

    Channels-last, products in `training_precision(device)`, one fused step of the optimiser for all
    weights. On the CPU the result depends on the spec, the data, the processor's precision and the
    library versions, and on nothing else; an accelerator gives another network, and its sums need
    not come out alike the next time.

    Args:
        spec: architecture, poisoning, epochs, seed.
        data: image set with the images in [0, 1].
        device: where it is trained; the network stays there.
        progress: called with (steps done, steps in all), in place of a bar on the terminal.
        checkpoint: training is resumed from its state, if it holds one, and saves to it; the
            result is the same to the bit.
    """
    shape = data.train.images.shape
    network = build_network(
        spec.architecture, shape[1:], data.train.num_classes, seed=spec.seed
    ).to(device)
    training_set = _training_set(spec, data)
    images, labels = (
        torch.from_numpy(part).to(device) for part in (training_set.images, training_set.labels)
    )
    with torch_threads(THREADS), exact_float32():
        _fit_normalisation(network, images)
        losses = _fit(network, images, labels, spec, progress, checkpoint)
        network.eval()
        return TrainedNetwork(
            network=network,
            clean_accuracy=float((predict(network, data.test.images) == data.test.labels).mean()),
            backdoor_accuracy=None
            if spec.attack is None
            else triggered_accuracy(network, spec, data, spec.attack),
            losses=losses,
            poisoned_indices=training_set.indices,
            precision=training_precision(device),
        )


def predict(network: nn.Module, images: Float32[np.ndarray, "N C H W"]) -> Int[np.ndarray, " N"]:
    """Returns `(N,)` the clean predictions: the class of each image without noise."""
    return logits_of(network, images).argmax(dim=1).numpy()


def top_scores(
    network: nn.Module, images: Float32[np.ndarray, "N C H W"]
) -> Float32[np.ndarray, " N"]:
    """Returns `(N,)` the highest softmax score for each image without noise."""
    return torch.softmax(logits_of(network, images), dim=1).amax(dim=1).numpy()


def logits_of(network: nn.Module, images: Float32[np.ndarray, "N C H W"]) -> torch.Tensor:
    """Returns `(N, K)` logits in float32 on the CPU.

    In batches that fit the cache of a processor or fill an accelerator.
    """
    device = device_of(network)
    with torch.inference_mode(), exact_float32():
        batches = torch.split(
            torch.from_numpy(images),
            EVALUATION_BATCH if device == CPU else ACCELERATOR_EVALUATION_BATCH,
        )
        logits = [
            # channels-last is what the convolutions run fastest on
            network(batch.to(device).contiguous(memory_format=torch.channels_last))
            for batch in batches
        ]
        return torch.cat(logits).cpu()


def triggered_accuracy(
    network: nn.Module, spec: NetworkSpec, data: ImageData, stamp: Attack
) -> float:
    """Computes the backdoor accuracy of a trigger on the test split.

    The network may have been trained on another trigger, or on none.
    """
    if spec.threat is None:
        raise ValueError("expected the spec of a poisoned network, got a clean one")
    predicted = predict(network, stamp.apply(data.test.images))
    return backdoor_accuracy(
        predicted, data.test.labels, threat=spec.threat, num_classes=data.test.num_classes
    )


def _training_set(spec: NetworkSpec, data: ImageData) -> PoisonedData:
    train = data.train
    if spec.threat is None or spec.attack is None:
        return PoisonedData(images=train.images, labels=train.labels, indices=np.empty(0, np.int64))
    return poisoned_by(
        spec.attack,
        train.images,
        train.labels,
        threat=spec.threat,
        num_classes=train.num_classes,
        seed=spec.seed,
    )


def _fit_normalisation(network: nn.Sequential, images: torch.Tensor) -> None:
    if not isinstance(network[0], Normalise):
        raise TypeError("a network of this package starts with its normalisation")
    network[0].fit(images)


def _fit(
    network: nn.Sequential,
    images: torch.Tensor,
    labels: torch.Tensor,
    spec: NetworkSpec,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> Float[np.ndarray, " E"]:
    loop = TrainingLoop(network, spec, num_images=len(labels))
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        loop.restore(state)
    network.train()
    with progress_bar("training", loop.num_steps, report=progress) as advance:
        advance(loop.steps_done)
        for batch in loop.batches():
            inputs, targets = _inputs(network, images[batch], labels[batch], spec, loop)
            loop.step(nn.functional.cross_entropy(_logits(network, inputs), targets))
            advance(1)
            if checkpoint is not None:
                checkpoint.save_if_due(loop.state)
    return np.asarray(loop.losses.cpu().mean(dim=1).numpy())


def _inputs(
    network: nn.Sequential,
    images: torch.Tensor,
    labels: torch.Tensor,
    spec: NetworkSpec,
    loop: TrainingLoop,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what the next step trains on: the batch, or its noisy and adversarial copies."""
    smoothing = spec.smoothing
    if smoothing is None:
        return images.contiguous(memory_format=torch.channels_last), labels
    noise = noise_of_step(smoothing, tuple(images.shape), seed=spec.seed, step=loop.steps_done)
    noise = noise.to(images.device)
    # In evaluation mode each image is by itself, and statistics of batches stay as they are.
    network.eval()
    shift = adversarial_shift(
        partial(_logits, network),
        images,
        labels,
        noise,
        epsilon=smoothing.epsilon_at(loop.epoch),
        steps=smoothing.steps,
    )
    network.train()
    return noisy_copies(images + shift, noise), labels.repeat(smoothing.copies)


def _logits(network: nn.Sequential, inputs: torch.Tensor) -> torch.Tensor:
    with torch.autocast(
        inputs.device.type, torch.bfloat16, enabled=training_precision(inputs.device) == "bfloat16"
    ):
        logits: torch.Tensor = network(inputs)
    return logits.float()
