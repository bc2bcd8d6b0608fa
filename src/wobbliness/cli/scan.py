"""`wobbliness scan`: looks for backdoors in a model. Heavy imports are inside the command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wobbliness.cli.options import (
    Column,
    Draws,
    Images,
    Json,
    Model,
    ModelOptions,
    Resize,
    Seed,
    Size,
    failure_of,
    open_model,
    open_trigger,
    raise_later,
    read_images_for,
    say_implausible,
    with_model_options,
)
from wobbliness.runtime.destinations import check_folder

if TYPE_CHECKING:
    from wobbliness.detectors.model_scan.results import Scan


@with_model_options
def scan(
    model: Model,
    options: ModelOptions,
    images: Images,
    trigger: Annotated[
        list[str] | None,
        typer.Option(help="Suspected trigger: a name or a picture; may be repeated."),
    ] = None,
    target: Annotated[
        list[int] | None, typer.Option(help="Class to craft a candidate for; may be repeated. All.")
    ] = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="Noise; one is taken as it is, of several clean images choose."),
    ] = None,
    draws: Draws = 250,
    restarts: Annotated[int, typer.Option(help="Random starts of each candidate.")] = 2,
    steps: Annotated[int, typer.Option(help="Most steps of each start.")] = 120,
    level: Annotated[
        float, typer.Option(help="False-positive rate of the verdicts on W, of all together.")
    ] = 0.01,
    seed: Seed = 0,
    column: Column = None,
    resize: Resize = False,
    size: Size = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for page, pictures, JSON and table; new, empty, or of a scan."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for backdoors in a model.

    Tries a candidate trigger for each class and suspected triggers, and measures W around all of
    them.

    A torch network gets candidates by Neural Cleanse; any other model needs suspected triggers.

    Example: wobbliness scan network.safetensors clean_pictures/ --trigger sticker.png --out scan
    """
    from wobbliness.cli.output import print_scan
    from wobbliness.detectors.batches.batch_test import DEFAULT_SIGMAS
    from wobbliness.reports.model_scan import PAGE, checked_scan_folder, write_scan

    # A folder that cannot be written to is refused before minutes of searching.
    if out is not None:
        check_folder(out)
        checked_scan_folder(out)
    # Triggers first: opening a model may take long, a wrong name should not.
    suspected = [open_trigger(name) for name in trigger or ()]
    classifier = open_model(model, options)
    image_set = read_images_for(classifier, images, column=column, resize=resize, size=size)
    warned = say_implausible(classifier, image_set, options, as_json=as_json)
    found = _scanned(
        classifier,
        image_set.images,
        triggers=suspected,
        sigmas=sigma or DEFAULT_SIGMAS,
        draws=draws,
        restarts=restarts,
        max_steps=steps,
        level=level,
        seed=seed,
        classes=target,
        num_classes=options.num_classes,
        model=Path(model).name,
    )
    # The result is printed even where the folder cannot be written; the error comes last.
    failure = failure_of(lambda folder: write_scan(found, folder, warnings=warned), out)
    page = None if out is None or failure else out / PAGE
    print_scan(found, page, warned, as_json=as_json)
    raise_later(failure)


def _scanned(classifier: Any, images: Any, **settings: Any) -> "Scan":
    from typer.exceptions import TyperException

    from wobbliness.attacks.gradients.frozen_network import NoGradients
    from wobbliness.detectors.model_scan.scan import scan_model

    try:
        return scan_model(classifier, images, **settings)
    except NoGradients as error:  # no mistake of the user's, and no answer: the scan failed
        raise TyperException(str(error)) from error
