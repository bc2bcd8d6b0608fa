"""A random box of another image in place of the input's."""

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
class BoxMix:
    """A random box of the input is replaced by the same place of a random overlay.

    The operation of CutMix (Yun et al. 2019) as a perturbation: a trigger outside of the box stays,
    the image's own content goes. Height, width and place are uniform over all whole numbers.

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
        return f"box-mix-{sides}-{self.overlays.digest}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"a rectangle of another image covers {self._sides.area} of it"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with a box of an overlay in each copy."""
        checked_picture(image, "box-mix")
        out[:] = image
        # Words for the boxes and for the choice of the overlay have purposes of their own.
        boxes = self._sides.boxes(stream, image.shape[1:], draws)
        overlays, chosen = self.overlays.like(image), self.overlays.chosen(stream, draws)
        # A slice of each copy: boxes differ in size, so there is no one array of them.
        for row, box in enumerate(boxes):
            out[(row, ..., *box)] = overlays[(chosen[row], ..., *box)]

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        import torch

        overlays = self.overlays.lowered_chosen(draws)
        # A mask, since boxes of many sizes are no one slice of the block.
        return torch.where(self._sides.lowered(images, draws), overlays, images)
