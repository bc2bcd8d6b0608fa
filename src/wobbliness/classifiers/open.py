"""The conversion of files, modules, estimators and callables to a Classifier."""

import copy
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wobbliness.classifiers.base import Classifier
from wobbliness.classifiers.function import FunctionClassifier
from wobbliness.classifiers.signature.layouts import Layout, checked_layout
from wobbliness.classifiers.signature.pixel_scale import PixelNumbers, PixelScale, read_pixel_scale
from wobbliness.classifiers.untrusted.file_kind import (
    MODEL_SUFFIXES,
    PICKLE_SUFFIXES,
    FileKind,
    file_kind,
    refusal,
)

# In front of a model's name on the hub of Hugging Face.
HUB = "hf:"


# Options that are of use for a kind of file only.
_OPTIONS_OF: dict[FileKind, dict[str, bool]] = {
    "onnx": {"layout": True, "output": True},
    "exported program": {"layout": True, "output": True},
    "safetensors": {"factory": True},
    "pickle": {"factory": True},
    "TorchScript": {},
}


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of `open_classifier`."""

    num_classes: int | None
    as_tensor: bool
    compiled: bool
    device: str | None
    autocast: bool
    factory: str | None
    layout: Layout | None
    trust_pickle: bool
    output: str | int | None
    scale: PixelScale | None
    threshold: float | None
    integers: bool


def open_classifier(
    source: Any,
    *,
    num_classes: int | None = None,
    as_tensor: bool = False,
    compiled: bool = True,
    device: str | None = None,
    autocast: bool = False,
    factory: str | None = None,
    layout: str | None = None,
    trust_pickle: bool = False,
    output: str | int | None = None,
    input_range: PixelNumbers = None,
    mean: PixelNumbers = None,
    std: PixelNumbers = None,
    threshold: int | float | None = None,
    integers: bool = False,
) -> Classifier:
    """Opens a file, Hugging Face model, torch module, estimator or callable as a classifier.

    Files run none of their author's code: an ONNX file, a `torch.export` archive `.pt2`,
    `.safetensors` weights with a factory, and a folder of Hugging Face. Their contents are checked
    first, and what could run code or fill the memory is refused. Images are always floats in [0,
    1], channels first; an ONNX graph or exported program that takes channels last gets them so.

    Args:
        source: path of a file or folder; `"hf:name"` on the hub of Hugging Face; a
            `torch.nn.Module` that gives logits `(B, K)`; a fitted classifier of scikit-learn; any
            callable from a batch to labels `(B,)` or scores `(B, K)`; a Classifier; or the import
            path `"package.module:attribute"` of one of these. The last runs the named module's
            code.
        num_classes: K, to be checked against what the classifier gives; needed only for those that
            give labels and may not name the highest class.
        as_tensor: hand tensors, not arrays, to a callable.
        compiled: run a torch module as a compiled graph where that can be done; False for eager
            torch.
        device: where a torch module runs, `cpu`, `cuda` or `mps` (untested); by default where its
            parameters are. A module that lies elsewhere is copied.
        autocast: run a torch module in bfloat16; on accelerators only.
        factory: `"package.module:function"` of your own that makes the torch module of the weights
            in a file.
        layout: `"nchw"` or `"nhwc"`, for graphs and exported programs whose shape does not tell
            where the channels are, and for graphs and estimators of scikit-learn that take
            flattened pictures: flattened in that order.
        trust_pickle: open a pickle or TorchScript file, or a `.pt2` archive unchecked; after a
            warning, any code in it is run.
        output: the output to read, by its name, or by its number where outputs have no names;
            needed where more than one of an ONNX file, exported program or torch module could hold
            the classes.
        input_range: two numbers, or a text such as `"0,255"`: what pixels of 0 and 1 become before
            the classifier gets them. Images and noise stay in units of [0, 1]. ONNX files that
            state it in their metadata need none; a graph of `uint8` gets 0 to 255, rounded and
            clipped.
        mean: subtracted then, in units of that range: a number, one for each channel, or a text
            such as `"0.5,0.4,0.3"`.
        std: the images are then divided by it; given like `mean`.
        threshold: for a classifier of one score for two classes: above it the class is 1, else 0.
            Needed where an ONNX file or exported program does not tell whether it is a probability
            or a logit, and for modules and callables.
        integers: inputs are token ids, so that an ONNX file of integers gets them as they are;
            of no effect on anything else. `measure` sets it for a path where the perturbation is
            one of token ids.

    Raises:
        ValueError: the source is none of these, is missing, cannot be read, or is refused for what
            it holds; an option contradicts what it says of itself, or would have no effect.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"expected a number of classes of at least 2, got {num_classes!r}")
    options = _Options(
        num_classes=num_classes,
        as_tensor=as_tensor,
        compiled=compiled,
        device=device,
        autocast=autocast,
        factory=factory,
        layout=checked_layout(layout),
        trust_pickle=trust_pickle,
        output=output,
        scale=read_pixel_scale(input_range, mean, std),
        threshold=_checked_threshold(threshold),
        integers=integers,
    )
    return (
        _open_name(str(source), options)
        if isinstance(source, str | Path)
        else _open_object(source, options)
    )


def _checked_threshold(threshold: int | float | None) -> float | None:
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"expected a finite threshold, got {threshold!r}")
    return None if threshold is None else float(threshold)


def _open_object(source: Any, options: _Options) -> Classifier:
    name = type(source).__name__
    is_estimator = _is_estimator(source)
    if (options.layout is not None and not is_estimator) or options.factory is not None:
        raise ValueError(f"expected a layout or a factory only for a model's file, got {name}")
    if _is_a("torch.nn", "Module", source):
        return _open_module(source, options)
    _check_stays_on_cpu(name, options)
    _check_takes(name, options, layout=True, threshold=not is_estimator, scale=True)
    if isinstance(source, Classifier) and not isinstance(source, type):
        _check_takes(f"the opened classifier {name}", options)
        return _with_num_classes(source, options.num_classes)
    return _open_scaled(source, options, is_estimator=is_estimator)


def _open_scaled(source: Any, options: _Options, *, is_estimator: bool) -> Classifier:
    """Opens an estimator, or a callable."""
    settings: dict[str, Any] = {"num_classes": options.num_classes, "scale": options.scale}
    if is_estimator:
        from wobbliness.classifiers.estimator import EstimatorClassifier

        return EstimatorClassifier(source, layout=options.layout, **settings)
    if callable(source):
        classifier = FunctionClassifier(source, as_tensor=options.as_tensor, **settings)
        classifier.threshold = options.threshold
        return classifier
    raise ValueError(
        "expected a torch module, a scikit-learn classifier, a callable or a path as classifier, "
        f"got {type(source).__name__}"
    )


def _is_estimator(source: Any) -> bool:
    return _is_a("sklearn.base", "BaseEstimator", source) and not isinstance(source, type)


def _is_a(module: str, name: str, source: Any) -> bool:
    """Checks for an object of a library's class without loading the library.

    Whoever holds such an object has loaded it. While another thread imports the library for the
    first time, its module is there already and the class is not: then nothing is of that class.
    """
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(source, kind)


def _open_module(module: Any, options: _Options) -> Classifier:
    from wobbliness.classifiers.signature.wrapped_module import threshold_of
    from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
    from wobbliness.classifiers.torch_module import TorchClassifier, check_has_values

    check_has_values(module)
    module = _wrapped(module, options)
    settings: dict[str, Any] = {"num_classes": options.num_classes, "output": options.output}
    settings["image_shape"] = _shape_of(module)
    module, device = _placed(module, options.device)
    if device.type != "cpu":
        return AcceleratedClassifier(module, device=device, autocast=options.autocast, **settings)
    if options.autocast:
        raise ValueError("expected an accelerator for autocast, got the cpu")
    classifier = TorchClassifier(module, compiled=options.compiled, **settings)
    classifier.declared_threshold = threshold_of(module)
    return classifier


def _wrapped(module: Any, options: _Options) -> Any:
    """Wraps a module for the user's pixel values, then for the user's threshold."""
    from wobbliness.classifiers.signature.wrapped_module import ScaledPixels, TwoClasses

    module = module if options.scale is None else ScaledPixels(module, options.scale)
    return module if options.threshold is None else TwoClasses(module, options.threshold)


def _shape_of(module: Any) -> tuple[Any, ...] | None:
    """Returns a module's own `image_shape` where that is a list or a tuple."""
    shape = getattr(module, "image_shape", None)
    # A tuple stays the object that it is: FittedShape is one, and fits pictures.
    if isinstance(shape, tuple):
        return shape
    return tuple(shape) if isinstance(shape, list) else None


def _placed(module: Any, device: str | None) -> tuple[Any, Any]:
    """Returns a module where it is wanted, copied if it lies elsewhere, and the device."""
    from wobbliness.classifiers.torch_module import device_of

    here = device_of(module)
    wanted = here if device is None else checked_device(device)
    # `cuda` without a number is whichever of these the module lies on.
    if wanted.type == here.type and wanted.index in (None, here.index):
        return module, here
    return copy.deepcopy(module).to(wanted), wanted


def _check_stays_on_cpu(name: str, options: _Options) -> None:
    """Raises ValueError where anything but a torch module is to run elsewhere or in bfloat16."""
    device, autocast = options.device, options.autocast
    if device not in (None, "cpu") or autocast:
        raise ValueError(
            f"expected a torch module to run {f'on {device}' if device else 'with autocast'}, got "
            f"{name}"
        )


def checked_device(name: str) -> Any:
    """Returns the torch device of that name.

    Raises:
        ValueError: no device has that name, or this machine has none such.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"expected a device such as cpu, cuda or mps, got {name!r}") from None
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise ValueError(f"expected a device that this machine has, got {name!r}")
    return device


def _with_num_classes(classifier: Classifier, num_classes: int | None) -> Classifier:
    if num_classes is not None and classifier.num_classes not in (None, num_classes):
        raise ValueError(
            f"expected a classifier of {num_classes} classes, got one of {classifier.num_classes}"
        )
    classifier.num_classes = num_classes or classifier.num_classes
    return classifier


def _open_name(name: str, options: _Options) -> Classifier:
    # A folder or file before an import path: importing runs code, opening a file does not.
    path = Path(name)
    if name.startswith(HUB) or path.is_dir():
        return _open_hub(name.removeprefix(HUB), options)
    if path.exists() or path.suffix.lower() in (*MODEL_SUFFIXES, *PICKLE_SUFFIXES):
        return _open_file(path, options)
    if ":" not in name:
        raise ValueError(
            "expected a classifier as FILE.onnx, .pt2, .safetensors, a folder, hf:name or "
            f"package.module:attribute, got {name!r}"
        )
    from wobbliness.classifiers.weights import import_attribute

    return _open_object(import_attribute(name), options)


def _open_hub(name: str, options: _Options) -> Classifier:
    _check_takes(name, options)
    from wobbliness.classifiers.hugging_face import load_hub_model

    return _open_module(load_hub_model(name), options)


def _open_file(path: Path, options: _Options) -> Classifier:
    if path.suffix.lower() == ".onnx":
        _check_stays_on_cpu(str(path), options)
    kind = file_kind(path)
    _check_takes(f"a file of {kind}", options, threshold=True, scale=True, **_OPTIONS_OF[kind])
    if kind in ("pickle", "TorchScript") and not options.trust_pickle:
        raise ValueError(refusal(path, kind))
    if kind == "onnx":
        return _open_onnx(path, options)
    if kind == "exported program":
        return _open_exported(path, options)
    from wobbliness.classifiers.weights import load_pickle, load_weights

    load = load_weights if kind == "safetensors" else load_pickle
    return _open_object(load(path, options.factory), replace(options, factory=None))


def _open_onnx(path: Path, options: _Options) -> Classifier:
    from wobbliness.classifiers.onnx import OnnxClassifier

    return OnnxClassifier(
        path,
        num_classes=options.num_classes,
        threshold=options.threshold,
        layout=options.layout,
        output=options.output,
        scale=options.scale,
        integers=options.integers,
    )


def _open_exported(path: Path, options: _Options) -> Classifier:
    from wobbliness.classifiers.torch_export import load_exported

    module = load_exported(
        path,
        layout=options.layout,
        trust_pickle=options.trust_pickle,
        output=options.output,
        num_classes=options.num_classes,
        threshold=options.threshold,
        scale=options.scale,
    )
    # These three are steps of the module by now.
    return _open_module(module, replace(options, output=None, threshold=None, scale=None))


def _check_takes(name: str, options: _Options, **used: bool) -> None:
    """Raises ValueError where an option was given that would have no effect."""
    for option in ("layout", "factory", "output", "threshold", "scale"):
        given = getattr(options, option)
        if given is not None and not used.get(option, False):
            described = "input range, mean or std" if option == "scale" else option
            raise ValueError(
                f"expected no {described} for {name}, got "
                f"{given if option == 'scale' else repr(given)}"
            )
