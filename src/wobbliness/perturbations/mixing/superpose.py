"""Superposition of other images, the perturbation of STRIP."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.mixing.overlays import as_overlays

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Superpose:
    """Draw j superposes overlay j, so there are as many draws as overlays.

    STRIP (Gao et al. 2019) adds images and lets the sum saturate at 1; the mean halves both. The
    entropy of the votes is STRIP's with labels in place of scores. Overlays must not be among the
    inputs that are judged.

    Attributes:
        overlays: `(M, ...)` clean images of the inputs' shape, or `Overlays`.
        mix: `mean` or `sum` (clipped to [0, 1]).

    Raises:
        ValueError: another mix, or no proper overlays.
    """

    overlays: Any
    mix: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlays", as_overlays(self.overlays))
        if self.mix not in ("mean", "sum"):
            raise ValueError(f"expected mix as mean or sum, got {self.mix!r}")

    @property
    def name(self) -> str:
        """The name in records and tables; it ends with a digest of the overlays."""
        return f"superpose-{self.mix}-{self.overlays.digest}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        if self.mix == "sum":
            return "another image is added to it"
        return "it is blended with another image, half of each"

    @property
    def num_draws(self) -> int:
        """The number of overlays."""
        return len(self.overlays)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes (image + overlay) / 2, or min(image + overlay, 1)."""
        # The draws of this page take the next overlays.
        overlays = self.overlays.like(image)[stream.first : stream.first + draws]
        np.add(image, overlays, out=out)
        # Neither can leave [0, 1] below; the sum alone can above.
        if self.mix == "mean":
            out *= np.float32(0.5)
        else:
            np.minimum(out, np.float32(1), out=out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        copies: torch.Tensor = images + self.overlays.lowered(draws)[draws.numbers()]
        return copies.mul_(0.5) if self.mix == "mean" else copies.clamp_(max=1)
