"""`wobbliness guard`: fits a guard on clean inputs, judges inputs one by one.

Heavy imports are inside the commands.
"""

import warnings
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wobbliness.cli.options import (
    Column,
    Commands,
    Images,
    Json,
    Model,
    ModelOptions,
    Out,
    Precision,
    PrecisionName,
    Resize,
    Seed,
    Size,
    check_table,
    failure_of,
    open_model,
    open_perturbations,
    overlay_reader,
    raise_later,
    read_images_for,
    say_implausible,
    with_model_options,
)
from wobbliness.runtime.destinations import check_file, check_folder
from wobbliness.runtime.terminal import say

if TYPE_CHECKING:
    from wobbliness.detectors.guards.files.guard_files import Guard
    from wobbliness.images import ImageSet
    from wobbliness.perturbations.base import Perturbation

# As SmoothnessGuard and ProfileGuard; a test compares them.
SMOOTHNESS_DRAWS, PROFILE_DRAWS = 250, 50
MAX_NAMES = 5  # of inputs in a message
SMOOTHNESS_SIGMAS = "0.05, 0.1, 0.15, 0.2 and 0.3"

guard_app = Commands(help="Judge single inputs: should they be trusted?", no_args_is_help=True)


class GuardKind(Enum):
    """What a guard reads from the votes."""

    PROFILE = "profile"
    SMOOTHNESS = "smoothness"


class ScoresKind(Enum):
    """What the scores of a model are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


@guard_app.command("fit")
@with_model_options
def fit(
    model: Model,
    options: ModelOptions,
    clean: Annotated[
        str,
        typer.Argument(
            help="Clean images, as for measure. Half of them calibrate, of a profile two fifths."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the guard; new, empty, or of a guard.")],
    kind: Annotated[
        GuardKind,
        typer.Option(
            "--guard",
            help="profile: inputs whose votes under many perturbations stay, differ or go "
            "elsewhere than those of clean inputs; mixes with a fifth of these, 100 at most. "
            "smoothness: inputs whose votes differ too little under noise.",
        ),
    ] = GuardKind.PROFILE,
    sigma: Annotated[
        list[float] | None,
        typer.Option(
            help="Standard deviation of the noise; may be repeated. In place of the default "
            f"profile, or of {SMOOTHNESS_SIGMAS} with --guard smoothness."
        ),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND:VALUE,... (see `wobbliness perturbations`); may be repeated. Kept with the "
            "guard; with --sigma or without it in place of the default profile or noise."
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Copies of each image under each perturbation; by default "
            f"{PROFILE_DRAWS}, {SMOOTHNESS_DRAWS} with --guard smoothness."
        ),
    ] = None,
    scores: Annotated[
        ScoresKind | None,
        typer.Option(help="What the model's scores are, for a profile to read them, too."),
    ] = None,
    false_positive_rate: Annotated[
        float, typer.Option(help="Share of clean inputs to be called suspicious.")
    ] = 0.05,
    seed: Seed = 0,
    precision: Precision = PrecisionName.FLOAT32,
    column: Column = None,
    resize: Resize = False,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Fit a guard on clean inputs.

    Example: wobbliness guard fit model.onnx clean.npy --out guard --false-positive-rate 0.01
    """
    from wobbliness.cli.output import print_guard
    from wobbliness.detectors.guards.files.guard_files import checked_folder, save_guard
    from wobbliness.detectors.guards.files.kept_perturbations import keep_perturbations
    from wobbliness.statistics.plausibility import ABOUT_ANSWERS

    # A folder that cannot be written to is refused before minutes of measuring.
    check_folder(out)
    checked_folder(out)
    if scores is not None and kind is not GuardKind.PROFILE:
        raise ValueError("expected --scores with --guard profile, got --guard smoothness")
    settings: dict[str, Any] = {"seed": seed, "num_classes": options.num_classes}
    settings |= {"false_positive_rate": false_positive_rate, "precision": precision.value}
    settings |= {} if draws is None else {"draws": draws}
    classifier = open_model(model, options)
    read_overlays = overlay_reader(classifier, resize=resize, size=size)
    sigmas = open_perturbations(sigma, perturbation, read_overlays)
    # What cannot be kept is refused before minutes of measuring, too.
    keep_perturbations(sigmas)
    guard = _guard(kind, classifier, sigmas, scores, settings)
    are_pixels = _are_pixels(sigmas)
    image_set = read_images_for(
        classifier, clean, column=column, resize=resize, size=size, as_stored=not are_pixels
    )
    warned = say_implausible(classifier, image_set, options, as_json=as_json) if are_pixels else []
    _fit(guard, image_set, hints=scores is None)
    # What was said before the work is not said again.
    later = [line for line in guard.warnings_ if not (warned and line.startswith(ABOUT_ANSWERS))]
    for line in later:
        say(f"warning: {line}", error=True)
    save_guard(guard, out, model=Path(model).name, resized=_resizes(resize, size))
    print_guard(guard, out, warned + later, as_json=as_json)


def _fit(guard: "Guard", image_set: "ImageSet", *, hints: bool) -> None:
    """Fits a guard; of too few clean inputs it says where another kind of guard would do."""
    from wobbliness.detectors.guards.smoothness_guard import least_inputs
    from wobbliness.detectors.inputs.clean_parts import UnsuitedInputs

    try:
        guard.fit(image_set.images, image_set.labels)
    except UnsuitedInputs as error:
        least = least_inputs(guard.false_positive_rate)
        if not hints or error.num_inputs < least:
            raise
        raise ValueError(
            f"{error}; with --guard smoothness {least} do, of one class or more"
        ) from error


def _guard(
    kind: GuardKind,
    classifier: Any,
    sigmas: list[Any],
    scores: ScoresKind | None,
    settings: dict[str, Any],
) -> "Guard":
    """Returns a guard that is not fitted; of no sigmas one of the defaults of its kind."""
    from wobbliness.detectors.guards.profile_guard import ProfileGuard
    from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard

    if kind is GuardKind.SMOOTHNESS:
        noise: dict[str, Any] = {"sigmas": tuple(sigmas)} if sigmas else {}
        return SmoothnessGuard(classifier, **noise, **settings)
    read: Any = None if scores is None else scores.value
    return ProfileGuard(classifier, perturbations=tuple(sigmas) or None, scores=read, **settings)


@guard_app.command("judge")
@with_model_options
def judge(
    guard: Annotated[Path, typer.Argument(help="A guard's folder.")],
    model: Model,
    options: ModelOptions,
    images: Images,
    out: Out = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Verdicts alone, with as few draws as decide them.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Also a page that explains the verdicts, with pictures; .html."),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="As for guard fit; by default the one that it was fitted with."),
    ] = None,
    column: Column = None,
    resize: Resize = False,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Judge inputs one by one: label, p-value, verdict, reason, and W at each sigma.

    Perturbations, and the kind of guard, are those that it was fitted with.

    Example: wobbliness guard judge guard model.onnx images.npy --report page.html
    """
    from wobbliness.cli.output import print_judgement, print_quick_verdicts, write_table
    from wobbliness.detectors.guards.detection_results import Judgement
    from wobbliness.detectors.guards.profile_guard import ProfileGuard
    from wobbliness.reports.batch_test import checked_page

    # Before minutes of measuring, not after them.
    check_table(out)
    if report is not None:
        check_file(checked_page(report))
    if quick and report is not None:
        raise ValueError("expected --report without --quick, which gives no reasons, got both")
    classifier = open_model(model, options)
    fitted, mismatch = _loaded(guard, classifier, model, resized=_resizes(resize, size))
    if precision is not None:
        fitted.precision = precision.value
    are_pixels = _are_pixels(_perturbations_of(fitted))
    inputs = read_images_for(
        classifier, images, column=column, resize=resize, size=size, as_stored=not are_pixels
    )
    _check_apart(fitted, inputs)
    warned = list(mismatch)
    if are_pixels:
        warned += say_implausible(
            classifier, inputs, options, as_json=as_json, with_labels_only=True
        )
    # Decisions alone need fewer draws than scores.
    found = fitted.judge_quickly(inputs.images) if quick else fitted.judge(inputs.images)
    # The verdicts are printed even where a file cannot be written; the error comes last.
    failure = failure_of(lambda path: write_table(found.frame(inputs.names), path), out)
    verdict = "suspicious" if isinstance(fitted, ProfileGuard) else "suspiciously smooth"
    if isinstance(found, Judgement):
        about: dict[str, Any] = {"guard": fitted, "names": inputs.names, "source": images}
        about |= {"model": Path(model).name, "warnings": warned}
        write = partial(_write_page, found, inputs.images, about)
        failure = failure_of(write, report) or failure
        print_judgement(found, inputs.names, warned, verdict=verdict, as_json=as_json)
    else:
        print_quick_verdicts(found, inputs.names, warned, verdict=verdict, as_json=as_json)
    raise_later(failure)


def _are_pixels(perturbations: "Sequence[float | Perturbation]") -> bool:
    """Checks whether inputs are pictures in [0, 1], not rows of a table with values of any kind."""
    from wobbliness.perturbations.base import InputValues, input_values_of
    from wobbliness.sampling.plan import perturbation_of

    values = {input_values_of(perturbation_of(each)) for each in perturbations}
    # Several kinds together are refused later, by the names of both.
    return values != {InputValues.ANY}


def _check_apart(guard: "Guard", inputs: "ImageSet") -> None:
    """Raises ValueError with the names of inputs that the guard mixes with others."""
    from wobbliness.detectors.inputs.overlay_copies import overlay_rows

    rows = overlay_rows(_perturbations_of(guard), inputs.images)
    if not len(rows):
        return
    names = ", ".join(inputs.names[row] for row in rows[:MAX_NAMES])
    raise ValueError(
        "expected inputs that the guard does not mix with others, got "
        f"{names}{' ...' * (len(rows) > MAX_NAMES)} ({len(rows)} of {len(inputs.names)}): leave "
        "them out"
    )


def _perturbations_of(guard: "Guard") -> "Sequence[float | Perturbation]":
    from wobbliness.detectors.guards.profile_guard import ProfileGuard

    return guard.perturbations_ if isinstance(guard, ProfileGuard) else guard.sigmas


def _write_page(found: Any, images: Any, about: dict[str, Any], path: Path) -> None:
    """Writes the page of verdicts; the other arguments of `write_judgement` in a table."""
    from wobbliness.reports.guard_judgement import write_judgement  # with matplotlib

    write_judgement(found, images, path, **about)


def _loaded(
    folder: Path, classifier: Any, model: str, *, resized: bool
) -> tuple["Guard", list[str]]:
    """Loads a guard; warns where it was fitted with another model or other preprocessing."""
    from wobbliness.detectors.guards.files.guard_files import (
        load_guard,
        model_mismatch,
        preprocessing_mismatch,
    )

    name = Path(model).name
    with warnings.catch_warnings():
        # said below, in the command's own form
        warnings.filterwarnings("ignore", message="this guard was fitted ")
        fitted = load_guard(folder, classifier, model=name)
    line = model_mismatch(fitted, name) or preprocessing_mismatch(fitted, resized=resized)
    # A mismatch is a warning, not a refusal: the verdicts are still computed.
    if line is None:
        return fitted, []
    say(f"warning: {line}", error=True)
    return fitted, [line]


def _resizes(resize: bool, size: str | None) -> bool:
    return resize or size is not None
