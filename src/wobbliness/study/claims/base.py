"""Claims, what a study's tables say on them, and the words of the verdicts."""

from collections.abc import Callable
from dataclasses import dataclass

from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.tables.tables import Tables

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED, REPORTED = (
    "reproduced",
    "not reproduced",
    "not measured",
    "reported",
)
"""`reported` stands where the paper claims nothing and we measured all the same."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Statements of a study's tables on a claim.

    Attributes:
        statements: each a short text by itself; the first is the one that counts.
        holds: whether the claim is reproduced by its rule; None for a question without a claim.
        settings: the networks, points and noise that the statements are about.
    """

    statements: tuple[str, ...]
    holds: bool | None
    settings: str

    @property
    def verdict(self) -> str:
        """Returns the word for the verdict."""
        if self.holds is None:
            return REPORTED
        return REPRODUCED if self.holds else NOT_REPRODUCED


def lacks_nothing(tables: Tables) -> str:  # noqa: ARG001
    """Returns an empty text: the recipe has what the claim needs once its cells are recorded."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper, or a further question.

    Attributes:
        id: C1, C2 ... for claims of the paper, X1, X2 ... for further questions.
        topic: the claim in a few words.
        claim: what is claimed, in a sentence.
        paper: where, and with which figure.
        rule: when we call it reproduced.
        find: what the tables say on it; called once all of its cells are recorded.
        tables: names of the tables whose rows are its evidence.
        figures: those that belong to it.
        measured_with: the claim whose cells answer it, where it has none of its own.
        only_if_planned: it is listed only for recipes that plan cells for it.
        lacks: what the recipe lacks for it whatever is recorded, as a text; empty if nothing.
    """

    id: str
    topic: str
    claim: str
    paper: str
    rule: str
    find: Callable[[Tables], Answer]
    tables: tuple[str, ...] = ()
    figures: tuple[FigureFile, ...] = ()
    measured_with: str = ""
    only_if_planned: bool = False
    lacks: Callable[[Tables], str] = lacks_nothing

    @property
    def cells_of(self) -> str:
        """Returns the id of the claim whose cells it is measured with."""
        return self.measured_with or self.id

    @property
    def is_of_the_paper(self) -> bool:
        """Checks whether the paper claims it, or it is a further question."""
        return self.id.startswith("C")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of a study on one claim; without statements if it is not measured."""

    claim: Claim
    statements: tuple[str, ...]
    verdict: str
    settings: str

    @property
    def ours(self) -> str:
        """Returns the statements as one text."""
        return "; ".join(self.statements)
