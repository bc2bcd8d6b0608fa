"""Checkpoint of a long training, from which it is resumed.

Tensors and JSON in one safetensors file, with a checksum.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import CHECKPOINTS, make_folder, write_bytes
from wobbliness.runtime.progress import Notice

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """State from which a training is resumed.

    Attributes:
        tensors: weights, the optimiser's moments, the state of the generator of the order, losses.
        facts: epoch, step, learning rate and schedule; plain values.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


class Checkpoint:
    """File that one training leaves while it is running.

    Args:
        path: of the file.
        identity: the training and what it runs on; training is not resumed from a checkpoint of
            another identity.
        notice: called with one line where a checkpoint cannot be used.

    Attributes:
        seconds_before: time that went into the training before it was stopped.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], notice: Notice) -> None:
        self._path, self._notice = path, notice
        self._identity = json.loads(json.dumps(identity))  # as it is read back
        self._started = self._saved = time.monotonic()
        self.seconds_before = 0.0

    def load(self) -> TrainingState | None:
        """Returns the state to resume from.

        None where there is none, or none that is whole and of this training.
        """
        if not self._path.exists():
            return None
        try:
            tensors, facts = _read(self._path)
            # another library or processor would not give the same bits
            if facts.pop("identity") != self._identity:
                raise ValueError("it was made by other libraries or another processor")
            self.seconds_before = float(facts.pop("seconds"))
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RecursionError,
            SafetensorError,
        ) as error:
            self._notice(
                f"{CHECKPOINTS}/{self._path.name} is not used, the training begins anew: "
                f"{reason_of(error)}"
            )
            return None
        return TrainingState(tensors=tensors, facts=facts)

    def save_if_due(self, state: Callable[[], TrainingState]) -> None:
        """Saves what `state` gives, if CHECKPOINT_SECONDS have passed since the last."""
        now = time.monotonic()
        if now - self._saved < CHECKPOINT_SECONDS:
            return
        current = state()
        seconds = self.seconds_before + now - self._started
        facts = json.dumps(
            {**current.facts, "identity": self._identity, "seconds": seconds}, allow_nan=False
        )
        tensors = {name: tensor.cpu().contiguous() for name, tensor in current.tensors.items()}
        make_folder(self._path.parent)
        write_bytes(
            self._path, save(tensors, {"facts": facts, "checksum": _checksum(tensors, facts)})
        )
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes the file, once the training is recorded."""
        self._path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("checksum") != _checksum(tensors, header["facts"]):
        raise ValueError("its checksum is another one")
    facts = json.loads(header["facts"])
    if not isinstance(facts, dict):
        raise ValueError("its facts are no JSON object")
    return tensors, facts


def _checksum(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    """Computes SHA-256 over the facts and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
