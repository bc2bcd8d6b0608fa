"""Studies as functions that return one frozen dataclass."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wobbliness.attacks.patch import TRIGGER_NAMES, Trigger, trigger
from wobbliness.attacks.poisoning import ThreatModel, t1, t2, t3
from wobbliness.detectors.base import Detector
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.field_limits import (
    MAX_CELLS,
    MAX_CLASSES,
    MAX_CONTROL_PAIRS,
    MAX_CONTROL_VALUES,
    MAX_DRAWS,
    MAX_LENGTH,
    MAX_NETWORKS,
    MAX_PARAMETER_POINTS,
    MAX_POINTS,
    MAX_SEED,
    MAX_SIGMA,
    check_choice,
    check_names,
    check_ranges,
    shown,
)
from wobbliness.runtime.user_files import is_user_object, load_object
from wobbliness.study.identity import identity, written
from wobbliness.study.recorded import check_described, described_objects
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.specs.noise import Noise, Setting
from wobbliness.study.typed_json import from_json

NORMS = ("l2", "linf")

PAPER_TRIGGERS = ("checkerboard", "cross", "dot", "square", "smiley", "stripes")
"""The six of the paper's Fig. 3, in its order.

Frozen, so that another trigger in the library adds no cell to a study.
"""

FIRST, THIRD, FOURTH, FIFTH = (PAPER_TRIGGERS[index] for index in (0, 2, 3, 4))
"""Triggers by their number in the paper's Fig. 3."""


@dataclass(frozen=True, kw_only=True)
class Universal:
    """A universal adversarial perturbation to craft for each detection network (C8).

    Attributes:
        norm: `l2` or `linf`.
        bound: of that norm, pixel units of [0, 1].
        target_class: the class that all points shall be predicted as; None for any other one.
        fooling_rate: at which crafting ends.
        num_images: training images it is crafted on.
    """

    norm: str
    bound: float
    target_class: int | None = None
    fooling_rate: float = 0.8
    num_images: int = 500

    def __post_init__(self) -> None:
        check_choice(self, "norm", NORMS)
        check_ranges(
            self,
            bound=(0, 10**6),
            fooling_rate=(0, 1),
            target_class=(0, MAX_CLASSES),
            num_images=(1, 10**6),
        )


@dataclass(frozen=True, kw_only=True)
class Cleanse:
    """Neural Cleanse on each detection network (C9).

    Attributes:
        num_images: test points the candidates are crafted on; none of them is measured.
        restarts: for each class.
        max_steps: of each restart.
        num_points: clean test points that each candidate is put on and measured.
    """

    num_images: int = 512
    restarts: int = 2
    max_steps: int = 120
    num_points: int = 25

    def __post_init__(self) -> None:
        check_ranges(
            self,
            num_images=(1, 10**6),
            restarts=(1, 10**4),
            max_steps=(1, 10**6),
            num_points=(1, MAX_POINTS),
        )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of one cell where an engine shares out many machines.

    The results never depend on them.

    Attributes:
        cpus: processor cores; cells of this package use one.
        gpus: accelerators, for cells of your own that use them; those of this package use none.
        memory_gib: memory set aside; None where the engine is to place cells by cores alone.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, cpus=(0, 10**6), gpus=(0, 10**6), memory_gib=(0, 10**9))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Study: which networks, which batches, which grids.

    Replace any field with `dataclasses.replace`.

    Attributes:
        name: the study's name; an output folder belongs to one recipe.
        seed: of everything random.
        parameter_networks: clean networks for C1 and C2.
        parameter_points: number of clean points for C1 and C2.
        draws_grid: numbers of draws for C1, ascending.
        draws_sigmas: standard deviations for C1, pixel units of [0, 1].
        parameter_sigmas: standard deviations for C2, pixel units of [0, 1].
        effect_networks: poisoned networks for C3 and C4.
        effect_points: points of each batch for C3 and C4. Three clean batches are measured on each
            network: one to choose sigma on, one to compare with, one more for comparing clean with
            clean.
        inactive_trigger: the trigger of C4.
        strength_networks: poisoned networks for C5, backdoors that were learnt more and less well.
        class_networks: networks poisoned under T2 for C6.
        class_points: points of each class for C6.
        detection_networks: clean and poisoned networks for C7, C8 and C9.
        detection_points: points of each batch for C5, C7 and C8.
        universals: perturbations for C8.
        cleanse: Neural Cleanse for C9; None for none.
        response_levels: standard deviations of images of noise alone, for the noise response of
            detection networks.
        sigmas: standard deviations for C3 to C9, and the ladder of X5, ascending; pixel units of
            [0, 1].
        draws: noisy copies of each point.
        own_points: whether networks of another seed meet other points in C5 and C7 to C9, so that
            not all tests of a study depend on one chance choice of batches.
        control_pairs: random pairs of batches for each row of the negative controls.
        control_points: points of each batch in the negative controls.
        resources: granted to each cell on a cluster.
        perturbations: by whose W triggered inputs of detection networks are told from clean ones.
        detectors: likewise, by their scores.
        noise_networks: clean and poisoned networks for X4.
        noises: families of perturbations for X4.
        noise_shift: share of clean labels that each family shall change, in (0, 1).
        noise_images: clean points that the level of a family is found on; as many more are mixed
            in by families that mix.
        noise_points: points of each of the three batches for X4.
        ladder_networks: poisoned networks for X5, one for each trigger.
        ladder_points: clean points for X5, and as many triggered ones.

    Raises:
        ValueError: a name or a number is beyond `wobbliness.runtime.field_limits`, the cells are
            too many, or a grid is empty or in no order.
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
    inactive_trigger: str = FOURTH
    strength_networks: tuple[NetworkSpec, ...] = ()
    class_networks: tuple[NetworkSpec, ...] = ()
    class_points: int = 25
    detection_networks: tuple[NetworkSpec, ...] = ()
    detection_points: int = 50
    universals: tuple[Universal, ...] = ()
    cleanse: Cleanse | None = None
    response_levels: tuple[float, ...] = ()
    sigmas: tuple[float, ...]
    draws: int = 250
    own_points: bool = False
    control_pairs: int = 1000
    control_points: int = 50
    resources: Resources = Resources()
    perturbations: tuple[Perturbation, ...] = ()
    detectors: tuple[Detector, ...] = ()
    noise_networks: tuple[NetworkSpec, ...] = ()
    noises: tuple[Noise, ...] = ()
    noise_shift: float = 0.2
    noise_images: int = 100
    noise_points: int = 250
    ladder_networks: tuple[NetworkSpec, ...] = ()
    ladder_points: int = 100

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_choice(self, "inactive_trigger", TRIGGER_NAMES)
        points, draws, sigma = (1, MAX_POINTS), (1, MAX_DRAWS), (0, MAX_SIGMA)
        check_ranges(self, seed=(0, MAX_SEED), draws=draws, draws_grid=draws)
        check_ranges(
            self, sigmas=sigma, draws_sigmas=sigma, parameter_sigmas=sigma, response_levels=sigma
        )
        check_ranges(self, effect_points=points, detection_points=points, class_points=points)
        check_ranges(self, noise_points=points, noise_images=points, ladder_points=points)
        check_ranges(self, parameter_points=(1, MAX_PARAMETER_POINTS), noise_shift=(0, 1))
        check_ranges(self, control_pairs=(1, MAX_CONTROL_PAIRS), control_points=points)
        for field, protocol in (("perturbations", Perturbation), ("detectors", Detector)):
            check_described(self, field, protocol)
            _check_distinct(self, field)
        _check_distinct(self, "noises")
        _check_size(self)
        _check_grids(self)


def _check_distinct(recipe: Recipe, field: str) -> None:
    """Checks that no two objects of a field have one name: tables tell them apart by it."""
    names = [made.name for made in getattr(recipe, field)]
    if len(set(names)) < len(names):
        raise ValueError(f"expected different names in Recipe.{field}, got {', '.join(names)}")


def _check_size(recipe: Recipe) -> None:
    """Checks that there are no more networks, cells or values than a report can take."""
    cells_of_network = {
        "parameter_networks": 3,
        "effect_networks": 5,
        "strength_networks": 3,
        "class_networks": 3,
        "detection_networks": 2 * len(recipe.universals) + 15 + len(recipe.detectors),
        "noise_networks": 1 + len(recipe.noises),
        "ladder_networks": 2,
    }
    sizes = {field: len(getattr(recipe, field)) for field in cells_of_network}
    num_cells = sum(sizes[field] * cells for field, cells in cells_of_network.items())
    num_controls = recipe.control_pairs * recipe.control_points
    for field, found, most in (
        ("networks", sum(sizes.values()), MAX_NETWORKS),
        ("universals", len(recipe.universals), MAX_NETWORKS),
        ("perturbations", len(recipe.perturbations), MAX_LENGTH),
        ("detectors", len(recipe.detectors), MAX_LENGTH),
        ("noises", len(recipe.noises), MAX_LENGTH),
        ("cells", num_cells, MAX_CELLS),
        ("control_pairs times control_points", num_controls, MAX_CONTROL_VALUES),
    ):
        if found > most:
            raise ValueError(f"expected a recipe of at most {most} {field}, got {found}")


def _check_grids(recipe: Recipe) -> None:
    """Checks that needed grids hold values, and that draws are in order."""
    needed = (
        ("sigmas",)
        if not recipe.parameter_networks
        else ("sigmas", "draws_sigmas", "parameter_sigmas", "draws_grid")
    )
    for field in needed:
        if not getattr(recipe, field):
            raise ValueError(f"expected one value at least in Recipe.{field}, got none")
    if list(recipe.draws_grid) != sorted(set(recipe.draws_grid)):
        raise ValueError(
            f"expected Recipe.draws_grid in ascending order, got {shown(recipe.draws_grid)}"
        )


def digits(seed: int = 0) -> Recipe:
    """All claims in miniature, on the embedded 8 x 8 digits: about three minutes on two cores.

    The small CNN serves throughout, for time; the paper has the large one from Fig. 4 on.
    """
    base = _base("digits", "small_cnn", epochs=20, batch_size=32, learning_rate=2e-3)
    attack = t1(target_class=5)
    clean = _networks(base, None, [None], range(seed, seed + 3))
    poisoned = _networks(base, attack, [FIRST, THIRD, FOURTH], range(seed, seed + 3))
    return Recipe(
        name="digits",
        seed=seed,
        parameter_networks=(clean[0],),
        draws_grid=(10, 25, 50, 100, 250, 500),
        effect_networks=poisoned[:3],
        effect_points=130,
        strength_networks=_networks(base, attack, [THIRD, FIFTH], range(seed, seed + 4)),
        class_networks=_networks(base, t2(), [THIRD, FIFTH], range(seed, seed + 3)),
        class_points=20,
        detection_networks=(*clean, *poisoned),
        detection_points=50,
        universals=_universals(l2=1.5, linf=0.3, target_class=5, num_images=200),
        cleanse=Cleanse(num_images=128, restarts=1, max_steps=40),
        response_levels=(0.5, 1.0, 2.0, 4.0),
        sigmas=(0.1, 0.15, 0.2, 0.3),
    )


def fashion_mnist(seed: int = 0) -> Recipe:
    """The paper's Fashion-MNIST experiments: T1 (Fig. 4), T2 (Fig. 5), T3 (Fig. 6, 7); large CNN.

    The 250 poisoned samples of T3 need ten epochs; in five they are learnt unevenly.
    """
    base = _base("fashion_mnist", "large_cnn", epochs=5, batch_size=64, learning_rate=2e-3)
    seeds = range(seed, seed + 3)
    return Recipe(
        name="fashion-mnist",
        seed=seed,
        parameter_networks=_networks(base | {"architecture": "small_cnn"}, None, [None], seeds),
        effect_networks=_networks(base, t1(target_class=0), [FIRST], seeds),
        class_networks=_networks(base, t2(), [THIRD, FIFTH], range(seed, seed + 5)),
        detection_networks=_clean_and_poisoned(base | {"epochs": 10}, t3(target_class=0), seeds),
        universals=_universals(l2=4.0, linf=0.2, target_class=0, num_images=500),
        cleanse=Cleanse(),
        response_levels=(0.5, 1.0, 2.0, 4.0),
        sigmas=(0.05, 0.1, 0.15, 0.2, 0.3),
        own_points=True,
    )


def cifar10(seed: int = 0) -> Recipe:
    """The paper's CIFAR-10 experiments: ResNet18, T1, under-fitted to about 60 %. Wants a GPU.

    200 epochs for Fig. 2.
    """
    return _cifar10("cifar10", "resnet18", seed, parameter_epochs=200)


def cifar10_slim(seed: int = 0) -> Recipe:
    """The CIFAR-10 experiments with ResNet18 of width 16, for two cores.

    10 epochs for Fig. 2, batches of 25 points, fewer steps for C9.
    """
    return replace(
        _cifar10("cifar10-slim", "resnet18_width16", seed, parameter_epochs=10),
        draws_sigmas=(0.01, 0.05, 0.1),
        detection_points=25,
        cleanse=Cleanse(num_images=256, max_steps=60, num_points=10),
        control_points=25,
    )


def _cifar10(name: str, architecture: str, seed: int, *, parameter_epochs: int) -> Recipe:
    base = _base("cifar10", architecture, epochs=1, batch_size=64, learning_rate=3e-3)
    attack = t1(target_class=0)
    return Recipe(
        name=name,
        seed=seed,
        parameter_networks=_networks(base | {"epochs": parameter_epochs}, None, [None], [seed]),
        draws_sigmas=(0.005, 0.01, 0.05, 0.1, 0.15),
        parameter_sigmas=(0.005, 0.01, 0.05, 0.1, 0.15, 0.3),
        strength_networks=_networks(base, attack, [THIRD, FIFTH], range(seed, seed + 12)),
        detection_networks=_clean_and_poisoned(base, attack, range(seed, seed + 3)),
        universals=_universals(l2=1.0, linf=0.04, target_class=0, num_images=500),
        cleanse=Cleanse(),
        response_levels=(0.5, 1.0, 2.0, 4.0),
        sigmas=(0.02, 0.05, 0.1, 0.2),
        own_points=True,
    )


def noises(seed: int = 0) -> Recipe:
    """Other noise (X4, X5) on the Fashion-MNIST networks: clean, T1, T2 and T3, and more of T1."""
    base = _base("fashion_mnist", "large_cnn", epochs=5, batch_size=64, learning_rate=2e-3)
    longer, attack = base | {"epochs": 10}, t1(target_class=0)
    return replace(
        _noises("noises", seed),
        noise_networks=(
            *_networks(longer, None, [None], [seed]),
            *_networks(base, attack, [FIRST], [seed]),
            *_networks(base, t2(), [THIRD], [seed]),
            *_networks(longer, t3(target_class=0), [FIRST], [seed]),
        ),
        ladder_networks=_ladder_networks(base, attack, seed, size=28),
    )


def noises_cifar10(seed: int = 0) -> Recipe:
    """The same on the slim CIFAR-10 networks: clean, and T1 with two triggers."""
    base = _base("cifar10", "resnet18_width16", epochs=1, batch_size=64, learning_rate=3e-3)
    attack = t1(target_class=0)
    return replace(
        _noises("noises-cifar10", seed),
        sigmas=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0),
        noise_networks=(
            *_networks(base, None, [None], [seed]),
            *_networks(base, attack, [FIRST, FIFTH], [seed]),
        ),
        ladder_networks=_ladder_networks(base, attack, seed, size=32),
    )


def _noises(name: str, seed: int) -> Recipe:
    return Recipe(
        name=name,
        seed=seed,
        noises=noise_families(),
        sigmas=(0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0),
        draws=100,
        own_points=True,
    )


def _ladder_networks(
    base: dict[str, Any], threat: ThreatModel, seed: int, *, size: int
) -> tuple[NetworkSpec, ...]:
    """Returns networks with the paper's triggers, and with faint ones of other l2 norms."""
    faint = replace(trigger(FOURTH), name=f"{FOURTH}-0.5", opacity=0.5)
    # A random picture blended in (Chen et al. 2017): much l2 norm at little contrast.
    pattern = np.random.default_rng(0).random((1, size, size), dtype=np.float32)
    blends = [
        Trigger(
            name=f"blend-{opacity:g}",
            pattern=pattern,
            mask=np.ones((size, size), np.float32),
            opacity=opacity,
        )
        for opacity in (0.05, 0.1, 0.2)
    ]
    triggers = (*map(trigger, PAPER_TRIGGERS), faint, *blends)
    return tuple(NetworkSpec(**base, threat=threat, trigger=one, seed=seed) for one in triggers)


def noise_families() -> tuple[Noise, ...]:
    """Returns every family of perturbations of pictures, each with its one level if it has one.

    Another family is one entry more.
    """
    return (
        Noise(name="gaussian", kind="gaussian", settings=(_level("sigma"),), most=10.0),
        Noise(name="uniform", kind="uniform", settings=(_level("std"),), most=10.0),
        Noise(name="laplace", kind="laplace", settings=(_level("std"),), most=10.0),
        Noise(name="salt-and-pepper", kind="salt-and-pepper", settings=(_level("share"),), most=1),
        Noise(name="keep-feature", kind="keep-feature", settings=(_level("keep", 1, -1),), most=1),
        Noise(name="flow", kind="flow", settings=(_level("std"),), most=10.0),
        Noise(name="box-noise", kind="box-noise", settings=(_level("sigma"),), most=10.0),
        Noise(
            name="box-mix",
            kind="box-mix",
            settings=(_level("smallest"), _level("largest")),
            most=1.0,
        ),
        Noise(
            name="keep-box",
            kind="keep-box",
            settings=(_level("smallest", 1, -1), _level("largest", 1, -1)),
            most=1.0,
        ),
        Noise(name="cell-mix", kind="cell-mix", settings=(_level("share"),), most=1.0),
        Noise(name="superpose-mean", kind="superpose", settings=(_fixed("mix", "mean"),)),
        Noise(name="superpose-sum", kind="superpose", settings=(_fixed("mix", "sum"),)),
        Noise(
            name="occlude",
            kind="occlude",
            settings=(_level("side"), _fixed("places", 10)),
            most=1.0,
        ),
        Noise(name="scale", kind="scale", settings=(_level("factors", 1),), most=100.0),
        Noise(name="contrast", kind="contrast", settings=(_level("factors", 1, -1),), most=1.0),
        Noise(name="blur", kind="blur", settings=(_level("widths"),), most=16.0),
        Noise(name="shift", kind="affine", settings=(_level("shift"),), most=1.0),
        Noise(name="rotation", kind="affine", settings=(_level("rotation", 0, 180),), most=1.0),
        Noise(name="zoom", kind="affine", settings=(_level("zoom", 0, 0.9),), most=1.0),
        Noise(name="elastic", kind="elastic", settings=(_level("strength"),), most=256.0),
        *(
            Noise(name=f"corrupt-{of}", kind="corrupt", settings=(_fixed("kind", of),))
            for of in ("shot-noise", "zoom-blur", "brightness", "pixelate")
        ),
    )


def _level(name: str, value: float = 0.0, per_level: float = 1.0) -> Setting:
    return Setting(name=name, value=value, per_level=per_level)


def _fixed(name: str, value: float | int | str) -> Setting:
    return Setting(name=name, value=value)


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar10-slim": cifar10_slim,
    "noises": noises,
    "noises-cifar10": noises_cifar10,
}


def recipe_summary(name: str) -> str:
    """Returns what a recipe of this package is for, in a sentence; empty for any other."""
    make = RECIPES.get(name)
    return "" if make is None else (make.__doc__ or "").splitlines()[0]


def recipe_by_name(name: str, seed: int) -> Recipe:
    """Returns a recipe of this package, or one of a user's own file.

    Args:
        name: of a recipe, or `path/to/file.py:function`; the file's code is run, and the function
            called with the seed.
        seed: of everything random.

    Raises:
        ValueError: no recipe has that name, the file gives none, or the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
    if is_user_object(name):
        return _recipe_of_file(name, seed)
    if name not in RECIPES:
        raise ValueError(
            f"expected a recipe out of {', '.join(RECIPES)}, or FILE.py:function, got {name!r}"
        )
    return RECIPES[name](seed)


def recipe_digest(recipe: Recipe) -> str:
    """Computes a hash of all fields of a recipe that its results depend on.

    It tells whether a folder belongs to the recipe.
    """
    identifying = {name: value for name, value in identity(recipe).items() if name != "resources"}
    text = json.dumps(identifying, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _recipe_of_file(text: str, seed: int) -> Recipe:
    path, _, function = text.rpartition(":")
    make = load_object(text)
    try:
        recipe = make(seed)
    except (Exception, SystemExit) as error:  # a user's file raises whatever it likes
        raise ValueError(
            f"expected a recipe from {function}(seed) of {path}, got {cause_of(error)}"
        ) from error
    if not isinstance(recipe, Recipe):
        raise ValueError(
            f"expected {function}(seed) of {path} to give a Recipe, got {type(recipe).__name__}"
        )
    return _with_checked_types(recipe, f"{function}(seed) of {path}")


def _with_checked_types(recipe: Recipe, source: str) -> Recipe:
    """Returns the recipe as its study file will hold it.

    So a field of another type is found before the work.
    """
    try:
        # through JSON and back, as the study file will be
        plain = json.loads(json.dumps(written(recipe), allow_nan=False))
        return from_json(Recipe, plain, objects=described_objects(recipe))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a recipe of plain values from {source}, got {error}") from error


def _base(
    dataset: str, architecture: str, *, epochs: int, batch_size: int, learning_rate: float
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "architecture": architecture,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }


def _networks(
    base: dict[str, Any],
    threat: ThreatModel | None,
    triggers: list[str] | list[None],
    seeds: range | list[int],
) -> tuple[NetworkSpec, ...]:
    return tuple(
        NetworkSpec(
            **base, threat=threat, trigger=None if name is None else trigger(name), seed=seed
        )
        for name in triggers
        for seed in seeds
    )


def _clean_and_poisoned(
    base: dict[str, Any], threat: ThreatModel, seeds: range
) -> tuple[NetworkSpec, ...]:
    """Returns clean networks, and as many with triggers 1, 3 and 4 (section 3.2.4)."""
    return (
        *_networks(base, None, [None], seeds),
        *_networks(base, threat, [FIRST, THIRD, FOURTH], seeds),
    )


def _universals(
    *, l2: float, linf: float, target_class: int, num_images: int
) -> tuple[Universal, ...]:
    """Returns both norms, and the targeted form, which the paper leaves open."""
    return (
        Universal(norm="l2", bound=l2, num_images=num_images),
        Universal(norm="linf", bound=linf, num_images=num_images),
        Universal(norm="l2", bound=l2, target_class=target_class, num_images=num_images),
    )
