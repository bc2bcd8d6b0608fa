"""Scores of a detector on clean and triggered test points."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wobbliness.attacks.base import Attack
from wobbliness.detectors.base import Detector
from wobbliness.runtime.field_limits import MAX_POINTS, check_ranges
from wobbliness.study.recorded import check_described
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.train import NetworkSpec, attack_of, patch_of_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("is_triggered", "score")


@dataclass(frozen=True, kw_only=True)
class DetectSpec:
    """All that determines a detector's scores of test points under a network.

    It is fitted on clean points of all classes and scores others: clean ones of all classes, and
    triggered ones of the classes that are attacked.
    """

    kind: ClassVar[str] = "detect"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    trigger: Attack | str
    detector: Detector
    num_points: int
    seed: int

    def __post_init__(self) -> None:
        patch_of_name(self, "trigger")
        check_described(self, "detector", Detector)
        check_ranges(self, num_points=(1, MAX_POINTS))

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
        """Returns the number of points, fitted on and scored."""
        return 3 * self.num_points

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks scores, as many of clean as of triggered points."""
        if tuple(table.columns) != COLUMNS or table.is_triggered.dtype != bool:
            raise ValueError(f"a table of other columns than {', '.join(COLUMNS)}")
        if not 2 <= len(table) <= 2 * self.num_points or 2 * table.is_triggered.sum() != len(table):
            raise ValueError(f"a table of {len(table)} scores for {self.num_points} points")
        if not np.isfinite(table.score.to_numpy(float)).all():
            raise ValueError("a table in which a score is no number")


SPEC = DetectSpec
