"""Measurement of clean and triggered test points under perturbations of any kind."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wobbliness.attacks.base import Attack
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.field_limits import MAX_CLASSES, MAX_DRAWS, MAX_POINTS, check_ranges
from wobbliness.study.recorded import check_described
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_votes, checked_vote_columns
from wobbliness.study.specs.train import NetworkSpec, attack_of, patch_of_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("point", "label", "is_triggered", "perturbation")
"""Before the votes; a perturbation is its place in the spec, since records hold numbers alone."""


@dataclass(frozen=True, kw_only=True)
class PerturbSpec:
    """All that determines the votes of test points under perturbations of any kind.

    Clean points are of all classes; as many others, of the classes that are attacked, bear the
    trigger.
    """

    kind: ClassVar[str] = "perturb"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    trigger: Attack | str
    perturbations: tuple[Perturbation, ...]
    num_points: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        patch_of_name(self, "trigger")
        check_described(self, "perturbations", Perturbation)
        check_ranges(self, num_points=(1, MAX_POINTS), draws=(1, MAX_DRAWS))

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
        """Returns the number of perturbed copies."""
        return 2 * self.num_points * len(self.perturbations) * self.draws

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks a row of votes for each point and perturbation."""
        votes = checked_vote_columns(table, COLUMNS)
        num_perturbations = len(self.perturbations)
        if not table.perturbation.isin(range(num_perturbations)).all() or len(votes) > MAX_CLASSES:
            raise ValueError("a table of other perturbations, or of too many classes")
        if len(table) != 2 * self.num_points * num_perturbations:
            raise ValueError(f"a table of {len(table)} rows for {self.num_points} points")
        if table.is_triggered.dtype != bool:
            raise ValueError("a table in which triggered points are not marked")
        check_votes(table[votes].to_numpy(), self.draws)


SPEC = PerturbSpec
