"""The command line: parse, call, print, exit code. Heavy imports are inside the commands."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from wobbliness.command_inputs import (
    IMAGES,
    Column,
    Draws,
    Factory,
    Images,
    Json,
    LabelColumn,
    Layout,
    Model,
    NumClasses,
    Out,
    Resize,
    Seed,
    TrustPickle,
    check_table,
    open_model,
    open_trigger,
    read_images_for,
)
from wobbliness.guard_cli import guard_app
from wobbliness.scan_cli import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wobbliness.study.report import Report
    from wobbliness.study.runner import CellProgress

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_TRIGGER = 1, 2, 3

app = typer.Typer(
    name="wobbliness",
    help="How smooth is a classifier's decision around an input? Measures W, the wobbliness, and studies backdoors by it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study_app = typer.Typer(help="Run the paper's experiments and report them.", no_args_is_help=True)
app.add_typer(study_app, name="study")
app.add_typer(guard_app, name="guard")
app.command("scan")(scan)


def main() -> None:
    """Runs the command line: exit code 0 done, 2 wrong use or bad input (one line says what), 1 failed."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except ValueError as error:
        _fail(str(error), EXIT_BAD_INPUT)
    except Exception as error:  # a model's own error, a full disk: one line, not a page
        _fail(f"{type(error).__name__}: {error}", EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def measure(
    model: Model,
    images: Images,
    sigma: Annotated[list[float], typer.Option(help="Standard deviation of the noise; may be repeated.")],
    draws: Draws = 250,
    seed: Seed = 0,
    column: Column = None,
    label_column: LabelColumn = None,
    resize: Resize = False,
    trigger: Annotated[str | None, typer.Option(help="Put a trigger on the images first: a name or FILE.png.")] = None,
    num_classes: NumClasses = None,
    factory: Factory = None,
    layout: Layout = None,
    trust_pickle: TrustPickle = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure W around each image.

    Example: wobbliness measure model.onnx images.npy --sigma 0.1 --sigma 0.15 --out votes.parquet
    """
    from wobbliness.printing import print_sweep, write_votes
    from wobbliness.sampling import sweep

    check_table(out)
    classifier = open_model(model, num_classes, factory=factory, layout=layout, trust_pickle=trust_pickle)
    image_set = read_images_for(classifier, images, column=column, label_column=label_column, resize=resize)
    pixels = image_set.images if trigger is None else open_trigger(trigger).apply(image_set.images)
    result = sweep(classifier, pixels, sigma, draws=draws, seed=seed, num_classes=num_classes)
    if out is not None:
        write_votes(result, out, image_set)
    print_sweep(result, as_json=as_json)


@app.command("test")
def compare(
    model: Model,
    clean: Annotated[str, typer.Option(help=f"Images known to be clean. {IMAGES}")],
    suspect: Annotated[str, typer.Option(help="Images in question, of the same classes.")],
    sigma: Annotated[
        list[float] | None, typer.Option(help="Noise; one is taken as it is, of several clean images choose.")
    ] = None,
    draws: Draws = 250,
    column: Column = None,
    resize: Resize = False,
    level: Annotated[float, typer.Option(help="False-positive rate of the verdict on batches of clean images.")] = 0.01,
    seed: Seed = 0,
    num_classes: NumClasses = None,
    factory: Factory = None,
    layout: Layout = None,
    trust_pickle: TrustPickle = False,
    fail_on_trigger: Annotated[bool, typer.Option("--fail-on-trigger", help="Exit code 3 if the suspect is smoother.")] = False,
    as_json: Json = False,
) -> None:
    """Test whether a batch of images carries an active trigger: is the model smoother around them than around clean ones?

    Example: wobbliness test model.onnx --clean clean.npy --suspect inbox.npy
    """
    from wobbliness.batches import DEFAULT_SIGMAS, SMOOTHER, compare_batches
    from wobbliness.printing import print_comparison

    classifier = open_model(model, num_classes, factory=factory, layout=layout, trust_pickle=trust_pickle)
    batches = [read_images_for(classifier, source, column=column, resize=resize).images for source in (clean, suspect)]
    found = compare_batches(
        classifier,
        *batches,
        sigmas=sigma or DEFAULT_SIGMAS,
        draws=draws,
        level=level,
        seed=seed,
        num_classes=num_classes,
    )
    print_comparison(found, as_json=as_json)
    if fail_on_trigger and found.verdict == SMOOTHER:
        sys.exit(EXIT_TRIGGER)


@app.command()
def bench(
    network: Annotated[list[str] | None, typer.Option(help="Architecture; may be repeated. All by default.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of each timing.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    scale: Annotated[float, typer.Option(min=0.001, help="Share of the images, below 1 for a quick look.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Time the measurement beside the loops that others use; ratios of both sides in one run.

    Example: wobbliness bench --network small_cnn --repeats 3
    """
    from wobbliness.benchmark import NETWORKS, run_benchmark
    from wobbliness.printing import print_benchmark

    result = run_benchmark(tuple(network or NETWORKS), repeats=repeats, device=device, scale=scale)
    print_benchmark(result, as_json=as_json)


@study_app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes.

    Example: wobbliness study list
    """
    from wobbliness.study.cell_plan import measured_claims, plan
    from wobbliness.study.recipes import RECIPES

    rows: list[dict[str, Any]] = [
        {
            "recipe": name,
            "claims": list(measured_claims(make(0))),
            "cells": len(plan(make(0))),
            "about": (make.__doc__ or "").splitlines()[0],
        }
        for name, make in RECIPES.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['recipe']:<13} {' '.join(row['claims']):<30} {row['cells']:>4} cells  {row['about']}")


@study_app.command("run")
def run(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (`wobbliness study list`), or FILE.py:function of your own.")],
    out: Annotated[Path, typer.Option(help="The study's folder, new or of the same recipe and seed.")],
    seed: Seed = 0,
    only: Annotated[str | None, typer.Option(help="Claims wanted, for instance C3,C4.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes side by side; one per core by default.")] = None,
    as_json: Json = False,
) -> None:
    """Run a study: does only what its folder lacks, then writes tables, figures and report.html.

    Example: wobbliness study run digits --out runs/digits --seed 0 --only C3,C4
    """
    from wobbliness.study.recipes import recipe_by_name
    from wobbliness.study.runner import StudyFailed, run_study

    wanted = None if only is None else [claim.strip() for claim in only.split(",")]
    with _cell_progress() as progress:
        try:
            run_study(recipe_by_name(recipe, seed), out, only=wanted, workers=workers, progress=progress)
        except StudyFailed as error:
            _fail(str(error), EXIT_FAILED)
    _report(out, as_json=as_json)


@study_app.command("status")
def status(out: Annotated[Path, typer.Argument(help="A study's folder.")], as_json: Json = False) -> None:
    """Show how many cells of a study are done.

    Example: wobbliness study status runs/digits
    """
    from wobbliness.study.records import read_recipe, study_status

    found = study_status(read_recipe(out), out)
    if as_json:
        print(json.dumps(vars(found), indent=1))
    else:
        print(f"{found.recipe}, seed {found.seed}: {found.num_done} of {found.num_cells} cells done")


@study_app.command("report")
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies.")],
    markdown: Annotated[Path | None, typer.Option(help="Also write the findings of all of them to this FILE.md.")] = None,
    as_json: Json = False,
) -> None:
    """Form tables, figures and report.html again from the records; needs no torch.

    Example: wobbliness study report runs/digits
    """
    if markdown is not None and (markdown.suffix != ".md" or not markdown.parent.is_dir()):
        raise ValueError(f"expected a FILE.md in an existing folder, got {markdown}")
    reports = [_report(folder, as_json=as_json) for folder in folders]
    if markdown is not None:
        from wobbliness.study.report import write_markdown

        write_markdown(reports, markdown)


@study_app.command("pack")
def pack(
    out: Annotated[Path, typer.Argument(help="A study's folder.")],
    folder: Annotated[Path, typer.Argument(help="Where the packed records go; new, empty or a packed study.")],
) -> None:
    """Put a study's records, without its networks, into a few small files.

    Example: wobbliness study pack runs/digits docs/results/digits
    """
    from wobbliness.study.packing import pack_study

    pack_study(out, folder)


@study_app.command("unpack")
def unpack(
    folder: Annotated[Path, typer.Argument(help="A packed study.")],
    out: Annotated[Path, typer.Argument(help="The study's folder to be, new or empty.")],
    as_json: Json = False,
) -> None:
    """Make a study's folder of packed records again, with tables, figures and report.html; needs no torch.

    Example: wobbliness study unpack docs/results/digits runs/digits
    """
    from wobbliness.study.packing import unpack_study

    unpack_study(folder, out)
    _report(out, as_json=as_json)


def _fail(message: str, code: int) -> None:
    if message:  # there is none where a bare command printed its help
        print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _report(out: Path, *, as_json: bool) -> "Report":
    from wobbliness.printing import print_report
    from wobbliness.study.report import write_report

    report = write_report(out)
    print_report(report, as_json=as_json)
    return report


@contextmanager
def _cell_progress() -> "Iterator[CellProgress]":
    """A bar of cells done and one for each cell in work, on a terminal; elsewhere a line per finished cell would be noise."""
    from wobbliness.progress import open_progress

    bar, tasks = open_progress(), dict[str, Any]()
    bar.disable = not sys.stderr.isatty()

    def report(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done, total=total, visible=done < total)

    with bar:
        yield report
