"""Another image in place of all of the input but a random box."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import shown_level
from wobbliness.perturbations.mixing.overlays import as_overlays
from wobbliness.perturbations.shapes import LARGEST, SMALLEST, BoxSides, checked_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class KeepBox:
    """Only a random box of the input is kept; the rest is a random overlay.

    The complement of `BoxMix`, as SentiNet (Chou et al. 2020) pastes a region onto other images: a
    trigger within the box is carried over to the overlay. Height, width and place are uniform over
    all whole numbers.

    Attributes:
        overlays: `(M, C, H, W)` clean images of the inputs' shape, or `Overlays`.
        smallest: side of the box, as a share of the picture's side.
        largest: the same; equal shares give boxes of one size.

    Raises:
        ValueError: no proper overlays, or sides out of range.
    """

    overlays: Any
    smallest: float = SMALLEST
    largest: float = LARGEST

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlays", as_overlays(self.overlays))
        self._sides  # noqa: B018 - checks them

    @property
    def _sides(self) -> BoxSides:
        return BoxSides(self.smallest, self.largest)

    @property
    def name(self) -> str:
        """The name in records and tables; it ends with a digest of the overlays."""
        sides = f"{shown_level(self.smallest)}-{shown_level(self.largest)}"
        return f"keep-box-{sides}-{self.overlays.digest}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"all of it but a rectangle, {self._sides.area} of it, is another image"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes overlays with a box of the image in each."""
        checked_picture(image, "keep-box")
        # The boxes and overlays of `BoxMix` at the same seed: copies are complements.
        boxes = self._sides.boxes(stream, image.shape[1:], draws)
        overlays, chosen = self.overlays.like(image), self.overlays.chosen(stream, draws)
        np.take(overlays, chosen, axis=0, out=out)
        # The whole overlay first, then the box of the input over it.
        for row, box in enumerate(boxes):
            out[(row, ..., *box)] = image[(..., *box)]

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        import torch

        overlays = self.overlays.lowered_chosen(draws)
        return torch.where(self._sides.lowered(images, draws), images, overlays)
