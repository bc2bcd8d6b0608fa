"""Studies as functions that return one frozen dataclass, and the cells that a study consists of."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from wobbliness.study.poisoning import ThreatModel, t1
from wobbliness.triggers import TRIGGER_NAMES

SCHEMA_VERSION = 2
CLEAN_BATCHES = 3  # to choose sigma on, to compare with, and to compare clean with clean


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All that determines a trained network."""

    dataset: str
    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float
    threat: ThreatModel | None
    trigger: str | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """All that determines the votes of one batch of test points under one network.

    The points are taken from a random order of the attacked test points (all but the target class; all, for a clean network):
    those from `first_point` on. `draws` are ascending checkpoints: votes are kept at each of them.
    """

    network: NetworkSpec
    trigger: str | None
    first_point: int
    num_points: int
    sigmas: tuple[float, ...]
    draws: tuple[int, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of work and the claims that need it."""

    spec: NetworkSpec | MeasureSpec
    claims: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`train` or `measure`."""
        return "train" if isinstance(self.spec, NetworkSpec) else "measure"

    @property
    def name(self) -> str:
        """The cell's file name: its kind and a hash of its spec."""
        return cell_name(self.spec)

    @property
    def needs(self) -> str | None:
        """Name of the cell that has to be done before this one."""
        return cell_name(self.spec.network) if isinstance(self.spec, MeasureSpec) else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study: which networks, which batches, which grids. Replace any field with `dataclasses.replace`.

    Attributes:
        name: the study's name; an output folder belongs to one recipe.
        seed: of everything random.
        parameter_networks: clean networks for C1 and C2.
        parameter_points: number of clean points for C1 and C2.
        draws_grid: numbers of draws for C1, ascending.
        draws_sigmas: standard deviations for C1, pixel units of [0, 1].
        parameter_sigmas: standard deviations for C2, pixel units of [0, 1].
        effect_networks: poisoned networks for C3 and C4.
        inactive_trigger: the trigger of C4.
        detection_networks: clean and poisoned networks for C7.
        detection_points: points of each batch for C7.
        effect_points: points of each batch for C3 and C4. Three clean batches are measured on each network: one to choose sigma
            on, one to compare with, one more for comparing clean with clean.
        sigmas: standard deviations for C3, C4 and C7, pixel units of [0, 1].
        draws: noisy copies of each point.
        control_pairs: random pairs of batches for each row of the negative controls.
        control_points: points of each batch in the negative controls.
    """

    name: str
    seed: int
    parameter_networks: tuple[NetworkSpec, ...] = ()
    parameter_points: int = 250
    draws_grid: tuple[int, ...] = (10, 25, 50, 100, 250, 500, 1000)
    draws_sigmas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    parameter_sigmas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
    effect_networks: tuple[NetworkSpec, ...] = ()
    effect_points: int = 250
    inactive_trigger: str = TRIGGER_NAMES[3]
    detection_networks: tuple[NetworkSpec, ...] = ()
    detection_points: int = 100
    sigmas: tuple[float, ...]
    draws: int = 250
    control_pairs: int = 1000
    control_points: int = 50

    @property
    def claims(self) -> tuple[str, ...]:
        """Ids of the claims that this recipe measures."""
        return tuple(sorted({claim for cell in plan(self) for claim in cell.claims}))


def digits(seed: int = 0) -> Recipe:
    """Every claim so far in miniature, on the embedded 8 x 8 digits: about two minutes on two cores.

    The small CNN serves throughout, for time; the paper has the large one from Fig. 4 on.
    """
    base: dict[str, Any] = {
        "dataset": "digits",
        "architecture": "small_cnn",
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 2e-3,
    }
    threat = t1(target_class=5)
    clean = [NetworkSpec(**base, threat=None, trigger=None, seed=seed + i) for i in range(3)]
    poisoned = [
        NetworkSpec(**base, threat=threat, trigger=TRIGGER_NAMES[number], seed=seed + i) for number in (0, 2, 3) for i in range(3)
    ]
    return Recipe(
        name="digits",
        seed=seed,
        parameter_networks=(clean[0],),
        draws_grid=(10, 25, 50, 100, 250, 500),
        effect_networks=tuple(poisoned[:3]),
        effect_points=130,
        detection_networks=(*clean, *poisoned),
        detection_points=50,
        sigmas=(0.1, 0.15, 0.2, 0.3),
    )


def fashion_mnist(seed: int = 0) -> Recipe:
    """C3 and C4 as in the paper: Fashion-MNIST, large CNN, T1, the first trigger active and the fourth inactive."""
    networks = tuple(
        NetworkSpec(
            dataset="fashion_mnist",
            architecture="large_cnn",
            epochs=4,
            batch_size=128,
            learning_rate=1e-3,
            threat=t1(target_class=0),
            trigger=TRIGGER_NAMES[0],
            seed=seed + i,
        )
        for i in range(2)
    )
    return Recipe(
        name="fashion-mnist", seed=seed, effect_networks=networks, effect_points=250, sigmas=(0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    )


RECIPES: dict[str, Callable[[int], Recipe]] = {"digits": digits, "fashion-mnist": fashion_mnist}


def recipe_by_name(name: str, seed: int) -> Recipe:
    """A recipe of this package.

    Raises:
        ValueError: no recipe has that name, or the seed is negative.
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe out of {', '.join(RECIPES)}, got {name!r}")
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
    return RECIPES[name](seed)


def plan(recipe: Recipe, only: Iterable[str] | None = None) -> tuple[Cell, ...]:
    """The cells of a study, each once, trained networks before their measurements.

    Args:
        recipe: the study.
        only: ids of the claims wanted; all by default.

    Raises:
        ValueError: the recipe does not measure a claim that is asked for.
    """
    wanted: dict[NetworkSpec | MeasureSpec, list[str]] = {}
    for claim, spec in [*_parameter_specs(recipe), *_effect_specs(recipe), *_detection_specs(recipe)]:
        for needed in (spec.network, spec):
            wanted.setdefault(needed, []).append(claim)
    cells = tuple(Cell(spec=spec, claims=tuple(sorted(set(claims)))) for spec, claims in wanted.items())
    if only is None:
        return cells
    asked, known = set(only), {claim for cell in cells for claim in cell.claims}
    if not asked or asked - known:
        raise ValueError(f"expected claims out of {', '.join(sorted(known))}, got {', '.join(sorted(asked)) or 'none'}")
    return tuple(cell for cell in cells if asked & set(cell.claims))


def cell_name(spec: NetworkSpec | MeasureSpec) -> str:
    """Kind and hash of a spec: equal for equal specs, in any process."""
    text = json.dumps({"schema": SCHEMA_VERSION, **asdict(spec)}, sort_keys=True)
    kind = "train" if isinstance(spec, NetworkSpec) else "measure"
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def recipe_digest(recipe: Recipe) -> str:
    """A hash of all fields of a recipe, to tell whether a folder belongs to it."""
    text = json.dumps(asdict(recipe), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _parameter_specs(recipe: Recipe) -> Iterator[tuple[str, MeasureSpec]]:
    for network in recipe.parameter_networks:
        common: dict[str, Any] = {"network": network, "trigger": None, "seed": recipe.seed}
        common |= {"first_point": 0, "num_points": recipe.parameter_points}
        yield "C1", MeasureSpec(**common, sigmas=recipe.draws_sigmas, draws=recipe.draws_grid)
        yield "C2", MeasureSpec(**common, sigmas=recipe.parameter_sigmas, draws=(recipe.draws,))


def _effect_specs(recipe: Recipe) -> Iterator[tuple[str, MeasureSpec]]:
    for network in recipe.effect_networks:
        for claim, suspect in (("C3", network.trigger), ("C4", recipe.inactive_trigger)):
            yield claim, _batch(recipe, network, None, recipe.effect_points)
            yield claim, _batch(recipe, network, suspect, recipe.effect_points)


def _detection_specs(recipe: Recipe) -> Iterator[tuple[str, MeasureSpec]]:
    for network in recipe.detection_networks:
        for suspect in (None, *TRIGGER_NAMES):
            yield "C7", _batch(recipe, network, suspect, recipe.detection_points)


def _batch(recipe: Recipe, network: NetworkSpec, trigger: str | None, num_points: int) -> MeasureSpec:
    """Three clean batches in one (see CLEAN_BATCHES), or one batch of other points with a trigger."""
    num_clean = CLEAN_BATCHES * num_points
    return MeasureSpec(
        network=network,
        trigger=trigger,
        first_point=0 if trigger is None else num_clean,
        num_points=num_clean if trigger is None else num_points,
        sigmas=recipe.sigmas,
        draws=(recipe.draws,),
        seed=recipe.seed,
    )
