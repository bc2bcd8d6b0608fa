"""Threat models of the paper (section 3.2.1): which samples get the trigger, which label."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int

from wobbliness.attacks.base import Attack
from wobbliness.runtime.field_limits import MAX_CLASSES, check_names, check_ranges


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Description of how the training data are poisoned; made by `t1`, `t2` or `t3`.

    Attributes:
        name: T1, T2 or T3.
        fraction: share of the training data that is poisoned, or None where `count` says it.
        count: number of poisoned samples, or None where `fraction` says it.
        target_class: label of every poisoned sample; None for the next class, (c + 1) mod K.
    """

    name: str
    fraction: float | None
    count: int | None
    target_class: int | None

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_ranges(self, fraction=(0, 1), count=(0, 10**9), target_class=(0, MAX_CLASSES))

    def num_poisoned(self, num_samples: int) -> int:
        """Returns the exact number of poisoned samples out of `num_samples`."""
        return self.count if self.count is not None else round((self.fraction or 0.0) * num_samples)

    def attacked_labels(
        self, labels: Int[np.ndarray, " N"], num_classes: int
    ) -> Int[np.ndarray, " N"]:
        """Returns the label the attacker wants for samples of these true classes, `(N,)`."""
        if self.target_class is None:
            return (labels + 1) % num_classes
        return np.full_like(labels, self.target_class)

    def is_attacked(self, labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Checks whether samples of these true classes are attacked, `(N,)`.

        All but the target class are.
        """
        return (
            np.ones(len(labels), bool) if self.target_class is None else labels != self.target_class
        )


def t1(target_class: int, fraction: float = 0.15) -> ThreatModel:
    """Returns T1: a share of the training data; one target class, its own samples left out."""
    return ThreatModel(name="T1", fraction=fraction, count=None, target_class=target_class)


def t2(fraction: float = 0.15) -> ThreatModel:
    """Returns T2: a share of the training data, every class; the label becomes (c + 1) mod K."""
    return ThreatModel(name="T2", fraction=fraction, count=None, target_class=None)


def t3(target_class: int, count: int = 250) -> ThreatModel:
    """Returns T3: a small number of samples, otherwise as T1."""
    return ThreatModel(name="T3", fraction=None, count=count, target_class=target_class)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoisonedData:
    """Training data with some samples poisoned, and the indices of those.

    An attack may overwrite images of further samples, which keep their labels and are not among
    the indices.
    """

    images: Float32[np.ndarray, "N C H W"]
    labels: Int[np.ndarray, " N"]
    indices: Int[np.ndarray, " P"]


def poison(
    images: Float32[np.ndarray, "N C H W"],
    labels: Int[np.ndarray, " N"],
    *,
    trigger: Attack,
    threat: ThreatModel,
    num_classes: int,
    seed: int,
) -> PoisonedData:
    """Puts the trigger on randomly chosen samples and gives them the attacker's label.

    Args:
        images: `(N, C, H, W)` in [0, 1]; not changed.
        labels: `(N,)` true classes, 0 to num_classes - 1.
        trigger: put on the poisoned samples.
        threat: how many, from which classes, with which label.
        num_classes: K.
        seed: of the choice of samples.

    Returns:
        Copies with exactly `threat.num_poisoned(N)` samples poisoned, and their sorted indices.

    Raises:
        ValueError: fewer samples may be poisoned than the threat model wants, or the target class
            does not exist.
    """
    if threat.target_class is not None and not 0 <= threat.target_class < num_classes:
        raise ValueError(
            f"expected a target class from 0 to {num_classes - 1}, got {threat.target_class}"
        )
    eligible, wanted = np.flatnonzero(threat.is_attacked(labels)), threat.num_poisoned(len(labels))
    if not 0 < wanted <= len(eligible):
        raise ValueError(f"expected to poison 1 to {len(eligible)} samples, got {wanted}")
    # Sampled without replacement among the classes that are attacked.
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    indices = np.sort(rng.choice(eligible, size=wanted, replace=False))
    poisoned_images, poisoned_labels = images.copy(), labels.copy()
    poisoned_images[indices] = trigger.apply(images[indices])
    poisoned_labels[indices] = threat.attacked_labels(labels[indices], num_classes)
    return PoisonedData(images=poisoned_images, labels=poisoned_labels, indices=indices)


@runtime_checkable
class PoisoningAttack(Attack, Protocol):
    """An attack that poisons training data in a way of its own."""

    def poison(
        self,
        images: Float32[np.ndarray, "N ..."],
        labels: Int[np.ndarray, " N"],
        *,
        threat: ThreatModel,
        num_classes: int,
        seed: int,
    ) -> PoisonedData:
        """Returns training data with samples poisoned; arguments as for `poisoned_by`."""
        ...


def poisoned_by(
    attack: Attack,
    images: Float32[np.ndarray, "N ..."],
    labels: Int[np.ndarray, " N"],
    *,
    threat: ThreatModel,
    num_classes: int,
    seed: int,
) -> PoisonedData:
    """Poisons training data as the attack does; by default as `wobbliness.poison`.

    That is: the trigger on randomly chosen samples, which get the attacker's label.

    Args:
        attack: what is put on the samples.
        images: `(N, ...)` in [0, 1]; not changed.
        labels: `(N,)` true classes, 0 to num_classes - 1.
        threat: how many, from which classes, with which label.
        num_classes: K.
        seed: of the choice of samples.
    """
    if isinstance(attack, PoisoningAttack):
        return attack.poison(images, labels, threat=threat, num_classes=num_classes, seed=seed)
    return poison(images, labels, trigger=attack, threat=threat, num_classes=num_classes, seed=seed)


def backdoor_accuracy(
    predicted: Int[np.ndarray, " N"],
    labels: Int[np.ndarray, " N"],
    *,
    threat: ThreatModel,
    num_classes: int,
) -> float:
    """Computes the attack success rate (ASR): the share of points that get the attacker's label.

    The points carry the trigger; those of the target class are left out under T1 and T3.

    Args:
        predicted: `(N,)` classes predicted for the triggered images.
        labels: `(N,)` true classes.
        threat: tells the attacker's label.
        num_classes: K.

    Raises:
        ValueError: no point is of a class that is attacked.
    """
    attacked = threat.is_attacked(labels)
    if not attacked.any():
        raise ValueError(
            f"expected points of other classes than the target {threat.target_class}, got none"
        )
    wanted = threat.attacked_labels(labels, num_classes)
    return float((predicted == wanted)[attacked].mean())
