"""Verdicts on claims: words, symbols and meanings, the one place that pages take them from."""

from dataclasses import dataclass

REPRODUCED = "reproduced"
IN_ONE_READING = "in one reading"
NOT_REPRODUCED = "not reproduced"
REPORTED = "reported"
NOT_MEASURED = "not measured"
NOT_IN_STUDY = "not in this study"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict as readers see it.

    Attributes:
        word: in tables and pages.
        symbol: one character where there is no room for the word.
        meaning: when a claim gets it, as a clause.
        tone: of the style's colours: good, half, bad or none.
    """

    word: str
    symbol: str
    meaning: str
    tone: str


VERDICTS = (
    Verdict(
        word=REPRODUCED,
        symbol="✔",
        meaning="the study's numbers fulfil the claim's rule",
        tone="good",
    ),
    Verdict(
        word=IN_ONE_READING,
        symbol="◐",
        meaning="the rule is fulfilled by one measure of spread and not by the other",
        tone="half",
    ),
    Verdict(
        word=NOT_REPRODUCED,
        symbol="✘",
        meaning="the numbers do not fulfil the rule",
        tone="bad",
    ),
    Verdict(
        word=REPORTED,
        symbol="•",
        meaning="a question to which the paper has no answer",
        tone="none",
    ),
    Verdict(
        word=NOT_MEASURED,
        symbol="○",
        meaning="records that the study plans for it are missing",
        tone="none",
    ),
    Verdict(
        word=NOT_IN_STUDY,
        symbol="\N{EN DASH}",
        meaning="the study's recipe has no networks or batches for it",
        tone="none",
    ),
)
"""All verdicts, in the order in which pages list them."""


def verdict_of(word: str) -> Verdict:
    """Returns the verdict of a word.

    Raises:
        ValueError: no verdict has the word.
    """
    for verdict in VERDICTS:
        if verdict.word == word:
            return verdict
    raise ValueError(
        f"expected a verdict out of {', '.join(one.word for one in VERDICTS)}, got {word!r}"
    )


def word_if(holds: bool) -> str:
    """Returns the word for a rule that is fulfilled, or is not."""
    return REPRODUCED if holds else NOT_REPRODUCED
