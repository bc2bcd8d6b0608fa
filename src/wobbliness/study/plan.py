"""Cells that a study consists of, claim by claim."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from wobbliness.attacks.patch import trigger
from wobbliness.study.recipes import FIRST, PAPER_TRIGGERS, Recipe
from wobbliness.study.specs import (
    Cell,
    CleanseSpec,
    DetectSpec,
    LadderSpec,
    MeasureSpec,
    NetworkSpec,
    NoiseSpec,
    PerturbSpec,
    ResponseSpec,
    Spec,
    UniversalSpec,
)
from wobbliness.study.specs.cleanse import FORMS

CLEAN_BATCHES = 3  # to choose sigma on, to compare with, and to compare clean with clean
RESPONSE_IMAGES = 200
# not claims: the point browser and two tables of the page; no verdict follows from them
ONE_POINT, PERTURBATIONS, DETECTORS = "F1", "F2", "F3"
NUM_SHOWN = 24  # points of each batch that it shows


def plan(recipe: Recipe, only: Iterable[str] | None = None) -> tuple[Cell, ...]:
    """Returns the cells of a study, each once, after those that it needs.

    Args:
        recipe: the study.
        only: ids of the claims wanted; all by default.

    Raises:
        ValueError: the recipe does not measure a claim that is asked for.
    """
    # equal specs of several claims are one cell; insertion order keeps needs before users
    wanted: dict[Spec, list[str]] = {}
    for claim, spec in _specs(recipe):
        for needed in (*spec.needs, spec):
            wanted.setdefault(needed, []).append(claim)
    cells = tuple(
        Cell(spec=spec, claims=tuple(sorted(set(claims)))) for spec, claims in wanted.items()
    )
    if only is None:
        return cells
    asked, known = set(only), {claim for cell in cells for claim in cell.claims}
    if not asked or asked - known:
        raise ValueError(
            f"expected claims out of {', '.join(sorted(known))}, got "
            f"{', '.join(sorted(asked)) or 'none'}"
        )
    return tuple(cell for cell in cells if asked & set(cell.claims))


def measured_claims(recipe: Recipe) -> tuple[str, ...]:
    """Returns the ids of the claims that a recipe measures."""
    return tuple(sorted({claim for claim, _ in _specs(recipe)}))


def browser_networks(recipe: Recipe) -> tuple[NetworkSpec, ...]:
    """Returns the networks whose points the page's point browser shows.

    The first of C3, and of C7 the first poisoned and the first clean one.
    """
    poisoned = [network for network in recipe.detection_networks if network.threat is not None]
    clean = [network for network in recipe.detection_networks if network.threat is None]
    return tuple(dict.fromkeys((*recipe.effect_networks[:1], *poisoned[:1], *clean[:1])))


def _specs(recipe: Recipe) -> Iterator[tuple[str, Spec]]:
    yield from _parameter_specs(recipe)
    yield from _effect_specs(recipe)
    yield from _strength_specs(recipe)
    yield from _detection_specs(recipe)
    yield from _browser_specs(recipe)
    yield from _input_specs(recipe)
    yield from _noise_specs(recipe)


def _parameter_specs(recipe: Recipe) -> Iterator[tuple[str, Spec]]:
    for network in recipe.parameter_networks:
        common: dict[str, Any] = {"network": network, "trigger": None, "seed": recipe.seed}
        common |= {"first_point": 0, "num_points": recipe.parameter_points}
        yield "C1", MeasureSpec(**common, sigmas=recipe.draws_sigmas, draws=recipe.draws_grid)
        yield "C2", MeasureSpec(**common, sigmas=recipe.parameter_sigmas, draws=(recipe.draws,))


def _effect_specs(recipe: Recipe) -> Iterator[tuple[str, Spec]]:
    for network in recipe.effect_networks:
        for claim, suspect in (("C3", network.trigger), ("C4", recipe.inactive_trigger)):
            yield claim, _clean(recipe, network, recipe.effect_points)
            yield claim, _suspect(recipe, network, recipe.effect_points, trigger=suspect)


def _strength_specs(recipe: Recipe) -> Iterator[tuple[str, Spec]]:
    for network in recipe.strength_networks:
        of_network = _at_points_of(recipe, network)
        yield "C5", _clean(of_network, network, recipe.detection_points)
        yield "C5", _suspect(of_network, network, recipe.detection_points, trigger=network.trigger)
    for network in recipe.class_networks:
        yield "C6", _clean(recipe, network, recipe.detection_points)
        yield (
            "C6",
            _suspect(
                recipe,
                network,
                recipe.class_points,
                trigger=network.trigger,
                per_class=True,
                after=recipe.detection_points,
            ),
        )


def _detection_specs(study: Recipe) -> Iterator[tuple[str, Spec]]:
    for network in study.detection_networks:
        recipe = _at_points_of(study, network)
        crafted = {
            "C8": list(_universal_suspects(recipe, network)),
            "C9": list(_cleanse_suspects(recipe, network)),
        }
        if (
            crafted["C9"] and network.trigger is not None
        ):  # implanted triggers, to tell the candidates from
            crafted["C9"].append(
                _suspect(recipe, network, recipe.detection_points, trigger=network.trigger)
            )
        triggered = [
            _suspect(recipe, network, recipe.detection_points, trigger=name)
            for name in _patterns(network)
        ]
        for claim, suspects in {"C7": triggered, **crafted}.items():
            for suspect in suspects:
                yield claim, _clean(recipe, network, recipe.detection_points)
                yield claim, suspect
        if recipe.response_levels:
            common: dict[str, Any] = {"num_images": RESPONSE_IMAGES, "seed": recipe.seed}
            yield "X1", ResponseSpec(network=network, levels=recipe.response_levels, **common)


def _patterns(network: NetworkSpec) -> tuple[Any, ...]:
    """Returns the paper's triggers, and the network's own where it is another."""
    own = network.attack
    others = () if own is None or own.name in PAPER_TRIGGERS else (own,)
    return (*PAPER_TRIGGERS, *others)


def _browser_specs(recipe: Recipe) -> Iterator[tuple[str, Spec]]:
    """Yields specs that measure points of the point browser without a pattern."""
    for network in browser_networks(recipe):
        used = [(recipe, recipe.effect_points)] if network in recipe.effect_networks else []
        if network in recipe.detection_networks:
            used.append((_at_points_of(recipe, network), recipe.detection_points))
        # the points of the suspect batch: after the three clean batches
        for of_network, num_points in used:
            yield (
                ONE_POINT,
                _suspect(of_network, network, min(NUM_SHOWN, num_points), after=num_points),
            )


def _input_specs(study: Recipe) -> Iterator[tuple[str, Spec]]:
    """Yields specs of single inputs, triggered and clean, for each perturbation and detector.

    A clean network is shown the inactive trigger, as a control.
    """
    for network in study.detection_networks:
        common: dict[str, Any] = {
            "network": network,
            "trigger": network.trigger or study.inactive_trigger,
            "num_points": study.detection_points,
            "seed": _at_points_of(study, network).seed,
        }
        if study.perturbations:
            yield (
                PERTURBATIONS,
                PerturbSpec(**common, perturbations=study.perturbations, draws=study.draws),
            )
        for detector in study.detectors:
            yield DETECTORS, DetectSpec(**common, detector=detector)


def _noise_specs(study: Recipe) -> Iterator[tuple[str, Spec]]:
    """Yields specs of each family of perturbations, and of the ladders of Gaussian noise.

    A clean network is shown the first trigger, as a control.
    """
    for network in study.noise_networks:
        common: dict[str, Any] = {
            "network": network,
            "trigger": network.trigger or trigger(FIRST),
            "inactive": study.inactive_trigger,
            "shift": study.noise_shift,
            "num_images": study.noise_images,
            "num_points": study.noise_points,
            "draws": study.draws,
            "seed": _at_points_of(study, network).seed,
        }
        for noise in study.noises:
            yield "X4", NoiseSpec(**common, noise=noise)
    for network in study.ladder_networks:
        yield (
            "X5",
            LadderSpec(
                network=network,
                trigger=network.trigger or trigger(FIRST),
                sigmas=study.sigmas,
                num_points=study.ladder_points,
                draws=study.draws,
                seed=_at_points_of(study, network).seed,
            ),
        )


def _universal_suspects(recipe: Recipe, network: NetworkSpec) -> Iterator[MeasureSpec]:
    for universal in recipe.universals:
        crafted = UniversalSpec(network=network, seed=recipe.seed, **vars(universal))
        yield _suspect(recipe, network, recipe.detection_points, crafted=crafted)


def _cleanse_suspects(recipe: Recipe, network: NetworkSpec) -> Iterator[MeasureSpec]:
    if recipe.cleanse is None:
        return
    settings = {name: value for name, value in vars(recipe.cleanse).items() if name != "num_points"}
    crafted = CleanseSpec(network=network, seed=recipe.seed, **settings)
    for form in FORMS:
        yield _suspect(
            recipe,
            network,
            recipe.cleanse.num_points,
            crafted=crafted,
            form=form,
            after=recipe.detection_points,
        )


def _clean(recipe: Recipe, network: NetworkSpec, num_points: int) -> MeasureSpec:
    """Returns three clean batches in one spec (see CLEAN_BATCHES)."""
    return MeasureSpec(
        network=network,
        trigger=None,
        first_point=0,
        num_points=CLEAN_BATCHES * num_points,
        sigmas=recipe.sigmas,
        draws=(recipe.draws,),
        seed=recipe.seed,
    )


def _suspect(
    recipe: Recipe,
    network: NetworkSpec,
    num_points: int,
    *,
    after: int | None = None,
    **pattern: Any,
) -> MeasureSpec:
    """Returns a batch of other points than the clean ones, with a pattern on them."""
    return MeasureSpec(
        network=network,
        first_point=CLEAN_BATCHES * (after or num_points),
        num_points=num_points,
        sigmas=recipe.sigmas,
        draws=(recipe.draws,),
        seed=recipe.seed,
        **({"trigger": None} | pattern),
    )


def _at_points_of(recipe: Recipe, network: NetworkSpec) -> Recipe:
    """Returns the recipe with the seed that chooses the points for a network."""
    return replace(recipe, seed=recipe.seed + network.seed) if recipe.own_points else recipe
