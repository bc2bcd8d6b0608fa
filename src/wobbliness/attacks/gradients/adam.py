"""Adam, bit for bit torch's own, without the import of torch's compiler.

That import takes seconds in every process that trains.
"""

from collections.abc import Sequence

import torch
from torch.optim.adam import adam

EPSILON = 1e-8


class Adam:
    """Optimiser with the steps of `torch.optim.Adam`.

    Torch's own imports its compiler even where nothing is compiled.

    Args:
        parameters: to be optimised, in place.
        learning_rate: of the next step; may be set at any time.
        betas: decay rates of both moments.
        fused: whether one kernel makes the step of all parameters.

    Attributes:
        state: `step`, `exp_avg` and `exp_avg_sq` by the index of each parameter that has made a
            step.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        fused: bool | None = None,
    ) -> None:
        self.parameters, self.learning_rate = list(parameters), learning_rate
        self.state: dict[int, dict[str, torch.Tensor]] = {}
        self._betas, self._fused = betas, fused

    def zero_grad(self) -> None:
        """Drops the gradients."""
        # None instead of zeros, as in torch: a parameter without gradient makes no step at all.
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Makes one step downhill of every parameter that has a gradient."""
        moving = [
            index for index, parameter in enumerate(self.parameters) if parameter.grad is not None
        ]
        states = [self._state(index) for index in moving]
        # Torch's functional form: the same kernel as the class, without its bookkeeping.
        adam(
            [self.parameters[index] for index in moving],
            [grad for index in moving if (grad := self.parameters[index].grad) is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],  # the largest second moments, of amsgrad alone
            [state["step"] for state in states],
            fused=self._fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def _state(self, index: int) -> dict[str, torch.Tensor]:
        """Returns the moments of a parameter, 0 before its first step.

        The steps are counted where torch counts them.
        """
        parameter = self.parameters[index]
        if index not in self.state:
            # A fused kernel reads the step on the device, the others on the CPU.
            place = parameter.device if self._fused else torch.device("cpu")
            self.state[index] = {"step": torch.zeros((), dtype=torch.float32, device=place)}
            self.state[index] |= {
                name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")
            }
        return self.state[index]
