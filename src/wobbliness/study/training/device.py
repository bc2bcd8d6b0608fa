"""Device that the networks of a study run on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Place:
    """Device that the networks of a study run on, and their precision.

    Attributes:
        device: of torch, `cpu` or `cuda`.
        autocast: whether networks are measured in bfloat16 on an accelerator; accuracies never are.
    """

    device: str = "cpu"
    autocast: bool = False

    def check(self) -> None:
        """Checks that this machine has the device, and that autocast is not wanted on the CPU.

        Raises:
            ValueError: the device is missing, or autocast is wanted on the CPU.
        """
        if self != ON_THE_CPU and self.torch_device.type == "cpu" and self.autocast:
            raise ValueError("expected an accelerator for autocast, got the cpu")

    @property
    def torch_device(self) -> "torch.device":
        """Returns the device as torch has it.

        Raises:
            ValueError: this machine has no such device.
        """
        from wobbliness.classifiers.open import checked_device

        device: torch.device = checked_device(self.device)
        return device

    @property
    def name(self) -> str:
        """Returns the device, with its maker's name too, for the record."""
        device = self.torch_device
        if device.type != "cuda":
            return device.type
        import torch

        return f"{device.type} ({torch.cuda.get_device_name(device)})"


ON_THE_CPU = Place()
