"""Networks of a study in safetensors files: weights, and a header that says what they are of."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import in_order, write_bytes
from wobbliness.runtime.input_files import check_regular
from wobbliness.study.training.networks import ARCHITECTURES, build_network


def save_network(network: nn.Module, path: Path, header: Mapping[str, str]) -> None:
    """Writes a network's weights, with a header that `load_network` understands."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(path, in_order(save(state, dict(header))))


def load_network(path: Path) -> nn.Sequential:
    """Returns a network of a study from its safetensors file.

    The header says the architecture; no code of the file is run.

    Raises:
        ValueError: the file is missing, damaged, or not a network of this package.
    """
    if path.exists():
        check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        if "architecture" not in header:
            raise ValueError(
                "it does not say what network it is of; give a --factory that makes the module of "
                "its weights"
            )
        architecture, shape = header["architecture"], json.loads(header["image_shape"])
        num_classes = int(header["num_classes"])
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}")
        # the header may lie: no memory before the weights are found to fit
        with torch.device("meta"):
            network = build_network(architecture, tuple(shape), num_classes, seed=0)
        network.load_state_dict(load_file(path), assign=True)
        # torch's stubs lack this overload
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise ValueError(f"expected a network file {path}, which does not exist") from None
    except (
        SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        RuntimeError,
        OSError,
    ) as error:
        raise ValueError(
            f"expected a network file of a study, got {path}: {reason_of(error)}"
        ) from error
    return network.eval()
