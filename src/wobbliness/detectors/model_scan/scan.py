"""Scan of a model for backdoors: triggers of each class, suspected ones, and W around them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.attacks.gradients.frozen_network import NoGradients
from wobbliness.attacks.patch import Trigger
from wobbliness.classifiers import open_classifier
from wobbliness.detectors.access import network_of, scoring_network
from wobbliness.detectors.batches.batch_test import DEFAULT_SIGMAS, MIN_POINTS
from wobbliness.detectors.inputs.distinct_inputs import distinct_rows, host_array
from wobbliness.detectors.model_scan.evaluate import Pattern, SuspectPoints
from wobbliness.detectors.model_scan.results import CandidateFinding, PatternEffect, Scan
from wobbliness.detectors.reverse_engineering.candidates import Candidates
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import Progress
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.measure import sweep

# Images; more cost time and say little more.
MAX_CRAFTED_ON, MAX_CLEAN, MAX_SUSPECT = 256, 256, 128
MIN_WHITE, MIN_BLACK = 6 * MIN_POINTS, 4 * MIN_POINTS  # images, so that each part is large enough

NO_GRADIENTS = (
    "this model gives answers but no gradients, which Neural Cleanse needs; open it as a torch "
    "module, a torch.export archive, "
    "safetensors weights or a Hugging Face model for candidates"
)


def scan_model(
    classifier: Any,
    images: Any,
    *,
    triggers: Sequence[Trigger] = (),
    sigmas: Iterable[float] = DEFAULT_SIGMAS,
    draws: int = 250,
    restarts: int = 2,
    max_steps: int = 120,
    level: float = 0.01,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    num_classes: int | None = None,
    model: str | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Scans a model for backdoors.

    Which classes need an unusually small trigger, and how smooth is the model around each trigger?

    A torch network is a white box: Neural Cleanse (`craft_candidates`) searches a trigger for each
    class. For any other model the suspected triggers alone are tried. The seed splits the images in
    three: up to 256 to craft on, up to 256 to measure W of clean ones, and up to 128 that every
    pattern is put on, with the same noise for all patterns. `compare_w` chooses sigma on clean
    images alone and compares (section 3.2.4 of the paper).

    Each of the P patterns is tested at level / P (Bonferroni). So among patterns that leave W as it
    is, the probability that any is called smoother is at most `level`, and likewise wobblier,
    although all are compared with the same clean images. What the anomaly index flags has no stated
    rate. W does not tell an implanted trigger from a crafted one: read `Scan.to_look_at()` together
    with `Scan.limits()`.

    Args:
        classifier: as for `open_classifier`; candidates are crafted where it is a torch module, on
            its device; for one that is neither the CPU nor `cuda`, on a copy on the CPU.
        images: `(N, C, H, W)` clean images in [0, 1] of all classes, at least 48, or 32 where no
            candidates are crafted. Their labels are not needed. Copies of an image, of the same
            grey levels of 256, count once.
        triggers: suspected ones, by `trigger` or `trigger_from_png`.
        sigmas: standard deviations of the noise to choose from, pixel units of [0, 1]; a single one
            is taken as it is.
        draws: noisy copies of each image.
        restarts: random starts of each candidate.
        max_steps: most steps of each start.
        level: of all tests together, in (0, 1).
        seed: of the split, the candidates and the noise.
        classes: to craft candidates for; None for all. With fewer than three there is no anomaly
            index.
        num_classes: K, for models that give labels.
        model: its name on the page; by default that of its type.
        progress: called with (steps done, steps in all) of each stage in turn, in place of bars on
            the terminal.

    Returns:
        Scan: all that `wobbliness scan` prints and its page shows.

    Raises:
        NoGradients: the torch network has none that a search could follow, and there is no
            suspected trigger; with one, the lack is said in `Scan.why_no_candidates`. A ValueError,
            too.
        ValueError: there is neither a torch network nor a suspected trigger, classes are given
            without a network, images are too few, mostly copies or of one value throughout, are no
            pictures or do not fit a trigger, or an argument is out of its range, as for `measure`,
            `craft_candidates` and `compare_w`.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level!r}")
    opened = open_classifier(
        classifier, num_classes=num_classes, as_tensor=hasattr(images, "detach")
    )
    network = network_of(opened)
    _check_has_patterns(network, triggers, classes)
    # Everything that can be refused is refused before anything takes long.
    grid = tuple(sigmas)
    to_craft_on, clean, suspect = _split(
        _checked_pictures(images), crafts=network is not None, seed=seed
    )
    for stamp in triggers:
        stamp.apply(suspect[:1])  # whether it fits, before anything takes long
    clean_w = sweep(opened, clean, grid, draws=draws, seed=seed, progress=progress).wobbliness
    crafted, why_none = None, NO_GRADIENTS
    if network is not None:
        try:
            crafted = craft_candidates(
                scoring_network(opened, to_craft_on[:2]),
                to_craft_on,
                num_classes=opened.num_classes or 0,
                restarts=restarts,
                max_steps=max_steps,
                seed=seed,
                classes=classes,
                progress=progress,
            )
        except NoGradients as error:
            if not triggers:
                raise
            # Suspected triggers are still tried, and the page says why there are no candidates.
            why_none = str(error)
    points = SuspectPoints(
        classifier=opened, images=suspect, sigmas=grid, draws=draws, seed=seed, progress=progress
    )
    patterns = _patterns(crafted, triggers)
    # Bonferroni: each of the patterns is tested at its share of the level.
    effects = points.effects(patterns, clean_w, level=level / max(1, len(patterns)))
    num_candidates = len(patterns) - len(triggers)
    return Scan(
        model=model or type(classifier).__name__,
        candidates=() if crafted is None else _findings(crafted, effects[:num_candidates]),
        why_no_candidates=why_none if crafted is None else None,
        triggers=effects[num_candidates:],
        clean_w=clean_w,
        level=level,
        draws=draws,
        seed=seed,
        num_crafted_on=len(to_craft_on),
        num_suspect=len(suspect),
    )


def _check_has_patterns(
    network: object, triggers: Sequence[Trigger], classes: Sequence[int] | None
) -> None:
    """Checks that there is a pattern to try.

    Raises ValueError where there is none, or classes were asked for that nothing can be crafted
    for.
    """
    if network is None and not triggers:
        raise ValueError(
            "expected a torch network or a suspected trigger at least (--trigger NAME or "
            f"FILE.png), got neither: {NO_GRADIENTS}"
        )
    if network is None and classes is not None:
        raise ValueError(
            f"expected no classes to craft candidates for, got {tuple(classes)}: {NO_GRADIENTS}"
        )


def _checked_pictures(images: Any) -> Float32[np.ndarray, "N C H W"]:
    array = host_array(images)
    if array.ndim != 4 or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"expected pictures (N, C, H, W) as floats in [0, 1], got {array.dtype} of shape "
            f"{array.shape}"
        )
    return checked_images(array).astype(np.float32, copy=False)


def _split(
    images: Float32[np.ndarray, "N C H W"], *, crafts: bool, seed: int
) -> tuple[
    Float32[np.ndarray, "a C H W"], Float32[np.ndarray, "b C H W"], Float32[np.ndarray, "c C H W"]
]:
    """Splits different images into those to craft on, to leave clean, and to put patterns on.

    Copies are left out: one of them in two parts would be compared with itself.

    Raises:
        ValueError: there are too few, most are copies or of one value throughout, or the seed is
            negative.
    """
    needed = MIN_WHITE if crafts else MIN_BLACK
    _check_number("images", len(images), needed)
    rows = distinct_rows(images, "clean images")
    images = images if len(rows) == len(images) else images[rows]
    _check_number("different images", len(images), needed)
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(images))
    # A third to craft on, a third of the rest to put patterns on, the rest to leave clean.
    num_crafted_on = min(MAX_CRAFTED_ON, len(images) // 3) if crafts else 0
    num_suspect = min(MAX_SUSPECT, (len(images) - num_crafted_on) // 3)
    to_craft_on, suspect, clean = np.split(order, [num_crafted_on, num_crafted_on + num_suspect])
    return images[to_craft_on], images[clean[:MAX_CLEAN]], images[suspect]


def _check_number(what: str, found: int, needed: int) -> None:
    if found < needed:
        raise ValueError(
            f"expected at least {needed} {what}, to craft on and to compare, got {found}"
        )


def _patterns(crafted: Candidates | None, triggers: Sequence[Trigger]) -> list[Pattern]:
    """Returns the patterns of the candidates that were found, then the suspected triggers."""
    found = (
        []
        if crafted is None
        else [candidate for candidate in crafted.smallest if candidate is not None]
    )
    return [(candidate.trigger(), candidate.target_class) for candidate in found] + [
        (stamp, None) for stamp in triggers
    ]


def _findings(
    crafted: Candidates, effects: Sequence[PatternEffect]
) -> tuple[CandidateFinding, ...]:
    """Returns one finding for each class that was asked for."""
    by_class = {effect.target_class: effect for effect in effects}
    return tuple(
        CandidateFinding(
            target_class=target,
            candidate=crafted.smallest[target],
            anomaly_index=_number_or_none(crafted.anomaly_index[target]),
            is_flagged=target in crafted.flagged,
            effect=by_class.get(target),
        )
        for target in sorted(crafted.classes)
    )


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
