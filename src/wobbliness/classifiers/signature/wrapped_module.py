"""Wrappers of a torch module: other pixel values, one score for two classes."""

import torch

from wobbliness.classifiers.signature.pixel_scale import PixelScale, described_scale


class DescribedModule(torch.nn.Module):
    """A module that describes the steps around its author's module."""

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps as a text for each kind, for comparisons."""
        return {}


class ScaledPixels(DescribedModule):
    """A module that takes images in [0, 1] and passes pixel values of the inner module's range."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, module: torch.nn.Module, scale: PixelScale) -> None:
        super().__init__()
        self.module, self.scale = module, scale
        # Buffers move with the module; these are no part of its weights, which stay the author's.
        for name, column in zip(("mean", "std"), scale.columns(4), strict=True):
            self.register_buffer(name, torch.from_numpy(column.copy()), persistent=False)
        self.image_shape = getattr(module, "image_shape", None)

    def preprocessing(self) -> dict[str, str]:
        """Describes its pixel values, and the steps inside."""
        return described_steps(self.module) | described_scale(self.scale)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the inner module's answer."""
        self.scale.check_channels(tuple(images.shape))
        shape = (-1, *[1] * (images.ndim - 2))
        values = images * (self.scale.high - self.scale.low) + self.scale.low
        scaled = (values - self.mean.view(shape).to(images)) / self.std.view(shape).to(images)
        return self.module(scaled)  # type: ignore[no-any-return]


class TwoClasses(DescribedModule):
    """A module of two scores, 0 and score - threshold, around one of a single score.

    Class 1 begins above the threshold.
    """

    def __init__(self, module: torch.nn.Module, threshold: float) -> None:
        super().__init__()
        self.module, self.threshold = module, threshold
        self.image_shape = getattr(module, "image_shape", None)

    def preprocessing(self) -> dict[str, str]:
        """Describes its threshold, and the steps inside."""
        return described_steps(self.module) | {"threshold": f"{self.threshold:g}"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes two scores `(B, 2)`.

        Raises:
            ValueError: the module gives more than one score.
        """
        score = self.module(images)
        if not isinstance(score, torch.Tensor) or score.shape[1:].numel() != 1:
            found = tuple(score.shape) if isinstance(score, torch.Tensor) else type(score).__name__
            raise ValueError(f"expected one score for each image with a threshold, got {found}")
        above = (score.flatten(1) if score.ndim > 1 else score[:, None]) - self.threshold
        # At the threshold both are 0, and the arg-max takes class 0.
        return torch.cat([torch.zeros_like(above), above], dim=1)


def described_steps(module: torch.nn.Module) -> dict[str, str]:
    """Describes the steps around a module, for comparisons; nothing without a wrapper."""
    return module.preprocessing() if isinstance(module, DescribedModule) else {}


def threshold_of(module: torch.nn.Module) -> float | None:
    """Returns the threshold of class 1: 0.5 if the last step is a sigmoid, None if unknown."""
    while isinstance(module, torch.nn.Sequential):
        # What keeps values as they are does not count as the last step.
        steps = [
            part for part in module if not isinstance(part, torch.nn.Flatten | torch.nn.Identity)
        ]
        if not steps:
            return None
        module = steps[-1]
    return 0.5 if isinstance(module, torch.nn.Sigmoid) else None
