"""Training loop: Adam with a half-cosine learning rate, which can be stopped at any step.

A loop that was stopped is resumed from its state.
"""

import math
from collections.abc import Iterator

import torch
from torch import nn

from wobbliness.attacks.gradients.adam import Adam
from wobbliness.classifiers.torch_module import device_of
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.checkpoints import TrainingState

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainingLoop:
    """Steps of one training: their order, the optimiser, the learning rate, and the losses.

    Args:
        network: what is trained, on any device.
        spec: epochs, batch size, learning rate and seed.
        num_images: in the training set.

    Attributes:
        losses: `(E, S)` of each epoch and step, on the network's device; 0 where it is still to
            come.
        steps_done: over all epochs.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, *, num_images: int) -> None:
        self._network, self._spec, self._num_images = network, spec, num_images
        self._steps_per_epoch = -(-num_images // spec.batch_size)
        self._optimiser = Adam(
            list(network.parameters()), learning_rate=spec.learning_rate, fused=True
        )
        self._order_rng = torch.Generator().manual_seed(spec.seed)
        self._rng_at_epoch = self._order_rng.get_state()
        self.losses = torch.zeros(
            (spec.epochs, self._steps_per_epoch), dtype=torch.float64, device=device_of(network)
        )
        self.steps_done = 0

    @property
    def num_steps(self) -> int:
        """Returns the number of steps over all epochs."""
        return self._steps_per_epoch * self._spec.epochs

    @property
    def epoch(self) -> int:
        """Returns the number of the epoch of the next step, from 0."""
        return self.steps_done // self._steps_per_epoch

    def batches(self) -> Iterator[torch.Tensor]:
        """Yields the indices of the images of each step that is still to come."""
        while self.steps_done < self.num_steps:
            self._rng_at_epoch = self._order_rng.get_state()
            # a resumed epoch draws its order again from the saved state, and skips the steps done
            order = torch.randperm(self._num_images, generator=self._order_rng).to(
                self.losses.device
            )
            yield from torch.split(order, self._spec.batch_size)[
                self.steps_done % self._steps_per_epoch :
            ]

    def step(self, loss: torch.Tensor) -> None:
        """Takes one step of the optimiser."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimiser.step()
        # no number is asked for: an accelerator need not be waited for
        self.losses.view(-1)[self.steps_done] = loss.detach()
        self.steps_done += 1
        self._optimiser.learning_rate *= self._half_cosine(self.steps_done) / self._half_cosine(
            self.steps_done - 1
        )

    def state(self) -> TrainingState:
        """Returns all that the steps to come depend on, after a step."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        for index, moments in self._optimiser.state.items():
            tensors |= {f"optimiser.{index}.{name}": moments[name] for name in MOMENTS}
        tensors |= {"rng_at_epoch": self._next_rng(), "losses": self.losses}
        return TrainingState(
            tensors=tensors,
            facts={
                "steps_done": self.steps_done,
                "learning_rate": self._optimiser.learning_rate,
            },
        )

    def restore(self, state: TrainingState) -> None:
        """Restores a state.

        Each moment gets the layout of its weight, for the fused step reads both in the order of
        memory.
        """
        weights = {
            name.removeprefix("network."): tensor
            for name, tensor in state.tensors.items()
            if name.startswith("network.")
        }
        self._network.load_state_dict(weights)
        for index, weight in enumerate(self._optimiser.parameters):
            moments = {name: state.tensors[f"optimiser.{index}.{name}"] for name in MOMENTS}
            moments_of_weight = {"step": moments["step"].to(weight.device, copy=True)}
            moments_of_weight |= {
                name: torch.empty_like(weight.detach()).copy_(moments[name]) for name in MOMENTS[1:]
            }
            self._optimiser.state[index] = moments_of_weight
        self._optimiser.learning_rate = state.facts["learning_rate"]
        self._order_rng.set_state(state.tensors["rng_at_epoch"])
        self.losses.copy_(state.tensors["losses"])
        self.steps_done = state.facts["steps_done"]

    def _half_cosine(self, step: int) -> float:
        """Returns twice the height of the half cosine after a step."""
        return 1 + math.cos(math.pi * step / self.num_steps)

    def _next_rng(self) -> torch.Tensor:
        """Returns the generator's state that draws the order of the next step's epoch."""
        # at an epoch's end the next order is not drawn yet; within one, the state before is kept
        is_epochs_end = self.steps_done % self._steps_per_epoch == 0
        return self._order_rng.get_state() if is_epochs_end else self._rng_at_epoch
