"""Parts that every kind of cell has: a spec that determines its result, and a name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from wobbliness.study.identity import IDENTITY_SCHEMA, identity

if TYPE_CHECKING:
    import pandas as pd
SCHEMA_VERSION = 4
READ_SCHEMAS = (3, 4)  # of files; 4 may leave out fields that 3 did not have

Results = Mapping[str, Any]


@runtime_checkable
class Spec(Protocol):
    """All that determines the result of a cell.

    A frozen dataclass in a file of its own, which the rest of the study finds by the kind's name:
    `specs/KIND.py` holds it as `SPEC`, `cells/KIND.py` runs it.

    Attributes:
        kind: what the cell does; the first part of its name.
        weights_folder: where the cell leaves a file besides its record; None where it leaves none.
    """

    kind: ClassVar[str]
    weights_folder: ClassVar[str | None]

    @property
    def network(self) -> Any:
        """The `NetworkSpec` of the network that the cell is about."""
        ...

    @property
    def needs(self) -> tuple["Spec", ...]:
        """The specs of the cells that have to be done before, in this order."""
        ...

    @property
    def work(self) -> int:
        """Units of work that cells of the kind differ in: epochs, noisy copies, steps."""
        ...

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:
        """Checks results and table of the cell, before anything is formed of them.

        Raises:
            ValueError: something is missing, of another type, or not of this cell; the message
                names it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of work and the claims that need it."""

    spec: Spec
    claims: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Returns `train`, `universal`, `cleanse`, `response`, `measure` or another kind."""
        return self.spec.kind

    # Both are asked for in every pass over the cells of a study, and cost a walk through the spec.
    @cached_property
    def name(self) -> str:
        """Returns the cell's file name: its kind and a hash of its spec."""
        return cell_name(self.spec)

    @cached_property
    def needs(self) -> str | None:
        """Returns the name of the cell that has to be done before this one."""
        before = self.spec.needs
        return cell_name(before[-1]) if before else None


def cell_name(spec: Spec) -> str:
    """Returns the kind and a hash of the identity of a spec.

    Names are equal for equal specs, in any process.
    """
    # sorted keys: the order of fields in the class is no part of the name
    text = json.dumps({"schema": IDENTITY_SCHEMA, **identity(spec)}, sort_keys=True)
    return f"{spec.kind}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
