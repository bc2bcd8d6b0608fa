"""Results of `wobbliness bench`: rates of each contender, and the ratios that follow from them."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

# In front of the size of a block that the network alone is run on.
BARE = "bare"
# Ours in checked low precision.
CHECKED = "checked"
# In front of the name of a perturbation that is timed.
FAMILY = "under "
# Behind the name of a detection method: both sides of its comparison.
OURS, LOOP = ", ours", ", published loop"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Forward passes per second of one contender on one network.

    Attributes:
        contender: its name.
        per_second: of each repeat.
        peak_bytes: most memory above that of the process before; None where the system does not
            tell.
        bare_beside: rate of the bare forward pass just before and after it, in each repeat; none
            where it is one of the contenders of each repeat.
    """

    contender: str
    per_second: tuple[float, ...]
    peak_bytes: int | None
    bare_beside: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Returns the median of the repeats."""
        return statistics.median(self.per_second)

    def ratio(self, other: "Rate") -> float:
        """Returns the median over the repeats of this rate / another one."""
        # Ratios first, then their median: a slow minute of the machine falls on both sides.
        return statistics.median(
            a / b for a, b in zip(self.per_second, other.per_second, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """All contenders on one network, in turn in every repeat.

    Attributes:
        network: name of the architecture.
        flops: floating-point operations of one forward pass.
        rates: of the contenders; ours first.
        sgemm: floating-point operations per second of a large matrix product, in each repeat.
        precision: what was done where checked low precision was asked for, in words; None where it
            was not.
    """

    network: str
    flops: float
    rates: tuple[Rate, ...]
    sgemm: tuple[float, ...]
    precision: str | None = None

    def ratio(self, contender: str) -> float | None:
        """Returns the median over the repeats of ours / the contender's best setting.

        None where the contender was not run.
        """
        best = self.best(contender)
        return None if best is None else self.rates[0].ratio(best)

    def family_ratios(self) -> dict[str, float]:
        """Returns the medians of measuring under each perturbation / the bare forward beside it."""
        return {
            rate.contender.removeprefix(FAMILY): statistics.median(
                a / b for a, b in zip(rate.per_second, rate.bare_beside, strict=True)
            )
            for rate in self.rates
            if rate.contender.startswith(FAMILY)
        }

    def method_ratios(self) -> dict[str, float]:
        """Returns the medians of ours / the published loop of each detection method."""
        by_name = {rate.contender: rate for rate in self.rates}
        return {
            method: rate.ratio(by_name[f"{method}{LOOP}"])
            for name, rate in by_name.items()
            if (method := name.removesuffix(OURS)) != name
        }

    def best(self, contender: str) -> Rate | None:
        """Returns the best of a contender's settings by the median; None where it was not run."""
        # The comparison is with others at their best.
        others = (rate for rate in self.rates if rate.contender.startswith(contender))
        return max(others, key=lambda rate: rate.median, default=None)

    @property
    def sgemm_share(self) -> float:
        """Returns the share of the matrix product's rate that ours reaches.

        The rate is that of the whole measurement, end to end.
        """
        return statistics.median(
            a * self.flops / b for a, b in zip(self.rates[0].per_second, self.sgemm, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class DecisionResult:
    """Draws that sequential decisions save on the digits.

    Half of the points are clean, half bear the active trigger.

    Attributes:
        question: `true W` or `all draws`.
        threshold: nats, midway between the halves' medians.
        mean_draws: against the fixed 250.
        undecided: share of points.
        equal: share of the decided points whose decision is that of the 250 draws.
    """

    question: str
    threshold: float
    mean_draws: float
    undecided: float
    equal: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All that was measured, with the settings."""

    draws: int
    repeats: int
    device: str
    networks: tuple[NetworkResult, ...]
    decisions: tuple[DecisionResult, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Returns the benchmark as plain values for JSON."""
        return asdict(self)
