"""Claims side by side over several studies: symbols, numbers, and a paragraph for each claim."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from wobbliness.study.claims.base import Claim, Finding
from wobbliness.study.claims.verdicts import VERDICTS, Verdict, verdict_of


@dataclass(frozen=True, kw_only=True)
class StudyFinding:
    """Finding of a study, by the study's name."""

    study: str
    finding: Finding

    @property
    def verdict(self) -> Verdict:
        """Returns the verdict with its symbol."""
        return verdict_of(self.finding.verdict)


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """Claim, and the finding of each study that lists it."""

    claim: Claim
    found: tuple[StudyFinding, ...]

    @property
    def measured(self) -> list[StudyFinding]:
        """Returns the findings with statements."""
        return [one for one in self.found if one.finding.statements]

    @property
    def others(self) -> list[tuple[str, list[str]]]:
        """Returns the names of the other studies, by the words of their verdicts."""
        without = [one for one in self.found if not one.finding.statements]
        words = dict.fromkeys(one.finding.verdict for one in without)
        return [
            (word, [one.study for one in without if one.finding.verdict == word]) for word in words
        ]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """First screen of several studies.

    Attributes:
        studies: names of those that list claims of the paper, in order.
        claims: claims of the paper.
        questions: further ones, of all studies.
        legend: verdicts that occur among the claims.
    """

    studies: tuple[str, ...]
    claims: tuple[ClaimRow, ...]
    questions: tuple[ClaimRow, ...]
    legend: tuple[Verdict, ...]


def overview(studies: Sequence[tuple[str, Sequence[Finding]]]) -> Overview:
    """Puts the findings of studies side by side.

    Args:
        studies: name and findings of each; a study of further questions alone has no column.
    """
    claims = tuple(_rows(studies, lambda claim: claim.is_of_the_paper))
    words = {one.finding.verdict for row in claims for one in row.found}
    return Overview(
        studies=tuple(
            name
            for name, findings in studies
            if any(finding.claim.is_of_the_paper for finding in findings)
        ),
        claims=claims,
        questions=tuple(_rows(studies, lambda claim: not claim.is_of_the_paper)),
        legend=tuple(verdict for verdict in VERDICTS if verdict.word in words),
    )


def _rows(
    studies: Sequence[tuple[str, Sequence[Finding]]], is_wanted: Callable[[Claim], bool]
) -> Iterator[ClaimRow]:
    """Yields the wanted claims in the order in which the first study lists them."""
    claims = {
        finding.claim.id: finding.claim
        for _, findings in studies
        for finding in findings
        if is_wanted(finding.claim)
    }
    for claim in claims.values():
        found = [
            StudyFinding(study=name, finding=finding)
            for name, findings in studies
            for finding in findings
            if finding.claim.id == claim.id
        ]
        yield ClaimRow(claim=claim, found=tuple(found))
