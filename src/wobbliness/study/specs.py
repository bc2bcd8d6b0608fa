"""Specifications that determine the result of each kind of cell, and the cell's name."""

import hashlib
import json
import re
from dataclasses import dataclass

from wobbliness.attacks.patch import TRIGGER_NAMES
from wobbliness.attacks.poisoning import ThreatModel
from wobbliness.runtime.field_limits import MAX_SEED, check_choice, check_names, check_ranges
from wobbliness.study.identity import IDENTITY_SCHEMA, identity

SCHEMA_VERSION = 4
READ_SCHEMAS = (3, 4)  # of files; 4 may leave out fields that 3 did not have


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All that determines a trained network.

    Raises:
        ValueError: a name or a number is beyond `wobbliness.runtime.field_limits`.
    """

    dataset: str
    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float
    threat: ThreatModel | None
    trigger: str | None
    seed: int

    def __post_init__(self) -> None:
        check_names(self, "dataset", "architecture")
        check_choice(self, "trigger", TRIGGER_NAMES)
        check_ranges(
            self,
            epochs=(1, 10**5),
            batch_size=(1, 10**6),
            learning_rate=(0, 10**3),
            seed=(0, MAX_SEED),
        )


@dataclass(frozen=True, kw_only=True)
class UniversalSpec:
    """All that determines a universal adversarial perturbation of a network.

    It is crafted on `num_images` training images. `norm` is `l2` or `linf`, `bound` in pixel units
    of [0, 1].
    """

    network: NetworkSpec
    norm: str
    bound: float
    fooling_rate: float
    target_class: int | None
    num_images: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class CleanseSpec:
    """All that determines the Neural Cleanse candidates of a network.

    They are crafted on the last `num_images` test points in the order that measurements take theirs
    from the front.
    """

    network: NetworkSpec
    num_images: int
    restarts: int
    max_steps: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ResponseSpec:
    """All that determines a network's response to images of noise alone.

    The noise is N(0, level^2) in pixel units of [0, 1].
    """

    network: NetworkSpec
    levels: tuple[float, ...]
    num_images: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """All that determines the votes of one batch of test points under one network.

    The points are taken from a random order of the attacked test points (all but the target class;
    all, for a clean network): those from `first_point` on; with `per_class` so many of each class.
    `draws` are ascending checkpoints: votes are kept at each of them. The points are clean, bear a
    trigger, or what was crafted after training: a universal perturbation, or in turn each Neural
    Cleanse candidate of a form, `first` or `smallest`.
    """

    network: NetworkSpec
    trigger: str | None
    crafted: UniversalSpec | CleanseSpec | None = None
    form: str | None = None
    per_class: bool = False
    first_point: int
    num_points: int
    sigmas: tuple[float, ...]
    draws: tuple[int, ...]
    seed: int


Spec = NetworkSpec | UniversalSpec | CleanseSpec | ResponseSpec | MeasureSpec

KINDS: dict[type, str] = {
    NetworkSpec: "train",
    UniversalSpec: "universal",
    CleanseSpec: "cleanse",
    ResponseSpec: "response",
    MeasureSpec: "measure",
}

CELL_NAME = re.compile(rf"(?:{'|'.join(KINDS.values())})-[0-9a-f]{{16}}")
"""Names that `cell_name` gives, and no others."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of work and the claims that need it."""

    spec: Spec
    claims: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Returns `train`, `universal`, `cleanse`, `response` or `measure`."""
        return KINDS[type(self.spec)]

    @property
    def name(self) -> str:
        """Returns the cell's file name: its kind and a hash of its spec."""
        return cell_name(self.spec)

    @property
    def needs(self) -> str | None:
        """Returns the name of the cell that has to be done before this one."""
        before = needed_specs(self.spec)
        return cell_name(before[-1]) if before else None


def needed_specs(spec: Spec) -> tuple[Spec, ...]:
    """Returns the specs of the cells that have to be done before, in this order."""
    if isinstance(spec, NetworkSpec):
        return ()
    if isinstance(spec, MeasureSpec) and spec.crafted is not None:
        return (spec.network, spec.crafted)
    return (spec.network,)


def network_of(spec: Spec) -> NetworkSpec:
    """Returns the network that a cell is about."""
    return spec if isinstance(spec, NetworkSpec) else spec.network


def cell_name(spec: Spec) -> str:
    """Returns the kind and a hash of the identity of a spec.

    Names are equal for equal specs, in any process.
    """
    # sorted keys: the order of fields in the class is no part of the name
    text = json.dumps({"schema": IDENTITY_SCHEMA, **identity(spec)}, sort_keys=True)
    return f"{KINDS[type(spec)]}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
