"""Measurement of clean, active and inactive batches under one family of perturbations."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wobbliness.attacks.base import Attack
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.find import perturbation_kinds
from wobbliness.runtime.field_limits import (
    MAX_CLASSES,
    MAX_DRAWS,
    MAX_POINTS,
    check_choice,
    check_names,
    check_ranges,
)
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_numbers, check_votes, checked_vote_columns
from wobbliness.study.specs.train import NetworkSpec, attack_of, patch_of_name

if TYPE_CHECKING:
    import pandas as pd

BATCHES = ("clean", "active", "inactive")
"""Batches of a record, by their number: without a trigger, with the network's own, with another."""

COLUMNS = ("point", "label", "batch", "clean_label")
"""Before the votes; `clean_label` is the prediction without a perturbation."""

MAX_LEVEL = 1e6


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a family of perturbations: constant, or linear in the level.

    Attributes:
        name: of the setting, as the family's class has it.
        value: at level 0.
        per_level: added for each unit of the level, where the value is a number.
    """

    name: str
    value: float | int | str = 0.0
    per_level: float = 0.0

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_ranges(self, per_level=(-MAX_LEVEL, MAX_LEVEL))

    def at(self, level: float) -> float | int | str:
        """Returns the value at a level."""
        # A constant stays as it is: a text, or a whole number.
        if self.per_level == 0 or isinstance(self.value, str):
            return self.value
        return self.value + self.per_level * level


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A family of perturbations with one level, as data; it holds no image.

    Attributes:
        name: in tables.
        kind: of the family, as `wobbliness perturbations` lists it.
        settings: of the family; a setting that the family takes as a ladder has as many rungs as
            draws, evenly spaced from its value at level 0 (left out) to that at the level.
        most: highest level to try; None where the family has no level, and is taken as it is.

    Raises:
        ValueError: there is no such family, or a number is out of range.
    """

    name: str
    kind: str
    settings: tuple[Setting, ...] = ()
    most: float | None = None

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_choice(self, "kind", tuple(perturbation_kinds()))
        check_ranges(self, most=(0, MAX_LEVEL))

    def at(self, level: float, *, overlays: Any, draws: int) -> Perturbation:
        """Returns the perturbation of a level.

        Args:
            level: from 0 to `most`.
            overlays: clean images, for a family that mixes them in.
            draws: rungs of a ladder.
        """
        of = perturbation_kinds()[self.kind]
        # The signature says which settings are ladders, so that no list of families is kept.
        takes = inspect.signature(of).parameters
        ladders = {name for name, value in takes.items() if value.kind is value.VAR_POSITIONAL}
        # Level 0 is left out: it would spend a draw on the unperturbed image.
        steps = [level * (rung + 1) / draws for rung in range(draws)]
        rungs = [one.at(step) for one in self.settings if one.name in ladders for step in steps]
        named = {one.name: one.at(level) for one in self.settings if one.name not in ladders}
        # A spec holds no images; the cell takes overlays from the test split.
        made: Perturbation = of(
            *rungs, **named, **({"overlays": overlays} if "overlays" in takes else {})
        )
        return made


@dataclass(frozen=True, kw_only=True)
class NoiseSpec:
    """All that determines W of three batches of a network under a family of perturbations.

    The level is the one at which a share of the labels of clean test points changes. Of a random
    order of all test points, the first `num_images` are those, as many more are the overlays of
    families that mix them in, then come the clean points, and of the rest those that are attacked:
    they bear the network's own trigger, and once more the inactive one.

    Attributes:
        network: clean or poisoned.
        noise: the family.
        trigger: the network's own; on a clean network one that it never met.
        inactive: another one.
        shift: share of the labels that shall change, in (0, 1).
        num_images: clean points that the level is found on.
        num_points: of each batch.
        draws: perturbed copies of each point; at most those that the family has.
        seed: of points and draws.

    Raises:
        ValueError: the two triggers are the same, or a number is out of range.
    """

    kind: ClassVar[str] = "noise"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    noise: Noise
    trigger: Attack | str
    inactive: Attack | str
    shift: float
    num_images: int
    num_points: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        patch_of_name(self, "trigger")
        patch_of_name(self, "inactive")
        check_ranges(self, shift=(0, 1), num_images=(2, MAX_POINTS), num_points=(2, MAX_POINTS))
        check_ranges(self, draws=(1, MAX_DRAWS))
        if self.trigger == self.inactive:
            raise ValueError(
                f"expected an inactive trigger other than {self.attacks[0].name}, got the same"
            )

    @property
    def attacks(self) -> tuple[Attack, Attack]:
        """Returns the triggers of the second and of the third batch."""
        active, inactive = attack_of(self.trigger), attack_of(self.inactive)
        if active is None or inactive is None:
            raise TypeError("no trigger in the place of one")
        return active, inactive

    @property
    def is_active(self) -> bool:
        """Checks whether the network was trained on the trigger of the second batch."""
        return self.network.threat is not None and self.trigger == self.network.trigger

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the spec of the network."""
        return (self.network,)

    @property
    def work(self) -> int:
        """Returns the number of perturbed copies; matching takes about as many for each family."""
        return len(BATCHES) * self.num_points * self.draws

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:
        """Checks the level that was found, and a row of votes for each point of three batches."""
        check_numbers(results, ("changed", "draws"))
        # None of families that have no level.
        check_numbers(results, ("level",), or_none=True)
        if not isinstance(results.get("is_matched"), bool):
            raise ValueError("is_matched of another kind")
        votes = checked_vote_columns(table, COLUMNS)
        if len(votes) > MAX_CLASSES or not 1 <= results["draws"] <= self.draws:
            raise ValueError("a table of too many classes, or of other draws")
        self._check_rows(table, len(votes))
        check_votes(table[votes].to_numpy(), results["draws"])

    def _check_rows(self, table: "pd.DataFrame", num_classes: int) -> None:
        if not all(np.issubdtype(table[name].dtype, np.integer) for name in COLUMNS):
            raise ValueError("a table in which points or labels are no integers")
        # By value: all batches have to be there, and no other one.
        sizes = table.batch.value_counts()
        if sorted(sizes.items()) != [(place, self.num_points) for place in range(len(BATCHES))]:
            raise ValueError(f"a table of {len(table)} rows for {self.num_points} points a batch")
        labels = table[["label", "clean_label"]].to_numpy()
        # Labels are compared with, and index, the columns of votes.
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError("a table in which a label is no class")


SPEC = NoiseSpec
