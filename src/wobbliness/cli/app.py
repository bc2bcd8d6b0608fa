"""Commands that parse, call and print.

Heavy imports are inside of them.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from wobbliness.cli.detect import detect
from wobbliness.cli.guard import guard_app
from wobbliness.cli.options import (
    IMAGES,
    Address,
    Column,
    Commands,
    Draws,
    Engine,
    EngineName,
    Images,
    Json,
    LabelColumn,
    Model,
    ModelOptions,
    Out,
    Perturbations,
    Precision,
    PrecisionName,
    Resize,
    Seed,
    Size,
    check_perturbations,
    check_table,
    failure_of,
    open_attack,
    open_model,
    open_perturbations,
    overlay_reader,
    prepare_engine,
    raise_later,
    read_images_for,
    say_implausible,
    values_of_inputs,
    with_model_options,
)
from wobbliness.cli.perturbations import perturbations
from wobbliness.cli.scan import scan
from wobbliness.cli.study import study_app
from wobbliness.runtime.destinations import check_file
from wobbliness.runtime.exit import EXIT_TRIGGER

app = Commands(
    name="wobbliness",
    help="How smooth is a classifier's decision around an input? Measures W, the wobbliness, and "
    "studies backdoors by it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study_app, name="study")
app.add_typer(guard_app, name="guard")
app.command("scan")(scan)
app.command("detect")(detect)
app.command("perturbations")(perturbations)


@app.command()
@with_model_options
def measure(
    model: Model,
    options: ModelOptions,
    images: Images,
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="Standard deviation of the noise; may be repeated."),
    ] = None,
    perturbation: Perturbations = None,
    draws: Draws = 250,
    seed: Seed = 0,
    column: Column = None,
    label_column: LabelColumn = None,
    resize: Resize = False,
    size: Size = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="Put a trigger on the images first: a name, a picture, or FILE.py:name."),
    ] = None,
    out: Out = None,
    check_repeatable: Annotated[
        bool,
        typer.Option(
            "--check-repeatable",
            help="Measure twice, to find a model that does not always answer alike.",
        ),
    ] = False,
    precision: Precision = PrecisionName.FLOAT32,
    engine: Engine = EngineName.LOCAL,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Measure W around each image.

    Example: wobbliness measure model.onnx images.npy --sigma 0.1 --sigma 0.15 --out votes.parquet
    """
    from wobbliness.cli.output import print_sweep, write_votes
    from wobbliness.sampling.measure import sweep
    from wobbliness.sampling.ray import sweep_on_ray

    check_table(out)
    prepare_engine(engine, address=address)
    check_perturbations(sigma, perturbation)
    # absolute: a node of a cluster has another working directory
    path = str(Path(model).absolute()) if Path(model).exists() else model
    # Of tables and token ids, which are read as stored, nothing is known that is implausible.
    values = values_of_inputs(sigma, perturbation)
    are_pixels = values.name == "UNIT"
    opened = partial(open_model, path, options, integers=values.name == "TOKENS")
    classifier = opened()
    reading: dict[str, Any] = {"column": column, "label_column": label_column}
    image_set = read_images_for(
        classifier, images, resize=resize, size=size, as_stored=not are_pixels, **reading
    )
    warned = say_implausible(classifier, image_set, options, as_json=as_json) if are_pixels else []

    read_overlays = overlay_reader(classifier, resize=resize, size=size)
    opened_perturbations = open_perturbations(sigma, perturbation, read_overlays)
    pixels = image_set.images if trigger is None else open_attack(trigger).apply(image_set.images)
    settings: dict[str, Any] = {
        "draws": draws,
        "seed": seed,
        "check_repeatable": check_repeatable,
        "num_classes": options.num_classes,
        "precision": precision.value,
    }
    if engine is EngineName.RAY:
        result = sweep_on_ray(opened, pixels, opened_perturbations, address=address, **settings)
    else:
        result = sweep(classifier, pixels, opened_perturbations, **settings)
    # The result is printed even where the table cannot be written; the error comes last.
    failure = failure_of(lambda path: write_votes(result, path, image_set), out)
    print_sweep(result, warned, as_json=as_json)
    raise_later(failure)


@app.command("test")
@with_model_options
def compare(
    model: Model,
    options: ModelOptions,
    clean: Annotated[str, typer.Option(help=f"Images known to be clean. {IMAGES}")],
    suspect: Annotated[str, typer.Option(help="Images in question, of the same classes.")],
    sigma: Annotated[
        list[float] | None,
        typer.Option(
            help="Noise alone; one is taken as it is, of several clean images choose. By default "
            "six to choose from, and of pictures box mix as a second test, p corrected for two."
        ),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            help="In place of noise, or another to choose from, which needs no correction: "
            "KIND:VALUE,... (see `wobbliness perturbations`), or FILE.py:name of your own."
        ),
    ] = None,
    draws: Draws = 250,
    column: Column = None,
    resize: Resize = False,
    size: Size = None,
    destinations: Annotated[
        bool,
        typer.Option(
            "--destinations",
            help="Also test where the same votes go, for triggers that send each class elsewhere; "
            "all p-values are corrected for this test, too.",
        ),
    ] = False,
    level: Annotated[
        float, typer.Option(help="False-positive rate of the verdict on batches of clean images.")
    ] = 0.01,
    seed: Seed = 0,
    precision: Precision = PrecisionName.FLOAT32,
    report: Annotated[Path | None, typer.Option(help="Also a page of the result; .html.")] = None,
    fail_on_trigger: Annotated[
        bool,
        typer.Option(
            "--fail-on-trigger",
            help="Exit code 3 if the suspect is smoother, or its votes go elsewhere.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Test whether a batch of images carries an active trigger.

    Is the model smoother around them than around clean ones, under noise or where a box of another
    clean image is put in?

    Example: wobbliness test model.onnx --clean clean.npy --suspect inbox.npy
    """
    from wobbliness.cli.output import print_comparison
    from wobbliness.detectors.batches.batch_results import SMOOTHER
    from wobbliness.detectors.batches.batch_test import compare_batches
    from wobbliness.reports.batch_test import checked_page, write_comparison

    if report is not None:
        check_file(checked_page(report))
    classifier = open_model(model, options)
    batches = [
        read_images_for(classifier, source, column=column, resize=resize, size=size)
        for source in (clean, suspect)
    ]
    warned = say_implausible(classifier, batches[0], options, as_json=as_json)
    read_overlays = overlay_reader(classifier, resize=resize, size=size)
    found = compare_batches(
        classifier,
        *(batch.images for batch in batches),
        sigmas=open_perturbations(sigma, perturbation, read_overlays) or None,
        draws=draws,
        level=level,
        seed=seed,
        num_classes=options.num_classes,
        destinations=destinations,
        precision=precision.value,
    )
    failure = failure_of(
        lambda path: write_comparison(
            found, path, model=model, clean=clean, suspect=suspect, warnings=warned
        ),
        report,
    )
    print_comparison(found, warned, as_json=as_json)
    raise_later(failure)
    # After everything is written, so that a pipeline has the report of what stopped it.
    if fail_on_trigger and (found.verdict == SMOOTHER or found.goes_elsewhere):
        sys.exit(EXIT_TRIGGER)


@app.command()
def bench(
    network: Annotated[
        list[str] | None, typer.Option(help="Architecture; may be repeated. All by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of each timing.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    scale: Annotated[
        float, typer.Option(min=0.001, help="Share of the images, below 1 for a quick look.")
    ] = 1.0,
    families: Annotated[
        bool, typer.Option("--families", help="Time each family of perturbations, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Time the measurement against the loops that others use; ratios of both sides in one run.

    Example: wobbliness bench --network small_cnn --repeats 3
    """
    from wobbliness.bench.benchmark import NETWORKS, run_benchmark
    from wobbliness.cli.output import print_benchmark

    settings: dict[str, Any] = {"repeats": repeats, "device": device, "scale": scale}
    result = run_benchmark(tuple(network or NETWORKS), families=families, **settings)
    print_benchmark(result, as_json=as_json)
