"""`wobbliness detect`: scores of any detector. Heavy imports are inside the command."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wobbliness.cli.options import (
    IMAGES,
    Column,
    Images,
    Json,
    Model,
    ModelOptions,
    Out,
    Resize,
    Seed,
    Size,
    check_table,
    failure_of,
    open_model,
    raise_later,
    read_images_for,
    say_implausible,
    with_model_options,
)

if TYPE_CHECKING:
    from wobbliness.detectors.base import Detector


@with_model_options
def detect(
    model: Model,
    options: ModelOptions,
    images: Images,
    clean: Annotated[str, typer.Option(help=f"Images known to be clean. {IMAGES}")],
    detector: Annotated[
        str,
        typer.Option(
            help="Name of a detector, such as top-score (a wrong name lists all), or FILE.py:name "
            "of your own one or of its class: runs the file's code."
        ),
    ],
    seed: Seed = 0,
    column: Column = None,
    resize: Resize = False,
    size: Size = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Score images, or the model, by any detector.

    Half of the clean images fit the detector, the other half calibrates: the p-value of an image is
    the share of clean scores that are as high.

    Example: wobbliness detect model.onnx inbox/ --clean clean.npy --detector smoothness
    """
    from wobbliness.cli.output import print_detection, write_table
    from wobbliness.detectors import detect as detection
    from wobbliness.detectors.base import Judges

    check_table(out)
    chosen = open_detector(detector)
    classifier = open_model(model, options)
    sets: list[Any] = [
        read_images_for(classifier, source, column=column, resize=resize, size=size)
        for source in (clean, images)
    ]
    warned = say_implausible(classifier, sets[0], options, as_json=as_json)
    found = detection.detect(chosen, classifier, sets[1].images, sets[0].images, seed=seed)
    names = {Judges.MODELS: [model], Judges.BATCHES: [images]}.get(found.judges, sets[1].names)
    failure = failure_of(lambda path: write_table(found.frame(names), path), out)
    print_detection(found, names, warned, as_json=as_json)
    raise_later(failure)


def open_detector(name: str) -> "Detector":
    """Returns a detector of this package by its kind, or one of the user's own file.

    Raises:
        ValueError: there is none of that name, or what the file has is no detector.
    """
    from wobbliness.detectors.base import Detector
    from wobbliness.detectors.find import detector_of_kind
    from wobbliness.runtime.user_files import instance_of, is_user_object, load_object

    found = load_object(name) if is_user_object(name) else detector_of_kind(name)
    what = "a detector, with name, access, judges and fit"
    detector: Detector = instance_of(found, Detector, what, name)
    return detector
