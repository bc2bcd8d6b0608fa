"""Crafting of a universal adversarial perturbation of a network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wobbliness.study.specs.base import Results, Spec
from wobbliness.study.specs.checks import check_plain
from wobbliness.study.specs.train import NetworkSpec

if TYPE_CHECKING:
    import pandas as pd

UNTARGETED, TARGETED = "universal", "universal, targeted"
"""Kinds of batches with such a perturbation, in tables."""


@dataclass(frozen=True, kw_only=True)
class UniversalSpec:
    """All that determines a universal adversarial perturbation of a network.

    It is crafted on `num_images` training images. `norm` is `l2` or `linf`, `bound` in pixel units
    of [0, 1].
    """

    kind: ClassVar[str] = "universal"
    weights_folder: ClassVar[str | None] = "perturbations"
    one_for_each_class: ClassVar[bool] = False

    network: NetworkSpec
    norm: str
    bound: float
    fooling_rate: float
    target_class: int | None
    num_images: int
    seed: int

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Returns the spec of the network."""
        return (self.network,)

    @property
    def work(self) -> int:
        """Returns 1: one perturbation."""
        return 1

    def check_record(self, results: Results, table: "pd.DataFrame") -> None:  # noqa: ARG002
        """Checks norms and rates."""
        check_plain(results, ("norm_reached", "fooling_rate", "fooling_rate_on_test"))

    def batch_kind(self, form: str | None) -> str:  # noqa: ARG002
        """Returns the kind of a batch with the perturbation on."""
        return UNTARGETED if self.target_class is None else TARGETED

    def pattern_label(self, form: str | None, candidate: int | None) -> str:  # noqa: ARG002
        """Returns the name of the perturbation in tables."""
        target = "" if self.target_class is None else f" to {self.target_class}"
        return f"universal {self.norm}{target}"


SPEC = UniversalSpec
