"""Response of a network to images of noise alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.train import NetworkSpec

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("level", "confident_share", "mean_top_score", "entropy_of_classes")


@dataclass(frozen=True, kw_only=True)
class ResponseSpec:
    """All that determines a network's response to images of noise alone.

    The noise is N(0, level^2) in pixel units of [0, 1].
    """

    kind: ClassVar[str] = "response"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    levels: tuple[float, ...]
    num_images: int
    seed: int

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the spec of the network."""
        return (self.network,)

    @property
    def work(self) -> int:
        """Returns 1: all levels of a network."""
        return 1

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks a row of numbers for each level."""
        if (
            tuple(table.columns) != COLUMNS
            or not np.isfinite(table.to_numpy(float)).all()
            or len(table) != len(self.levels)
        ):
            raise ValueError("a table of other columns or levels")


SPEC = ResponseSpec
