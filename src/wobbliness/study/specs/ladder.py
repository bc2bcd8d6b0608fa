"""Measurement of clean and triggered test points on a ladder of Gaussian noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wobbliness.attacks.base import Attack
from wobbliness.runtime.field_limits import (
    MAX_CLASSES,
    MAX_DRAWS,
    MAX_POINTS,
    MAX_SIGMA,
    check_ranges,
)
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_votes, checked_vote_columns
from wobbliness.study.specs.train import NetworkSpec, attack_of, patch_of_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("point", "label", "is_triggered", "l2", "contrast", "sigma")
"""Before the votes; `l2` and `contrast` are norms of what the trigger changes in the point."""


@dataclass(frozen=True, kw_only=True)
class LadderSpec:
    """All that determines the votes of clean and triggered points at each sigma of a ladder.

    Clean points are of all classes; as many others, of the classes that are attacked, bear the
    trigger. The change that the trigger makes in each is recorded by two norms: l2, and contrast,
    the largest change of a value.
    """

    kind: ClassVar[str] = "ladder"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    trigger: Attack | str
    sigmas: tuple[float, ...]
    num_points: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        patch_of_name(self, "trigger")
        check_ranges(self, sigmas=(0, MAX_SIGMA), num_points=(1, MAX_POINTS), draws=(1, MAX_DRAWS))

    @property
    def attack(self) -> Attack | None:
        """Returns the trigger as an attack."""
        return attack_of(self.trigger)

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the spec of the network."""
        return (self.network,)

    @property
    def work(self) -> int:
        """Returns the number of noisy copies."""
        return 2 * self.num_points * len(self.sigmas) * self.draws

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks a row of norms and votes for each point and sigma."""
        votes = checked_vote_columns(table, COLUMNS)
        if len(votes) > MAX_CLASSES or not table.sigma.isin(self.sigmas).all():
            raise ValueError("a table of other sigmas, or of too many classes")
        if len(table) != 2 * self.num_points * len(self.sigmas):
            raise ValueError(f"a table of {len(table)} rows for {self.num_points} points")
        self._check_values(table, len(votes))
        check_votes(table[votes].to_numpy(), self.draws)

    def _check_values(self, table: "pd.DataFrame", num_classes: int) -> None:
        if table.is_triggered.dtype != bool or not np.issubdtype(table.label.dtype, np.integer):
            raise ValueError("a table in which labels or triggered points are of another kind")
        if table.label.min() < 0 or table.label.max() >= num_classes:
            raise ValueError("a table in which a label is no class")
        # A NaN would spread into the means of the tables without a word.
        if not np.isfinite(table[["l2", "contrast"]].to_numpy(float)).all():
            raise ValueError("a table in which a norm is no number")


SPEC = LadderSpec
