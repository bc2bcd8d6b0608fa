"""Reverse-engineering of a trigger for each class of a network, by Neural Cleanse."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from wobbliness.runtime.field_limits import MAX_CLASSES, shown
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_plain, is_number, list_of
from wobbliness.study.specs.train import NetworkSpec

if TYPE_CHECKING:
    import pandas as pd

CANDIDATES = {"first": "candidate, first", "smallest": "candidate, smallest"}
"""Kinds of batches with such a candidate, in tables, by the candidate's form."""

FORMS = tuple(CANDIDATES)


@dataclass(frozen=True, kw_only=True)
class CleanseSpec:
    """All that determines the Neural Cleanse candidates of a network.

    They are crafted on the last `num_images` test points in the order that measurements take theirs
    from the front.
    """

    kind: ClassVar[str] = "cleanse"
    weights_folder: ClassVar[str | None] = "perturbations"
    one_for_each_class: ClassVar[bool] = True

    network: NetworkSpec
    num_images: int
    restarts: int
    max_steps: int
    seed: int

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the spec of the network."""
        return (self.network,)

    @property
    def work(self) -> int:
        """Returns the number of steps of each class."""
        return self.restarts * self.max_steps

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks rows of a form, a class and plain values.

        There are as many anomaly indices as classes.
        """
        index = list_of(results, "anomaly_index", MAX_CLASSES)
        flagged = list_of(results, "flagged", MAX_CLASSES)
        # one candidate of each form for each class at most
        candidates = list_of(results, "candidates", len(FORMS) * len(index))
        are_numbers = all(value is None or is_number(value) for value in index)
        if not are_numbers or not all(map(is_number, flagged)):
            raise ValueError("anomaly_index or flagged of another kind")
        for row in candidates:
            _check_candidate(row, len(index))

    def batch_kind(self, form: str | None) -> str:
        """Returns the kind of a batch with candidates of a form on."""
        return CANDIDATES[form or ""]

    def pattern_label(self, form: str | None, candidate: int | None) -> str:
        """Returns the name of the candidate of a class in tables; of all of them, none."""
        return "" if candidate is None else f"candidate {candidate}, {form}"


def _check_candidate(row: Any, num_classes: int) -> None:
    if (
        not isinstance(row, dict)
        or row.get("form") not in FORMS
        or not isinstance(row.get("found"), bool)
    ):
        raise ValueError(f"a candidate of another kind, {shown(row)}")
    target_class = row.get("target_class")
    if not isinstance(target_class, int) or not 0 <= target_class < num_classes:
        raise ValueError(f"a candidate of class {shown(target_class)} out of {num_classes}")
    check_plain({name: value for name, value in row.items() if name != "form"}, ())


SPEC = CleanseSpec
