"""Options of several commands: a model, images, and how to open them.

Heavy imports are inside the functions.
"""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
import typer.core

from wobbliness.cli.time_limit import time_limit
from wobbliness.cli.working_folder import import_from_working_folder
from wobbliness.runtime.destinations import check_file
from wobbliness.runtime.files import CannotWrite
from wobbliness.runtime.terminal import reserved_output, say
from wobbliness.runtime.user_files import instance_of, is_user_object, load_object

if TYPE_CHECKING:
    from wobbliness.attacks.base import Attack
    from wobbliness.attacks.patch import Trigger
    from wobbliness.images import ImageSet
    from wobbliness.perturbations.base import InputValues


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Command(typer.core.TyperCommand):
    """Command whose standard output holds what it says, and nothing of a library or a model."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; help and usage are printed before, by Typer."""
        # Libraries print to the same stream, and JSON must stay JSON.
        with reserved_output():
            return super().invoke(ctx)


class Commands(typer.Typer):
    """Group of such commands."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        """Registers a function as a command, as `typer.Typer.command` does."""
        return super().command(name, cls=Command, **settings)


class EngineName(Enum):
    """Engine that does the work."""

    LOCAL = "local"
    RAY = "ray"


class PrecisionName(Enum):
    """Precision of the votes."""

    FLOAT32 = "float32"
    CHECKED = "checked"


HUB_PREFIX = "hf:"
NAMED_MODULE = "found also in the working folder, after all that is installed"

TABLES = (".parquet", ".csv")

IMAGES = (
    "Picture, folder of pictures, FILE.npy, .npz or .parquet (also FILE.npz:NAME), or data "
    "set hf:NAME[SPLIT]."
)
Model = Annotated[
    str,
    typer.Argument(
        help="FILE.onnx, .pt2 or .safetensors, a folder or hf:name of Hugging Face, or "
        "package.module:attribute, which is "
        f"{NAMED_MODULE}."
    ),
]
Factory = Annotated[
    str | None,
    typer.Option(
        help="package.module:function that makes the module of .safetensors weights; "
        f"{NAMED_MODULE}."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="nchw or nhwc, for models that do not tell or take flat pictures; images are always "
        "channels first."
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Open a pickle or TorchScript file: runs any code in it."),
]
Device = Annotated[
    str | None, typer.Option(help="Where a torch model runs, cpu or cuda; cuda draws other noise.")
]
NumClasses = Annotated[
    int | None, typer.Option(help="Number of classes, for models that give labels.")
]
Output = Annotated[
    str | None,
    typer.Option(help="Output to read, by name or number, where several could be meant."),
]
InputRange = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="What pixels of 0 and 1 become for the model, such as 0,255; noise stays in [0, 1].",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Taken off then, in units of that range: a number, or one a channel: 0.5,0.4,0.3."
    ),
]
Std = Annotated[str | None, typer.Option(help="Divided by then, likewise.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Where class 1 begins, for models of one score: 0.5 for probabilities, 0 for logits."
    ),
]
Images = Annotated[str, typer.Argument(help=IMAGES)]
Column = Annotated[str | None, typer.Option(help="Array of an .npz, or column of a table.")]
LabelColumn = Annotated[str | None, typer.Option(help="Likewise of the labels.")]
Resize = Annotated[
    bool, typer.Option("--resize", help="Scale pictures to the size that the model declares.")
]
Size = Annotated[
    str | None,
    typer.Option(help="HEIGHTxWIDTH to scale pictures to, for a model that declares no size."),
]
Perturbations = Annotated[
    list[str] | None,
    typer.Option(
        help="KIND:VALUE,... (see `wobbliness perturbations`), or FILE.py:name of your own; "
        "may be repeated."
    ),
]
Draws = Annotated[int, typer.Option(help="Noisy copies of each image.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        help="checked: votes of 8-bit integers, cast again by float32 where margins are small, and "
        "audited; where that cannot be done or does not pay, float32."
    ),
]
Engine = Annotated[
    EngineName, typer.Option(help="ray spreads the work over a Ray cluster (extra `ray`).")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT, ray://HOST:PORT or auto of a Ray cluster; without it, a Ray of this "
        "machine alone."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Write a row for each image: FILE.parquet or .csv.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="Seconds after which the command is ended with exit code 1, whatever the model does. "
        "No limit by default."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options that open a command's MODEL.

    A field is an option of every such command, an argument of `open_classifier`.
    """

    num_classes: NumClasses = None
    factory: Factory = None
    layout: Layout = None
    trust_pickle: TrustPickle = False
    device: Device = None
    output: Output = None
    input_range: InputRange = None
    mean: Mean = None
    std: Std = None
    threshold: Threshold = None


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one option for each field of ModelOptions, and a time limit.

    They take the place of its parameter `options`.
    """
    kinds = get_type_hints(ModelOptions, include_extras=True)

    @wraps(command)
    def with_options(**given: Any) -> None:
        options = ModelOptions(**{name: given.pop(name) for name in kinds})
        with time_limit(given.pop("time_limit")):
            command(**given, options=options)

    signature = inspect.signature(command)
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "options"
    ]
    # Last, so that help lists a command's own options first.
    limit = Parameter("time_limit", Parameter.KEYWORD_ONLY, default=None, annotation=TimeLimit)
    added = [*_model_parameters(kinds), limit]
    # Typer reads the options off the signature.
    typed: Any = with_options
    typed.__signature__ = signature.replace(parameters=[*own, *added])
    return with_options


def _model_parameters(kinds: dict[str, Any]) -> list[Parameter]:
    """Returns each field of ModelOptions as a keyword parameter of its own, with its help."""
    return [
        Parameter(
            field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name]
        )
        for field in fields(ModelOptions)
    ]


def open_model(name: str, options: ModelOptions, *, integers: bool = False) -> Any:
    """Opens the classifier of a command's MODEL, whose inputs may be token ids.

    A pickle's code is warned of each time.
    """
    from wobbliness.classifiers import open_classifier

    source: Any = name
    if name.lower().endswith(".safetensors") and options.factory is None:
        from wobbliness.study.training.saved_networks import load_network

        # Weights of a study: the recipe next to them says how to build the network.
        source = load_network(Path(name))
    for named in _named_modules(name, options.factory):
        import_from_working_folder(named)
    with warnings.catch_warnings():
        # a pickle's code is warned of also where Python was told to hide or raise warnings
        warnings.filterwarnings("always", message="opening ")
        # Fields are named as its arguments.
        return open_classifier(source, integers=integers, **vars(options))


def _named_modules(model: str, factory: str | None) -> list[str]:
    """Returns the modules that the user names.

    MODEL, where it is no file, folder or name on the hub, and the factory's.
    """
    # What exists is a file, whatever colons its name has.
    of_model = "" if Path(model).exists() or model.startswith(HUB_PREFIX) else model
    return [name.partition(":")[0] for name in (of_model, factory or "") if ":" in name]


def read_images_for(
    classifier: Any,
    source: str,
    *,
    column: str | None = None,
    label_column: str | None = None,
    resize: bool = False,
    size: str | None = None,
    as_stored: bool = False,
) -> "ImageSet":
    """Reads a command's images, fitted to what the classifier declares unless taken as stored."""
    from wobbliness.images import read_images

    # Functions and the like declare none.
    image_shape = getattr(classifier, "image_shape", None)
    scaling: dict[str, Any] = {
        "resize": resize,
        "size": None if size is None else _height_and_width(size),
        "as_stored": as_stored,
    }
    return read_images(
        source, column=column, label_column=label_column, image_shape=image_shape, **scaling
    )


def _height_and_width(text: str) -> tuple[int, int]:
    # 32x48 as in the help, 32,48 as Python writes it.
    height, _, width = text.lower().replace(",", "x").partition("x")
    if not (height.strip().isdecimal() and width.strip().isdecimal()):
        raise ValueError(f"expected a size as HEIGHTxWIDTH, such as 32x48, got {text!r}")
    return int(height), int(width)


def open_attack(name: str) -> "Attack":
    """Returns an attack of the user's own file, or a trigger as `open_trigger` does."""
    from wobbliness.attacks.base import Attack

    what = "an attack, with name and apply"
    attack: Attack = (
        instance_of(load_object(name), Attack, what, name)
        if is_user_object(name)
        else open_trigger(name)
    )
    return attack


def open_trigger(name: str) -> "Trigger":
    """Returns a trigger by its name or from a picture's file."""
    from wobbliness.attacks import patch as triggers
    from wobbliness.images.pictures import PICTURE_ENDINGS

    # A file goes first, so that a picture may have any name.
    if Path(name).suffix.lower() in PICTURE_ENDINGS or Path(name).exists():
        return triggers.trigger_from_png(name)
    return triggers.trigger(name)


def check_perturbations(sigmas: list[float] | None, texts: list[str] | None) -> None:
    """Raises ValueError where neither was given, before the model is opened."""
    if not (sigmas or texts):
        raise ValueError("expected --sigma or --perturbation, got neither")


def overlay_reader(
    classifier: Any, *, resize: bool = False, size: str | None = None
) -> Callable[[str], Any]:
    """Returns a function that reads overlays as a command's images are read."""
    # Fitted as the inputs are, since overlays must have their shape.
    return lambda source: read_images_for(classifier, source, resize=resize, size=size).images


def values_of_inputs(sigmas: list[float] | None, texts: list[str] | None) -> "InputValues":
    """Returns the values that a command's inputs have by the kinds of its perturbations.

    Files of the user's own count as perturbations of images.
    """
    from wobbliness.perturbations.base import InputValues, input_values_of
    from wobbliness.perturbations.find import perturbation_kinds

    kinds = perturbation_kinds()
    # By the kind alone: settings may be files that are read only once the model is open.
    given = [kinds.get(text.partition(":")[0]) for text in texts or ()]
    # A number is a sigma of Gaussian noise.
    of_sigmas = [InputValues.UNIT] * len(sigmas or ())
    found = [*of_sigmas, *(input_values_of(of) if of else InputValues.UNIT for of in given)]
    # Token ids with anything else are refused later, by the names of both.
    first = (InputValues.TOKENS, InputValues.UNIT, InputValues.ANY)
    return next(values for values in first if values in found)


def open_perturbations(
    sigmas: list[float] | None, texts: list[str] | None, read_overlays: Callable[[str], Any]
) -> list[Any]:
    """Returns standard deviations and perturbations.

    Args:
        sigmas: standard deviations of Gaussian noise.
        texts: `KIND:VALUE,...`, or `FILE.py:name` of the user's own.
        read_overlays: reads the images that stand in place of overlays.

    Raises:
        ValueError: an unknown kind, settings that it does not take, or a file without such a
            perturbation.
    """
    opened = [open_perturbation(text, read_overlays) for text in texts or ()]
    return [*(sigmas or ()), *opened]


def open_perturbation(text: str, read_overlays: Callable[[str], Any]) -> Any:
    """Returns one perturbation, as `open_perturbations`."""
    from wobbliness.perturbations.base import Perturbation
    from wobbliness.perturbations.find import perturbation_from_text

    if not is_user_object(text):
        return perturbation_from_text(text, read_overlays)
    what = "a perturbation, with name and copies"
    return instance_of(load_object(text), Perturbation, what, text)


def prepare_engine(engine: EngineName, *, address: str | None, store: str | None = None) -> None:
    """Keeps a Ray of this command alone to this machine.

    Raises ValueError for an option that the engine has no use for.
    """
    from wobbliness.runtime.ray import keep_to_this_machine

    useless = [
        name
        for name, value in {"--address": address, "--store": store}.items()
        if value is not None
    ]
    if engine is not EngineName.RAY and useless:
        raise ValueError(
            f"expected --engine ray with {' and '.join(useless)}, got --engine {engine.value}"
        )
    # Before Ray is imported: it reads the variable then.
    if engine is EngineName.RAY and address is None:
        keep_to_this_machine()


def check_table(out: Path | None) -> None:
    """Raises ValueError where a table cannot be written there, before the work."""
    if out is None:
        return
    # The ending alone chooses the format.
    if out.suffix not in TABLES:
        raise ValueError(
            f"expected an output FILE.parquet or FILE.csv in an existing folder, got {out}"
        )
    check_file(out)


def failure_of(write: Callable[[Path], object], path: Path | None) -> CannotWrite | None:
    """Writes, where there is a path; returns the error, to be raised after the result is shown."""
    if path is None:
        return None
    # Minutes of measuring are not lost to a full disk: the result is printed first.
    try:
        write(path)
    except CannotWrite as error:
        return error
    except Exception as error:  # of a writer of tables or pages: the result is still printed
        return CannotWrite(f"cannot write {path}: {type(error).__name__}: {error}")
    return None


def raise_later(failure: CannotWrite | None) -> None:
    """Raises the error that `failure_of` returned."""
    if failure is not None:
        raise failure


def say_implausible(
    classifier: Any,
    image_set: "ImageSet",
    options: ModelOptions,
    *,
    as_json: bool,
    with_labels_only: bool = False,
) -> list[str]:
    """Warns of a model whose clean predictions are implausible, before anything else is said.

    It may be shown the images in another form than it was trained on.

    One pass without noise tells. The warnings go to standard output, or where that holds JSON to
    standard error.

    Args:
        classifier: opened.
        image_set: clean images.
        options: of the model.
        as_json: whether JSON follows.
        with_labels_only: whether to be silent about images without labels, which may all be of one
            class for a reason.

    Returns:
        The warnings, for the JSON.
    """
    from wobbliness.sampling.measure import measure
    from wobbliness.statistics.plausibility import implausible_answers

    if with_labels_only and image_set.labels is None:
        return []
    # One draw at sigma 0: the clean prediction, as every measurement makes it.
    votes = measure(classifier, image_set.images, 0.0, draws=1, num_classes=options.num_classes)
    found = implausible_answers(votes.label, image_set.labels, votes.counts.shape[1])
    for line in found:
        say(f"warning: {line}", error=as_json)
    return found
