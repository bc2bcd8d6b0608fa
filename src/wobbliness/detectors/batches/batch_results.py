"""Result of the test of a suspect batch against a clean one, and its words."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from wobbliness.detectors.batches.destination_results import ELSEWHERE, DestinationComparison
from wobbliness.detectors.inputs.noise_level import Level, shown_level
from wobbliness.statistics.holm import holm_pvalues
from wobbliness.statistics.two_sample import LeveneTest, MannWhitneyTest

SMOOTHER, WOBBLIER, NO_DIFFERENCE = "smoother", "wobblier", "no difference"
MIN_POWER = 0.9
NUMBERS = {1: "one", 2: "two", 3: "three"}


@dataclass(frozen=True, kw_only=True)
class SigmaComparison:
    """Both batches at one sigma.

    Attributes:
        sigma: standard deviation of the noise, pixel units of [0, 1]; or the name of another
            perturbation.
        clean_mean: nats, mean W of the clean points compared with.
        suspect_mean: nats, mean W of the suspect points.
        smoother: is W of the suspect points lower?
        wobblier: is it higher? Its effect size is the share of pairs in which the clean W is the
            lower one.
        levene: the paper's test, which does not see the sign.
    """

    sigma: Level
    clean_mean: float
    suspect_mean: float
    smoother: MannWhitneyTest
    wobblier: MannWhitneyTest
    levene: LeveneTest


@dataclass(frozen=True, kw_only=True)
class BoxMixTest:
    """The second test of a verdict: the same suspect points under `BoxMix`.

    Attributes:
        at: the comparison, by the name of the perturbation.
        num_clean: clean points compared with; nothing is chosen, so all that are not mixed in.
        num_overlays: clean images that are mixed in, and compared with nothing.
    """

    at: SigmaComparison
    num_clean: int
    num_overlays: int


@dataclass(frozen=True, kw_only=True)
class BatchComparison:
    """Result of the test of a suspect batch against a clean one.

    Attributes:
        level: false-positive rate of either verdict, smoother and wobblier, on batches of clean
            points.
        sigma: at which the directional tests are read and the verdict is given; or the name of
            another perturbation.
        levene_sigma: at which the paper's test is read; it needs more noise, since its outlier
            removal deletes every W > 0 of a batch that is mostly zeros.
        power: probability that the directional test would find a fully smooth batch (W = 0) of this
            size at this level; of two tests the larger one, each at half the level.
        num_clean: clean points compared with.
        num_for_sigma: clean points on which sigma was chosen; 0 where it was given.
        num_suspect: suspect points.
        at: the comparison at each sigma, ascending, then under other perturbations.
        box_mix: the second test of the verdict; None where there is one test alone.
        destinations: a further test, of where the same votes go; its p-value is not corrected. None
            where it was not asked for.
        precision: where checked low precision was asked for, in words whether it was used, and why
            not; None where it was not asked for.
    """

    level: float
    sigma: Level
    levene_sigma: Level
    power: float
    num_clean: int
    num_for_sigma: int
    num_suspect: int
    at: tuple[SigmaComparison, ...]
    box_mix: BoxMixTest | None = None
    destinations: DestinationComparison | None = None
    precision: str | None = None

    def __getitem__(self, sigma: Level) -> SigmaComparison:
        """Returns the comparison at one of the sigmas, or by the name of a perturbation."""
        for comparison in self.at:
            if comparison.sigma == sigma:
                return comparison
        raise KeyError(
            f"expected a sigma out of {', '.join(shown_level(row.sigma) for row in self.at)}, got "
            f"{sigma!r}"
        )

    @property
    def tests(self) -> tuple[SigmaComparison, ...]:
        """The comparisons that the verdict is read from: at sigma, and under box mix."""
        here = self[self.sigma]
        return (here,) if self.box_mix is None else (here, self.box_mix.at)

    @property
    def smoother_pvalues(self) -> Float[np.ndarray, " T"]:
        """The p-values of `smoother` of each test of the verdict, corrected for their number.

        By `holm_pvalues`: with it each test that is said to have spoken may be believed, too, where
        Bonferroni's correction is as good for the verdict alone.
        """
        return self._corrected([row.smoother.pvalue for row in self.tests])[: len(self.tests)]

    @property
    def wobblier_pvalues(self) -> Float[np.ndarray, " T"]:
        """Likewise those of `wobblier`."""
        return self._corrected([row.wobblier.pvalue for row in self.tests])[: len(self.tests)]

    def _corrected(self, pvalues: list[float]) -> Float[np.ndarray, " P"]:
        """Corrects p-values of W for the number of tests; that of the destinations stands last."""
        last = [] if self.destinations is None else [self.destinations.pvalue]
        return holm_pvalues([*pvalues, *last])

    @property
    def num_tests(self) -> int:
        """The number of tests that p-values are corrected for."""
        return len(self.tests) + (self.destinations is not None)

    @property
    def num_tests_in_words(self) -> str:
        """Returns the number, such as `two tests`."""
        return f"{NUMBERS[self.num_tests]} test{'s' if self.num_tests > 1 else ''}"

    @property
    def corrected_destinations(self) -> DestinationComparison | None:
        """The test of the destinations with its p-value corrected; None where there is none.

        With smoother as with wobblier: the larger one of both corrected p-values.
        """
        if self.destinations is None:
            return None
        both = ([getattr(row, way).pvalue for row in self.tests] for way in (SMOOTHER, WOBBLIER))
        pvalue = max(float(self._corrected(pvalues)[-1]) for pvalues in both)
        return replace(self.destinations, pvalue=pvalue)

    @property
    def goes_elsewhere(self) -> bool:
        """Checks whether the votes go elsewhere than those of clean inputs, corrected."""
        found = self.corrected_destinations
        return found is not None and found.verdict == ELSEWHERE

    @property
    def verdict(self) -> str:
        """Returns `smoother`, `wobblier` or `no difference`.

        By the directional tests at the chosen sigma and, where it is tested, under box mix.
        """
        if self.smoother_pvalues.min() <= self.level:
            return SMOOTHER
        return WOBBLIER if self.wobblier_pvalues.min() <= self.level else NO_DIFFERENCE

    @property
    def pvalue(self) -> float:
        """The p-value of the verdict, corrected for the number of tests; without one, smoother's.

        It is at most the level exactly where the verdict is given.
        """
        return float(self._pvalues.min())

    @property
    def spoke(self) -> tuple[Level, ...]:
        """The sigma, and the name of the perturbation, of each test that supports the verdict."""
        return tuple(row.sigma for row, _ in self._speaking)

    @property
    def _pvalues(self) -> Float[np.ndarray, " T"]:
        return self.wobblier_pvalues if self.verdict == WOBBLIER else self.smoother_pvalues

    @property
    def _speaking(self) -> tuple[tuple[SigmaComparison, float], ...]:
        """The tests that support the verdict, each with its corrected p-value."""
        pairs = zip(self.tests, self._pvalues.tolist(), strict=True)
        return tuple((row, pvalue) for row, pvalue in pairs if pvalue <= self.level)

    @property
    def is_powerful(self) -> bool:
        """Checks whether a fully smooth batch would most likely have been found.

        Only then does finding none mean something.
        """
        return self.power >= MIN_POWER

    def explanation(self) -> str:
        """Returns the verdict in plain words, with what it does not say."""
        return f"{self._verdict_words()}{self._tests_words()}"

    def _verdict_words(self) -> str:
        if self.verdict == SMOOTHER:
            return (
                f"The suspect batch is smoother than the clean one: {self._spoken_words()}. An "
                "active trigger does that. So do patterns crafted after training, and a batch of "
                "other, easier classes: compare batches of the same classes."
            )
        if self.verdict == WOBBLIER:
            return (
                f"The suspect batch wobbles more than the clean one: {self._spoken_words()}. "
                "Unknown patterns, inactive triggers and most universal perturbations do that; an "
                "active trigger does not."
            )
        means = (
            "an active trigger on most of its points is unlikely"
            if self.is_powerful
            else "this says little: take more points"
        )
        tests = zip(self.tests, self.smoother_pvalues, strict=True)
        numbers = "; ".join(f"{self._numbers(row)} (p = {pvalue:.1g})" for row, pvalue in tests)
        return (
            f"No difference was found: {numbers}. With {self.num_suspect} suspect and "
            f"{self.num_clean} clean points a fully smooth batch is found with probability "
            f"{self.power:.2f}, so {means}."
        )

    def _spoken_words(self) -> str:
        """Returns the numbers of each test that supports the verdict."""
        is_higher = self.verdict == WOBBLIER
        return "; ".join(
            f"{self._numbers(row)}, W is {'higher' if is_higher else 'lower'} in "
            f"{(row.wobblier if is_higher else row.smoother).effect_size:.0%} of the pairs "
            f"(p = {pvalue:.1g})"
            for row, pvalue in self._speaking
        )

    def _tests_words(self) -> str:
        """Returns which of several tests spoke, and how they are corrected; of one, nothing."""
        return f"{self._mixed_words()}{self._destination_words()}"

    def _destination_words(self) -> str:
        found = self.corrected_destinations
        if found is None:
            return ""
        return f" {found.explanation()} Here p is corrected for {self.num_tests_in_words}."

    def _mixed_words(self) -> str:
        if self.box_mix is None:
            return ""
        spoke = " and ".join(self._where(row) for row, _ in self._speaking)
        who = (
            f"The test {spoke} spoke" if len(self._speaking) == 1 else f"Both tests spoke, {spoke}"
        )
        return (
            f" {who if self._speaking else 'Neither of two tests spoke'}; p is corrected for "
            f"{self.num_tests_in_words} (Holm). {self.box_mix.num_overlays} clean images were "
            f"mixed with, and {self.box_mix.num_clean} others compared with, under box mix."
        )

    def _numbers(self, row: SigmaComparison) -> str:
        return f"mean W {row.suspect_mean:.3f} against {row.clean_mean:.3f} nats {self._where(row)}"

    def _where(self, row: SigmaComparison) -> str:
        if self.box_mix is not None and row is self.box_mix.at:
            return "under box mix"
        return f"{'under' if isinstance(row.sigma, str) else 'at sigma'} {shown_level(row.sigma)}"
