"""Measurement of a batch of test points under a network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wobbliness.attacks.base import Attack
from wobbliness.runtime.field_limits import MAX_CLASSES
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_numbers, check_votes, is_number, list_of
from wobbliness.study.specs.cleanse import CleanseSpec
from wobbliness.study.specs.train import NetworkSpec, attack_of, patch_of_name
from wobbliness.study.specs.universal import UniversalSpec

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("point", "label", "sigma", "draws", "top_score", "candidate")


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """All that determines the votes of one batch of test points under one network.

    The points are taken from a random order of the attacked test points (all but the target class;
    all, for a clean network): those from `first_point` on; with `per_class` so many of each class.
    `draws` are ascending checkpoints: votes are kept at each of them. The points are clean, bear a
    trigger, or what was crafted after training: a universal perturbation, or in turn each Neural
    Cleanse candidate of a form, `first` or `smallest`.
    """

    kind: ClassVar[str] = "measure"
    weights_folder: ClassVar[str | None] = None

    network: NetworkSpec
    trigger: Attack | str | None
    crafted: UniversalSpec | CleanseSpec | None = None
    form: str | None = None
    per_class: bool = False
    first_point: int
    num_points: int
    sigmas: tuple[float, ...]
    draws: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        patch_of_name(self, "trigger")

    @property
    def attack(self) -> Attack | None:
        """Returns the trigger as an attack."""
        return attack_of(self.trigger)

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the specs of the network and of what was crafted on it."""
        return (self.network,) if self.crafted is None else (self.network, self.crafted)

    @property
    def work(self) -> int:
        """Returns the number of noisy copies."""
        return self.num_points * len(self.sigmas) * self.draws[-1]

    @property
    def has_candidates(self) -> bool:
        """Checks whether the points bear in turn a pattern for each class."""
        return self.crafted is not None and self.crafted.one_for_each_class

    @property
    def batch_kind(self) -> str:
        """Returns the kind of the batch: clean, active, inactive, or how it was crafted."""
        if self.crafted is not None:
            return self.crafted.batch_kind(self.form)
        if self.attack is None:
            return "clean"
        return "active" if self.trigger == self.network.trigger else "inactive"

    def pattern_label(self, candidate: int | None = None) -> str:
        """Returns the name of what is on the points in tables; empty for clean points.

        Args:
            candidate: class whose candidate is on them, where there is one for each class.
        """
        if self.crafted is not None:
            return self.crafted.pattern_label(self.form, candidate)
        return "" if self.attack is None else self.attack.name

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:
        """Checks accuracies, pictures and votes."""
        if not self.has_candidates:
            accuracies = ("accuracy_on_attacker_labels", "accuracy_on_clean_labels")
            check_numbers(results, accuracies, or_none=True)
        if results.get("attacker_labels_by_class") is not None:
            by_class = list_of(results, "attacker_labels_by_class", MAX_CLASSES)
            if not all(value is None or is_number(value) for value in by_class):
                raise ValueError("attacker_labels_by_class of another kind")
        if results.get("pictures") is not None and not _are_pictures(results["pictures"]):
            raise ValueError("pictures of another kind")
        # no candidate may have been found at all
        if not (table.empty and self.has_candidates):
            self._check_votes(table)

    def _check_votes(self, table: "pd.DataFrame") -> None:
        votes = [name for name in table.columns if name not in MEASURED]
        _check_columns(table, votes)
        # one row per point, sigma and number of draws; several times that by class or candidate
        rows, rest = divmod(len(table), self.num_points * len(self.sigmas) * len(self.draws))
        if rest or rows < 1 or (rows > 1 and not (self.per_class or self.has_candidates)):
            raise ValueError(f"a table of {len(table)} rows for {self.num_points} points")
        is_planned = np.isin(table.sigma, self.sigmas) & np.isin(table.draws, self.draws)
        if len(votes) > MAX_CLASSES or not is_planned.all():
            raise ValueError("a table of other sigmas or draws, or of too many classes")
        _check_counts(table, votes)


def _are_pictures(pictures: Any) -> bool:
    if not isinstance(pictures, dict) or not isinstance(pictures.get("strips"), dict):
        return False
    height, strips = pictures.get("height"), pictures["strips"]
    return (
        isinstance(height, int)
        and height > 0
        and all(
            _is_integer_text(name) and (text is None or isinstance(text, str))
            for name, text in strips.items()
        )
    )


def _check_columns(table: "pd.DataFrame", votes: list[str]) -> None:
    if (
        not set(MEASURED) <= set(table.columns)
        or votes != [f"votes_{index}" for index in range(len(votes))]
        or not votes
    ):
        raise ValueError(
            "a table of other columns than point, label, sigma, draws, top_score, candidate and "
            "votes"
        )


def _check_counts(table: "pd.DataFrame", votes: list[str]) -> None:
    integers = (table[name].dtype for name in ("point", "label", "candidate", "draws"))
    if not all(np.issubdtype(kind, np.integer) for kind in integers):
        raise ValueError("a table in which counts are no integers")
    check_votes(table[votes].to_numpy(), table.draws.to_numpy())
    if table.label.min() < 0:
        raise ValueError("a table in which votes do not add up to the draws")
    if not np.isfinite(table.top_score).all():
        raise ValueError("a table in which a top score is no number")


def _is_integer_text(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 10


SPEC = MeasureSpec
