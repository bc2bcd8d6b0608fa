"""Where the networks of a study run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how the networks of a study run.

    Attributes:
        device: of torch, `cpu` or `cuda`.
        autocast: whether networks are measured in bfloat16 on an accelerator; accuracies never are.
    """

    device: str = "cpu"
    autocast: bool = False

    def check(self) -> None:
        """ValueError where this machine has no such device, or autocast is wanted on the CPU."""
        if self != ON_THE_CPU and self.torch_device.type == "cpu" and self.autocast:
            raise ValueError("expected an accelerator for autocast, got the cpu")

    @property
    def torch_device(self) -> "torch.device":
        """The device as torch has it; ValueError where this machine has no such device."""
        from wobbliness.classifiers.open import checked_device

        device: torch.device = checked_device(self.device)
        return device

    @property
    def name(self) -> str:
        """The device by its maker's name too, for the record."""
        device = self.torch_device
        if device.type != "cuda":
            return device.type
        import torch

        return f"{device.type} ({torch.cuda.get_device_name(device)})"


ON_THE_CPU = Place()
