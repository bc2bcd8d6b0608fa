"""Random cells of another image in place of the input's."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share
from wobbliness.perturbations.mixing.overlays import as_overlays
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch

MAX_CELLS = 256


@dataclass(frozen=True)
class CellMix:
    """Each cell of a grid is replaced by that of a random overlay, with a probability.

    One overlay a draw. As FMix (Harris et al. 2020) and cell-wise mixes do in training.

    Attributes:
        overlays: `(M, C, H, W)` clean images of the inputs' shape, or `Overlays`.
        share: probability that a cell is replaced.
        cells: of each side of the grid; where the side is no multiple, cells differ by a pixel.

    Raises:
        ValueError: no proper overlays, a share out of range, or cells not from 1 to 256.
    """

    overlays: Any
    share: float = 0.7
    cells: int = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlays", as_overlays(self.overlays))
        object.__setattr__(self, "share", checked_level(self.share, "a share", at_most=1.0))
        if self.cells != int(self.cells) or not 1 <= self.cells <= MAX_CELLS:
            raise ValueError(f"expected cells from 1 to {MAX_CELLS}, got {self.cells}")

    @property
    def name(self) -> str:
        """The name in records and tables; it ends with a digest of the overlays."""
        return f"cell-mix-{shown_level(self.share)}-{self.cells}-{self.overlays.digest}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        grid = f"a grid of {self.cells} x {self.cells}"
        return f"random cells of {grid}, {shown_share(self.share)} of them, are another image's"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with its replaced cells; one random word of each cell decides."""
        _, height, width = checked_picture(image, "cell-mix")
        is_replaced = self._is_replaced(stream, draws)
        rows, columns = (self._cell_of(size) for size in (height, width))
        overlays, chosen = self.overlays.like(image), self.overlays.chosen(stream, draws)
        out[:] = image
        where = is_replaced[:, rows][:, :, columns]
        np.copyto(out, overlays[chosen], where=where[:, None])

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        import torch

        rows, columns = (
            draws.constant(f"{self.cells} cells of {size}", partial(self._cell_of, size))
            for size in images.shape[2:]
        )
        # Cells become pixels by indexing, whether or not the side is a multiple of them.
        where = draws.from_host(self._is_replaced)[:, rows][:, :, columns]
        return torch.where(where[:, None], self.overlays.lowered_chosen(draws), images)

    def _is_replaced(self, stream: Stream, draws: int) -> Bool[np.ndarray, "B G G"]:
        """Returns which cells are replaced in each copy."""
        words = stream.words("cell-mix", self.cells**2, draws)
        # Compared as 64-bit integers: of share 1 the limit is 2^32.
        is_replaced = words < np.uint64(round(self.share * 2**32))
        return is_replaced.reshape(draws, self.cells, self.cells)

    def _cell_of(self, size: int) -> Int[np.ndarray, " N"]:
        """Returns which row or column of cells each pixel of a side lies in."""
        # In integers: where the side is no multiple, cells differ by one pixel at most.
        return np.arange(size) * self.cells // size
