"""Claims, and what a study's tables say on them."""

from collections.abc import Callable
from dataclasses import dataclass

from wobbliness.reports.small_plot import SmallPlot
from wobbliness.study.claims.verdicts import IN_ONE_READING, REPORTED, word_if
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.tables.tables import Tables


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A claim on spread as one measure of spread reads it.

    Attributes:
        name: of the measure.
        holds: whether the claim's rule is fulfilled by it.
    """

    name: str
    holds: bool

    @property
    def verdict(self) -> str:
        """Returns the word for the verdict of this reading alone."""
        return word_if(self.holds)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Statements of a study's tables on a claim.

    Attributes:
        statements: each a short text by itself; the first is the one that counts.
        holds: whether the claim is reproduced by its rule; None for a question without a claim.
        settings: the networks, points and noise that the statements are about.
        readings: of a claim that is read by several measures, each by itself; `holds` is then
            whether all of them fulfil the rule.
        summary: the answer on all networks as one clause for people, where the first statement is
            none.
        number: the one value for an overview of all claims (`Claim.quantity`), as text.
        plot: the statements' numbers at a glance.
    """

    statements: tuple[str, ...]
    holds: bool | None
    settings: str
    readings: tuple[Reading, ...] = ()
    summary: str = ""
    number: str = ""
    plot: SmallPlot | None = None

    @property
    def verdict(self) -> str:
        """Returns the word for the verdict."""
        if self.holds is None:
            return REPORTED
        if not self.holds and any(reading.holds for reading in self.readings):
            return IN_ONE_READING
        return word_if(self.holds)


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
        quantity: what the answer's `number` is.
        wanted: the same in a word or two, with the limit of the rule.
        remark: what a reader needs to know to understand the verdicts, as sentences.
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
    quantity: str = ""
    wanted: str = ""
    remark: str = ""
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
    readings: tuple[Reading, ...] = ()
    summary: str = ""
    number: str = ""
    plot: SmallPlot | None = None

    @property
    def in_short(self) -> str:
        """Returns the summary, or the first statement; empty if it is not measured."""
        return self.summary or "".join(self.statements[:1])

    @property
    def readings_text(self) -> str:
        """Returns the verdict of each reading as one text; empty where there is but one."""
        return "; ".join(f"{reading.name}: {reading.verdict}" for reading in self.readings)

    @property
    def ours(self) -> str:
        """Returns the statements as one text."""
        return "; ".join(self.statements)
