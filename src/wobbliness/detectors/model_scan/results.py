"""Results of a scan of a model: the effect of each pattern, and what stands out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from wobbliness.attacks.patch import Trigger
from wobbliness.detectors.batches.batch_results import NO_DIFFERENCE, SMOOTHER, BatchComparison
from wobbliness.detectors.reverse_engineering.candidates import Candidate

# attack success rate from which on a pattern is said to send most images to its class
MIN_ATTACK_SUCCESS_RATE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternEffect:
    """Effect of a pattern on images that it was not crafted on.

    Attributes:
        trigger: the pattern.
        target_class: the class that images with it are predicted as: a candidate's own; of a
            suspected trigger the one that most labels change to, None where it changes no label.
        num_points: images measured.
        num_others: of these, the images that are not predicted as `target_class` without the
            pattern.
        num_sent: of the others, the images that are predicted so with it.
        num_changed: images whose label the pattern changes.
        clean: `(C, H, W)` one of the images, one on which the attack succeeds where there is one.
        stamped: `(C, H, W)` the same with the pattern.
        w: at each sigma `(num_points,)` nats, W around the images with the pattern.
        comparison: of these W with those of other, clean images.
    """

    trigger: Trigger
    target_class: int | None
    num_points: int
    num_others: int
    num_sent: int
    num_changed: int
    clean: Float32[np.ndarray, "C H W"]
    stamped: Float32[np.ndarray, "C H W"]
    w: Mapping[float, Float[np.ndarray, " N"]]
    comparison: BatchComparison

    @property
    def sent_share(self) -> float | None:
        """Computes the targeted attack success rate (ASR); None where there are no others.

        The share of the images of other classes that are predicted as the target class.
        """
        return self.num_sent / self.num_others if self.num_others else None

    @property
    def changed_share(self) -> float:
        """Computes the label-flip rate: the share of the images whose label changes."""
        return self.num_changed / self.num_points

    @property
    def sends_most(self) -> bool:
        """Checks whether the attack success rate is at least 50 %."""
        return (self.sent_share or 0.0) >= MIN_ATTACK_SUCCESS_RATE


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateFinding:
    """Result of Neural Cleanse for a class.

    Attributes:
        target_class: the class.
        candidate: the mask of the smallest L1 norm at the success threshold; None where the search
            failed.
        anomaly_index: how far the norm is from the median of all classes (see
            `Candidates.anomaly_index`); infinite where more than half of the other norms are equal;
            None where there is no candidate or fewer than three.
        is_flagged: whether the index is above 2 and the mask smaller than the median: a likely
            target of a backdoor.
        effect: of the candidate on images that it was not crafted on; None where there is no
            candidate.
    """

    target_class: int
    candidate: Candidate | None
    anomaly_index: float | None
    is_flagged: bool
    effect: PatternEffect | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Result of a scan of a model; see `scan_model`.

    Attributes:
        model: name of the model.
        candidates: one for each class asked for; empty where none could be crafted.
        why_no_candidates: why there are none; None where they were crafted.
        triggers: one for each suspected trigger, in the order they were given.
        clean_w: at each sigma W of the clean images, `(num_clean,)` nats; several sigmas take half
            of them to choose one.
        level: probability that any pattern that leaves W as it is would be called smoother; and the
            same for wobblier.
        draws: noisy copies of each image.
        seed: of everything random.
        num_crafted_on: images that candidates were crafted on.
        num_suspect: images that each pattern was put on.
    """

    model: str
    candidates: tuple[CandidateFinding, ...]
    why_no_candidates: str | None
    triggers: tuple[PatternEffect, ...]
    clean_w: Mapping[float, Float[np.ndarray, " N"]]
    level: float
    draws: int
    seed: int
    num_crafted_on: int
    num_suspect: int

    @property
    def effects(self) -> tuple[PatternEffect, ...]:
        """Returns the effects of all patterns: first of the candidates, then of the suspects."""
        return (
            tuple(finding.effect for finding in self.candidates if finding.effect is not None)
            + self.triggers
        )

    @property
    def comparison(self) -> BatchComparison | None:
        """Returns the comparison of the first pattern; None without a pattern.

        For what all of them share: sigma, level, power, clean means.
        """
        return next((effect.comparison for effect in self.effects), None)

    @property
    def num_clean(self) -> int:
        """Returns the number of clean images measured."""
        return len(next(iter(self.clean_w.values())))

    def to_look_at(self) -> tuple[str, ...]:
        """Returns what stands out, in plain sentences, the strongest first.

        One that says so where nothing does.
        """
        failed = _failed_classes(self) if self.effects else ""
        sentences = tuple(_remarks(self)) or (_nothing_sentence(self),)
        return (
            (*sentences, f"The search failed, and says nothing, for class {failed}.")
            if failed
            else sentences
        )

    def limits(self) -> tuple[str, ...]:
        """Returns what the findings do not say."""
        return (
            LIMITS_OF_CANDIDATES * bool(self.candidates)
            + LIMITS_OF_TRIGGERS * bool(self.triggers)
            + LIMITS
        )

    def frame(self) -> pd.DataFrame:
        """Returns a table with a row for each pattern and sigma.

        A class whose search failed has one row.
        """
        rows: list[dict[str, object]] = []
        for finding in self.candidates:
            found = [{}] if finding.effect is None else _effect_rows(finding.effect)
            rows += [_candidate_facts(finding) | row for row in found]
        for effect in self.triggers:
            facts = {"pattern": effect.trigger.name, "target_class": effect.target_class}
            rows += [facts | row for row in _effect_rows(effect)]
        return pd.DataFrame(rows, columns=COLUMNS).astype(
            {"target_class": "Int64", "is_flagged": "boolean"}
        )


COLUMNS = [
    *(
        "pattern",
        "target_class",
        "is_flagged",
        "anomaly_index",
        "mask_l1",
        "crafted_success",
        "sent_share",
        "changed_share",
    ),
    *(
        "sigma",
        "is_chosen",
        "clean_mean",
        "suspect_mean",
        "pvalue_smoother",
        "pvalue_wobblier",
        "lower_in",
        "pvalue_levene",
    ),
    *("verdict", "level_each", "power"),
]
"""Columns of the table.

`verdict` is that at the chosen sigma; `lower_in` is the share of pairs in which W with the pattern
is lower.
"""

LIMITS_OF_CANDIDATES = (
    "The anomaly index points to likely targets of a backdoor. Now and then it flags a class of a "
    "network without one, and "
    "Neural Cleanse misses triggers that are large, faint or different from image to image.",
    "A candidate is not the implanted trigger: it is a pattern that works. Crafted patterns can "
    "be smooth on a clean network and "
    "wobble on a backdoored one, so W around a candidate alone tells nothing of a backdoor.",
)
LIMITS_OF_TRIGGERS = (
    "A suspected trigger that sends images to one class and is smooth behaves as an active "
    "trigger does. So can a pattern that "
    "was crafted after training, or one that covers most of the image.",
)
LIMITS = (
    "That nothing stands out is no certificate: a half-learnt backdoor, or a trigger that was not "
    "tried, stays unseen.",
)


def _candidate_facts(finding: CandidateFinding) -> dict[str, object]:
    """Returns the columns that are the same at every sigma."""
    facts: dict[str, object] = {
        "pattern": f"candidate {finding.target_class}",
        "target_class": finding.target_class,
        "is_flagged": finding.is_flagged,
        "anomaly_index": finding.anomaly_index,
    }
    found = finding.candidate
    if found is None:
        return facts
    return facts | {"mask_l1": found.mask_l1, "crafted_success": found.success_rate}


def _effect_rows(effect: PatternEffect) -> list[dict[str, object]]:
    found = effect.comparison
    shares = {"sent_share": effect.sent_share, "changed_share": effect.changed_share}
    return [
        {
            **shares,
            "sigma": row.sigma,
            "is_chosen": row.sigma == found.sigma,
            "clean_mean": row.clean_mean,
            "suspect_mean": row.suspect_mean,
            "pvalue_smoother": row.smoother.pvalue,
            "pvalue_wobblier": row.wobblier.pvalue,
            "lower_in": row.smoother.effect_size,
            "pvalue_levene": row.levene.pvalue,
            "verdict": found.verdict,
            "level_each": found.level,
            "power": found.power,
        }
        for row in found.at
    ]


# Candidates that the anomaly index flags come first, then suspected triggers, then smooth
# candidates.
def _remarks(scan: Scan) -> Iterator[str]:
    for finding in scan.candidates:
        if finding.is_flagged and finding.effect is not None and finding.candidate is not None:
            yield (
                f"Class {finding.target_class} is a likely target of a backdoor: a trigger of "
                f"{finding.candidate.mask_l1:.1f} "
                "pixels is enough to send images there, far fewer than for the other classes "
                "(anomaly index "
                f"{finding.anomaly_index:.1f}). {_smoothness_sentence(finding.effect)}"
            )
    for effect in scan.triggers:
        if effect.sends_most or effect.comparison.verdict == SMOOTHER:
            yield (
                f"Trigger {effect.trigger.name} {_label_sentence(effect)}. "
                f"{_smoothness_sentence(effect)}{_active_trigger_sentence(effect)}"
            )
    # Smoothness of a candidate alone is no sign of a backdoor, so these are listed last.
    smooth = [
        finding
        for finding in scan.candidates
        if finding.effect and finding.effect.comparison.verdict == SMOOTHER
    ]
    if names := ", ".join(
        str(finding.target_class) for finding in smooth if not finding.is_flagged
    ):
        yield (
            f"Smooth, but with a mask of usual size: the candidates of class {names}. Crafted "
            "patterns can be smooth on clean "
            "networks too; by itself this is no sign of a backdoor."
        )


def _nothing_sentence(scan: Scan) -> str:
    is_found = any(finding.candidate is not None for finding in scan.candidates)
    rest = (
        "that a trigger was found for needs an unusually small one"
        if _failed_classes(scan)
        else "needs an unusually small trigger"
    )
    searched = [f"no class {rest}"]
    tried = ["no suspected trigger is smooth or sends most images to one class"] * bool(
        scan.triggers
    )
    sentences = searched * is_found + tried
    if not sentences:
        return (
            "Nothing can be said: no trigger was found for any class, which tells neither of a "
            "backdoor nor of its absence."
        )
    return f"Nothing stands out: {' and '.join(sentences)}."


def _failed_classes(scan: Scan) -> str:
    """Returns the classes whose search failed, in words."""
    return ", ".join(
        str(finding.target_class) for finding in scan.candidates if finding.candidate is None
    )


def _label_sentence(effect: PatternEffect) -> str:
    if effect.target_class is None:
        return "changes no label"
    return (
        f"sends {effect.sent_share or 0:.0%} of the images of other classes to class "
        f"{effect.target_class}"
    )


def _smoothness_sentence(effect: PatternEffect) -> str:
    found = effect.comparison
    row = found[found.sigma]
    numbers = (
        f"mean W {row.suspect_mean:.3f} against {row.clean_mean:.3f} nats at sigma {found.sigma:g}"
    )
    if found.verdict == NO_DIFFERENCE:
        return (
            "No difference in smoothness was found between images with it and clean ones "
            f"({numbers})."
        )
    relation = "is smoother" if found.verdict == SMOOTHER else "wobbles more"
    return f"Around images with it the model {relation} than around clean ones ({numbers})."


def _active_trigger_sentence(effect: PatternEffect) -> str:
    if effect.sends_most and effect.comparison.verdict == SMOOTHER:
        return " Both together are what an active trigger does."
    return ""
