"""Cells whose records tables are formed of."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from wobbliness.study.records.record import Record
from wobbliness.study.specs import Spec

OneSpec = TypeVar("OneSpec", bound=Spec)


@dataclass(frozen=True, kw_only=True)
class FinishedCell(Generic[OneSpec]):
    """Cell that is done: the claims that need it, its spec, and its record."""

    claims: tuple[str, ...]
    spec: OneSpec
    record: Record


FinishedCells = Iterable[FinishedCell[Spec]]


def of_kind(cells: FinishedCells, kind: type[OneSpec]) -> Iterator[FinishedCell[OneSpec]]:
    """Yields the cells of a kind."""
    for cell in cells:
        if isinstance(cell.spec, kind):
            yield FinishedCell(claims=cell.claims, spec=cell.spec, record=cell.record)
