"""Training of a network, clean or poisoned."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wobbliness.attacks.base import Attack
from wobbliness.attacks.patch import TRIGGER_NAMES, trigger
from wobbliness.attacks.poisoning import ThreatModel
from wobbliness.runtime.field_limits import MAX_SEED, check_choice, check_names, check_ranges
from wobbliness.study.recorded import check_described
from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_numbers, is_number, list_of
from wobbliness.study.specs.smooth_adv import SmoothAdv

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All that determines a trained network.

    `trigger` is the attack that poisons the training data; the name of one of the six patches is
    taken for the patch. With `smoothing` it is trained on noisy or adversarial copies.

    Raises:
        ValueError: a name or a number is beyond `wobbliness.runtime.field_limits`, or the trigger
            is no attack.
    """

    kind: ClassVar[str] = "train"
    weights_folder: ClassVar[str | None] = "networks"

    dataset: str
    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float
    threat: ThreatModel | None
    trigger: Attack | str | None
    seed: int
    smoothing: SmoothAdv | None = None

    def __post_init__(self) -> None:
        check_names(self, "dataset", "architecture")
        patch_of_name(self, "trigger")
        check_ranges(
            self,
            epochs=(1, 10**5),
            batch_size=(1, 10**6),
            learning_rate=(0, 10**3),
            seed=(0, MAX_SEED),
        )

    @property
    def attack(self) -> Attack | None:
        """Returns the trigger as an attack."""
        return attack_of(self.trigger)

    @property
    def network(self) -> "NetworkSpec":
        """Returns the spec itself: the network that the cell is about."""
        return self

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns no specs: a training needs no other cell."""
        return ()

    @property
    def work(self) -> int:
        """Returns the number of epochs, times the passes of each that smoothing takes."""
        return self.epochs * (1 if self.smoothing is None else self.smoothing.num_passes)

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks accuracies and losses."""
        check_numbers(results, ("num_poisoned", "clean_accuracy"))
        check_numbers(results, ("backdoor_accuracy",), or_none=True)
        losses = list_of(results, "losses", self.epochs)
        if not losses or not all(map(is_number, losses)):
            raise ValueError("losses of another kind")


def attack_of(trigger: Attack | str | None) -> Attack | None:
    """Returns the attack in a field that `patch_of_name` has gone over."""
    if isinstance(trigger, str):
        raise TypeError(f"a name in the place of a patch: {trigger}")
    return trigger


def patch_of_name(made: object, field: str) -> None:
    """Puts the patch in the place of its name, in a field that holds an attack.

    Raises:
        ValueError: the field holds another name, or something that is no attack.
    """
    value = getattr(made, field)
    if isinstance(value, str):
        check_choice(made, field, TRIGGER_NAMES)
        object.__setattr__(made, field, trigger(value))
    check_described(made, field, Attack)


SPEC = NetworkSpec
