"""`wobbliness guard`: fit a guard on clean inputs, judge inputs one by one. Heavy imports are inside the commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

DEFAULT_SIGMAS = [0.05, 0.1, 0.15, 0.2, 0.3]  # as SmoothnessGuard; a test compares them
TABLES = (".parquet", ".csv")

guard_app = typer.Typer(help="Judge single inputs: is the model suspiciously smooth around them?", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="FILE.onnx, a study's network FILE.safetensors, or package.module:attribute.")]
Column = Annotated[str | None, typer.Option(help="Array of an .npz, or column of a table.")]
Resize = Annotated[bool, typer.Option("--resize", help="Scale pictures to the size that the model declares.")]
NumClasses = Annotated[int | None, typer.Option(help="Number of classes, for models that give labels.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@guard_app.command("fit")
def fit(
    model: Model,
    clean: Annotated[str, typer.Argument(help="Clean images, as for measure; half of them calibrate.")],
    out: Annotated[Path, typer.Option(help="Folder for the guard; new, empty, or of a guard.")],
    sigma: Annotated[list[float], typer.Option(help="Standard deviation of the noise; may be repeated.")] = DEFAULT_SIGMAS,
    draws: Annotated[int, typer.Option(help="Noisy copies of each input at each sigma.")] = 250,
    false_positive_rate: Annotated[float, typer.Option(help="Share of clean inputs to be called suspicious.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    column: Column = None,
    resize: Resize = False,
    num_classes: NumClasses = None,
    as_json: Json = False,
) -> None:
    """Fit a guard on clean inputs.

    Example: wobbliness guard fit model.onnx clean.npy --out guard --false-positive-rate 0.01
    """
    from wobbliness.guard import SmoothnessGuard
    from wobbliness.guard_files import checked_folder, save_guard
    from wobbliness.printing import print_guard

    checked_folder(out)
    settings: dict[str, Any] = {"draws": draws, "false_positive_rate": false_positive_rate, "seed": seed}
    classifier = _open_model(model)
    guard = SmoothnessGuard(classifier, sigmas=tuple(sigma), num_classes=num_classes, **settings)
    guard.fit(_read(clean, classifier, column, resize=resize))
    save_guard(guard, out)
    print_guard(guard, out, as_json=as_json)


@guard_app.command("judge")
def judge(
    guard: Annotated[Path, typer.Argument(help="A guard's folder.")],
    model: Model,
    images: Annotated[str, typer.Argument(help="Images to judge, as for measure.")],
    out: Annotated[Path | None, typer.Option(help="Write a row for each input: FILE.parquet or .csv.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Verdicts alone, with as few draws as settle them.")] = False,
    column: Column = None,
    resize: Resize = False,
    as_json: Json = False,
) -> None:
    """Judge inputs one by one: W at each sigma, labels, p-value, verdict.

    Example: wobbliness guard judge guard model.onnx images.npy --out verdicts.parquet
    """
    from wobbliness.guard_files import load_guard
    from wobbliness.printing import print_judgement, print_quick_verdicts, write_table

    if out is not None and (out.suffix not in TABLES or not out.parent.is_dir() or out.is_dir()):
        raise ValueError(f"expected an output FILE.parquet or FILE.csv in an existing folder, got {out}")
    classifier = _open_model(model)
    fitted, inputs = load_guard(guard, classifier), _read(images, classifier, column, resize=resize)
    if quick:
        verdicts = fitted.judge_quickly(inputs)
        print_quick_verdicts(verdicts, as_json=as_json)
        frame = verdicts.frame()
    else:
        judgement = fitted.judge(inputs)
        print_judgement(judgement, as_json=as_json)
        frame = judgement.frame()
    if out is not None:
        write_table(frame, out)


def _open_model(name: str) -> Any:
    from wobbliness import cli

    return cli._open_model(name, None, factory=None, layout=None, trust_pickle=False)


def _read(source: str, classifier: Any, column: str | None, *, resize: bool) -> "np.ndarray":
    from wobbliness import cli

    return cli._read_images(source, classifier, column=column, resize=resize).images
