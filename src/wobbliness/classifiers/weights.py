"""Torch modules from files: weights for a factory's module, and pickles of those who trust them."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wobbliness.classifiers.untrusted.file_kind import warn_of_code
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state


def import_attribute(name: str) -> Any:
    """Imports the attribute that `package.module:attribute` names; importing runs the module.

    Raises:
        ValueError: there is no such thing, or importing fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute or not module_name:
        raise ValueError(f"expected package.module:attribute, got {name!r}")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # importing runs the module, which may raise anything
        raise ValueError(
            f"expected an importable package.module:attribute, got {name!r}: {reason_of(error)}"
        ) from error


def load_weights(path: Path, factory: str | None) -> torch.nn.Module:
    """Loads a safetensors file into a factory's module, in evaluation mode.

    The file has to hold all weights of the module and no others.

    Raises:
        ValueError: there is no factory, it gives no module, the file is damaged, or its weights are
            not the module's.
    """
    if factory is None:
        raise ValueError(
            "expected a factory (--factory package.module:function) that makes the module of the "
            f"weights, got none for {path}; for a study's network, hand over "
            "wobbliness.study.training.saved_networks.load_network(path)"
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected a readable safetensors file, got {path}: {reason_of(error)}"
        ) from error
    return _with_weights(factory, state, path)


def load_pickle(path: Path, factory: str | None) -> Any:
    """Loads a pickle or TorchScript file; this runs whatever code is in it, after a warning."""
    warn_of_code(path)
    try:
        content = _unpickled(path)
    except Exception as error:  # it runs the file's code, which may raise anything
        raise ValueError(f"expected a readable pickle, got {path}: {reason_of(error)}") from error
    if not isinstance(content, dict):
        return content
    if factory is None:
        raise ValueError(
            f"expected a whole model, got weights alone in {path}; give a factory (--factory) for "
            "their module"
        )
    return _with_weights(factory, content, path)


def _unpickled(path: Path) -> Any:
    with borrowed_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is on its way out
        warnings.simplefilter("ignore", FutureWarning)
        # TorchScript first: torch.load would open it, too, and warn.
        for load in (_torch_script, _torch_pickle):
            try:
                return load(path)
            except RuntimeError:  # another format
                continue
        return importlib.import_module("joblib").load(path)


def _torch_script(path: Path) -> Any:
    return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]


def _torch_pickle(path: Path) -> Any:
    # A bare pickle is left to joblib, which reads those of scikit-learn.
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if not is_archive:
        raise RuntimeError("no archive of torch.save")
    return torch.load(path, map_location="cpu", weights_only=False)


def _with_weights(factory: str, state: dict[str, Any], path: Path) -> torch.nn.Module:
    module = _made(factory)
    try:
        module.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"expected the weights of {factory}'s module, got {path}: {reason}"
        ) from error
    return module.eval()


def _made(factory: str) -> torch.nn.Module:
    """Calls a factory, which is the user's own code and may raise anything."""
    try:
        module = import_attribute(factory)()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"expected a factory that makes a module, got {factory}: {reason_of(error)}"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(
            f"expected a factory of a torch module, got {type(module).__name__} from {factory}"
        )
    return module
