"""The votes that low precision may have changed, as an audit of some of them tells."""

from dataclasses import dataclass

from wobbliness.statistics.tolerance import binomial_lower_bound, binomial_upper_bound

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ChangedVotes:
    """Votes of a measurement in checked low precision, at one perturbation.

    Votes of small margins were cast again in float32. Of the others a random part was audited: cast
    again, too, and counted as float32 has them.

    Attributes:
        num_votes: all of them.
        num_low: votes whose margin was large enough in low precision, audited ones included.
        num_audited: of these, cast again in float32.
        num_changed: audited votes that float32 cast for another class.
    """

    num_votes: int
    num_low: int
    num_audited: int
    num_changed: int

    @classmethod
    def none_of(cls, num_votes: int) -> "ChangedVotes":
        """Returns those of votes that float32 has cast."""
        return cls(num_votes=num_votes, num_low=0, num_audited=0, num_changed=0)

    def __add__(self, other: "ChangedVotes") -> "ChangedVotes":
        """Adds those of other votes."""
        return ChangedVotes(
            num_votes=self.num_votes + other.num_votes,
            num_low=self.num_low + other.num_low,
            num_audited=self.num_audited + other.num_audited,
            num_changed=self.num_changed + other.num_changed,
        )

    @property
    def share(self) -> float:
        """Returns the estimated share of all votes that differ from those of float32."""
        if not self.num_audited:
            return 0.0
        left = self.num_low - self.num_audited
        return self.num_changed / self.num_audited * left / self.num_votes

    def upper_bound(self, confidence: float = CONFIDENCE) -> float:
        """Computes a one-sided upper bound of the share of all votes that differ from float32's.

        Clopper-Pearson, from the audited votes: of D changed ones among `num_low` votes, of which
        `num_audited` were drawn without replacement, the number drawn varies less than a binomial
        one.
        """
        if self.num_low == self.num_audited:
            return 0.0
        changed = self.num_low * binomial_upper_bound(
            self.num_changed, self.num_audited, confidence
        )
        # Changed votes that the audit found are counted as float32 has them.
        return (changed - self.num_changed) / self.num_votes

    def lower_bound(self, confidence: float) -> float:
        """Computes a one-sided lower bound of the share of votes that low precision changes."""
        changed = binomial_lower_bound(self.num_changed, self.num_audited, confidence)
        return self.num_low * changed / self.num_votes
