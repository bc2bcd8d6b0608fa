"""`wobbliness study`: runs the paper's experiments, shows their progress, reports them.

Heavy imports are inside the commands.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wobbliness.cli.options import Address, Commands, Engine, EngineName, Json, Seed, prepare_engine
from wobbliness.runtime.destinations import check_folder
from wobbliness.runtime.interrupts import Interrupted, allow_slow_stop
from wobbliness.runtime.terminal import say, say_json

if TYPE_CHECKING:
    from wobbliness.study.report.report import Report

study_app = Commands(help="Run the paper's experiments and report them.", no_args_is_help=True)


@study_app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes.

    Example: wobbliness study list
    """
    from wobbliness.study.recipes import RECIPES

    rows = [_about(name, make) for name, make in RECIPES.items()]
    if as_json:
        say_json(rows, indent=1)
        return
    for row in rows:
        claims = " ".join(row["claims"])
        say(f"{row['recipe']:<13} {claims:<30} {row['cells']:>4} cells  {row['about']}")


def _about(name: str, make: Callable[[int], Any]) -> dict[str, Any]:
    from wobbliness.study.plan import measured_claims, plan
    from wobbliness.study.recipes import recipe_summary

    return {
        "recipe": name,
        "claims": list(measured_claims(make(0))),
        "cells": len(plan(make(0))),
        "about": recipe_summary(name),
    }


@study_app.command("run")
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a recipe (`wobbliness study list`), or FILE.py:function of your own."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The study's folder, new or of the same recipe and seed.")
    ],
    seed: Seed = 0,
    only: Annotated[str | None, typer.Option(help="Claims wanted, for instance C3,C4.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; one per core by default.")
    ] = None,
    cell_timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds that one cell may take; its process is killed then. No limit by default.",
        ),
    ] = None,
    retry: Annotated[
        bool, typer.Option(help="Whether cells that failed in an earlier run are tried again.")
    ] = True,
    device: Annotated[
        str, typer.Option(help="Where networks are trained and measured, cpu or cuda.")
    ] = "cpu",
    autocast: Annotated[
        bool, typer.Option("--autocast", help="Measure in bfloat16, on an accelerator only.")
    ] = False,
    engine: Engine = EngineName.LOCAL,
    address: Address = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray, for nodes that do not share the folder: a URL such as "
            "s3://bucket/study."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study: does only what its folder lacks, then writes tables, figures and report.html.

    It may be stopped at any time and run again; several may run in one folder.

    Example: wobbliness study run digits --out runs/digits --seed 0 --only C3,C4
    """
    from wobbliness.cli.study_progress import cell_progress
    from wobbliness.study.recipes import recipe_by_name
    from wobbliness.study.running.runner import Cluster, run_study
    from wobbliness.study.training.device import Place

    check_folder(out)
    # Only the cells that these claims need are run.
    wanted = None if only is None else [claim.strip() for claim in only.split(",")]
    prepare_engine(engine, address=address, store=store)
    # Without a cluster the cells are run by processes of this machine.
    cluster = Cluster(address=address, store=store) if engine is EngineName.RAY else None
    settings: dict[str, Any] = {
        "only": wanted,
        "workers": workers,
        "cell_timeout": cell_timeout,
        "retry": retry,
        "cluster": cluster,
        "place": Place(device=device, autocast=autocast),
    }
    # Workers write what they have before they end.
    allow_slow_stop()
    try:
        with cell_progress() as (progress, notice):
            study = recipe_by_name(recipe, seed)
            run_study(study, out, progress=progress, notice=notice, **settings)
    # Records are atomic, so a study may be interrupted anywhere and resumed.
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: what is recorded is kept, and the same command goes on from there"
        ) from None
    _report(out, as_json=as_json)


@study_app.command("status")
def status(
    out: Annotated[Path, typer.Argument(help="A study's folder.")],
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look again every other second, until all is done or Ctrl-C."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which cells of a study are done, running, failed and left, and how long it will take.

    Example: wobbliness study status runs/digits --watch
    """
    from wobbliness.cli.study_progress import status_lines, watch_status
    from wobbliness.study.records.record import read_recipe
    from wobbliness.study.running.status import study_status

    if watch:
        watch_status(out)
        return
    found = study_status(read_recipe(out), out)
    if as_json:
        say_json(asdict(found), indent=1)
        return
    for line in status_lines(found):
        say(line)


@study_app.command("report")
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies.")],
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the findings of all of them to this FILE.md.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Form tables, figures and report.html again from the records; needs no torch.

    Example: wobbliness study report runs/digits
    """
    from wobbliness.study.report.report import check_markdown, write_markdown

    if markdown is not None:
        check_markdown(markdown)
    reports = [_report(folder, as_json=as_json) for folder in folders]
    if markdown is not None:
        write_markdown(reports, markdown)


@study_app.command("pack")
def pack(
    out: Annotated[Path, typer.Argument(help="A study's folder.")],
    folder: Annotated[
        Path, typer.Argument(help="Where the packed records go; new, empty or a packed study.")
    ],
) -> None:
    """Put a study's records, without its networks, into a few small files.

    Example: wobbliness study pack runs/digits docs/results/digits
    """
    from wobbliness.study.records.archive import pack_study

    # A folder that cannot be written to is refused before the study is read.
    check_folder(folder)
    pack_study(out, folder)


@study_app.command("unpack")
def unpack(
    folder: Annotated[Path, typer.Argument(help="A packed study.")],
    out: Annotated[Path, typer.Argument(help="The study's folder to be, new or empty.")],
    as_json: Json = False,
) -> None:
    """Make a study's folder of packed records again, with tables, figures and report.html.

    Needs no torch.

    Example: wobbliness study unpack docs/results/digits runs/digits
    """
    from wobbliness.study.records.archive import unpack_study

    check_folder(out)
    unpack_study(folder, out)
    _report(out, as_json=as_json)


def _report(out: Path, *, as_json: bool) -> "Report":
    """Forms a study's report, and prints its claims even where its page cannot be written."""
    from wobbliness.cli.output import print_report
    from wobbliness.study.report.report import form_report, write_pages

    # Claims are formed from the records alone, so they can be shown without a page.
    report = form_report(out)
    try:
        written = write_pages(report)
    except Exception:
        print_report(report, as_json=as_json, is_written=False)
        raise
    print_report(written, as_json=as_json)
    return written
