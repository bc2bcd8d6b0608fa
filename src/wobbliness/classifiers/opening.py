"""From what a user holds to a Classifier."""

import copy
import importlib
import sys
from pathlib import Path
from typing import Any

from wobbliness.classifiers.base import Classifier
from wobbliness.classifiers.function import FunctionClassifier


def open_classifier(
    source: Any,
    *,
    num_classes: int | None = None,
    as_tensor: bool = False,
    compiled: bool = True,
    device: str | None = None,
    autocast: bool = False,
) -> Classifier:
    """A classifier from an ONNX file, a torch module, a callable, or `"package.module:attribute"`.

    Args:
        source: path of an `.onnx` file; a `torch.nn.Module` that gives logits `(B, K)`; any callable from a batch to labels
            `(B,)` or scores `(B, K)`; a Classifier; or the import path of one of these. The last runs the named module's code.
        num_classes: K, to be checked against what the classifier gives; needed only for callables that give labels and may
            not name the highest class.
        as_tensor: hand tensors, not arrays, to a callable.
        compiled: run a torch module as a compiled graph where that can be done; False for eager torch.
        device: where a torch module runs, `cpu`, `cuda` or `mps` (untested); by default where its parameters are. A module that
            lies elsewhere is copied.
        autocast: run a torch module in bfloat16; on accelerators only.

    Raises:
        ValueError: the source is none of these, is missing, or cannot be read.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"expected a number of classes of at least 2, got {num_classes!r}")
    if isinstance(source, str | Path):
        return _open_name(str(source), num_classes, device=device, autocast=autocast)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.nn.Module):
        return _open_module(source, num_classes, compiled=compiled, device=device, autocast=autocast)
    _check_stays_on_cpu(type(source).__name__, device, autocast)
    if isinstance(source, Classifier) and not isinstance(source, type):
        return _with_num_classes(source, num_classes)
    if callable(source):
        return FunctionClassifier(source, num_classes=num_classes, as_tensor=as_tensor)
    raise ValueError(f"expected a torch module, a callable or a path as classifier, got {type(source).__name__}")


def _open_module(module: Any, num_classes: int | None, *, compiled: bool, device: str | None, autocast: bool) -> Classifier:
    import torch

    from wobbliness.classifiers.accelerated import AcceleratedClassifier
    from wobbliness.classifiers.torch_module import TorchClassifier

    here = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    wanted = here if device is None else _checked_device(device)
    if wanted.type != here.type or wanted.index not in (None, here.index):
        module = copy.deepcopy(module).to(wanted)
    else:
        wanted = here
    if wanted.type != "cpu":
        return AcceleratedClassifier(module, device=wanted, num_classes=num_classes, autocast=autocast)
    if autocast:
        raise ValueError("expected an accelerator for autocast, got the cpu")
    return TorchClassifier(module, num_classes=num_classes, compiled=compiled)


def _check_stays_on_cpu(name: str, device: str | None, autocast: bool) -> None:
    """ValueError where what is no torch module is to run elsewhere, or in bfloat16."""
    if device not in (None, "cpu") or autocast:
        raise ValueError(f"expected a torch module to run {f'on {device}' if device else 'with autocast'}, got {name}")


def _checked_device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"expected a device such as cpu, cuda or mps, got {name!r}") from None
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device.type, False):
        raise ValueError(f"expected a device that this machine has, got {name!r}")
    return device


def _with_num_classes(classifier: Classifier, num_classes: int | None) -> Classifier:
    if num_classes is not None and classifier.num_classes not in (None, num_classes):
        raise ValueError(f"expected a classifier of {num_classes} classes, got one of {classifier.num_classes}")
    classifier.num_classes = num_classes or classifier.num_classes
    return classifier


def _open_name(name: str, num_classes: int | None, *, device: str | None, autocast: bool) -> Classifier:
    if name.endswith(".onnx"):
        _check_stays_on_cpu(name, device, autocast)
        from wobbliness.classifiers.onnx_file import OnnxClassifier

        return OnnxClassifier(name, num_classes=num_classes)
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise ValueError(f"expected a classifier as FILE.onnx or package.module:attribute, got {name!r}")
    try:
        source = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs the module, which may raise anything
        raise ValueError(f"expected an importable package.module:attribute, got {name!r}: {error}") from error
    return open_classifier(source, num_classes=num_classes, device=device, autocast=autocast)
