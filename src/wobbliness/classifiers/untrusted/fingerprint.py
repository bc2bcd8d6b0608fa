"""The identity of a classifier's model: a name for people and a digest of its content."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Bytes of a file that are read at a time, since external data may take gigabytes.
CHUNK_BYTES = 2**24
# Parts of a list of an estimator that may hold other estimators; longer ones are data.
MAX_PARTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A model's name and digest.

    Attributes:
        name: of its file or folder, else of its type.
        digest: its kind, a colon and a hexadecimal number; None for callables and others that hold
            nothing to read.
    """

    name: str
    digest: str | None


def fingerprint(classifier: Any) -> Fingerprint:
    """Computes the name and digest of a model in any form that is measured.

    An ONNX file is identified by its content and its external data; a torch module, in whatever
    form it came, by the values of its parameters and buffers; an estimator of scikit-learn by its
    arrays and numbers. Nothing is pickled.

    Args:
        classifier: opened, or an object; a path is named and read only where it is an ONNX file.
    """
    source = _file_of(classifier)
    # An opened classifier is identified by what it wraps, so that it does not matter how it came.
    module = getattr(classifier, "module", classifier)
    if isinstance(source, Path) and source.is_file():
        return Fingerprint(name=source.name, digest=f"onnx:{_of_graph(source)}")
    name = Path(classifier).name if isinstance(classifier, str | Path) else type(module).__name__
    if callable(getattr(module, "state_dict", None)):
        return Fingerprint(name=name, digest=f"torch:{_of_parts(_tensors(module))}")
    estimator = getattr(classifier, "_estimator", classifier)
    if hasattr(estimator, "get_params") and hasattr(estimator, "predict"):
        return Fingerprint(
            name=type(estimator).__name__,
            digest=f"scikit-learn:{_of_parts(_attributes(estimator))}",
        )
    return Fingerprint(name=name, digest=None)


def _file_of(classifier: Any) -> Any:
    """Returns the file that an opened classifier came from, or an ONNX file itself; else None."""
    if not isinstance(classifier, str | Path):
        return getattr(classifier, "source", None)
    is_graph = Path(classifier).suffix.lower() == ".onnx" and Path(classifier).is_file()
    return Path(classifier) if is_graph else None


def _of_graph(path: Path) -> str:
    """Computes the digest of a graph's file and of the files that hold its external data."""
    from wobbliness.classifiers.untrusted.onnx_content import external_files

    digest = hashlib.blake2b(digest_size=16)
    for part in (path, *external_files(path)):
        with part.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _of_parts(parts: Iterator[tuple[str, bytes]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, content in parts:
        # With the lengths, no other split into names and contents has the same bytes.
        digest.update(f"{len(name)} {name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _tensors(module: Any) -> Iterator[tuple[str, bytes]]:
    """Yields the values of all tensors except counters, whatever their names and order.

    Names and order differ from form to form.
    """
    import torch

    found = []
    for value in module.state_dict().values():
        is_tensor = isinstance(value, torch.Tensor)
        is_plain = is_tensor and not value.is_quantized and value.layout == torch.strided
        # An integer without axes is a counter, such as batch normalisation's number of batches.
        if is_plain and (value.ndim or value.is_floating_point()):
            # As bytes: numpy has no type for bfloat16.
            flat = value.detach().cpu().contiguous().reshape(-1)
            content = hashlib.blake2b(flat.view(torch.uint8).numpy(), digest_size=16).digest()
            found.append((f"{value.dtype} {tuple(value.shape)}", content))
    # Sorted: the order of a module's tensors differs from that of the file it was exported to.
    yield from sorted(found)


def _attributes(estimator: Any) -> Iterator[tuple[str, bytes]]:
    """Reads what fitting left in an estimator and in the estimators it holds."""
    for name, value in sorted(getattr(estimator, "__dict__", {}).items()):
        is_list = isinstance(value, list | tuple) and len(value) < MAX_PARTS
        for part in value if is_list else [value]:
            # The steps of a pipeline are pairs of a name and an estimator.
            held = part[-1] if isinstance(part, tuple) and part else part
            if isinstance(held, np.ndarray) and held.dtype != object:
                yield f"{name} {held.dtype} {held.shape}", np.ascontiguousarray(held).tobytes()
            elif isinstance(held, int | float | str | bool):
                yield name, repr(held).encode()
            elif hasattr(held, "get_params"):
                yield from ((f"{name}.{inner}", content) for inner, content in _attributes(held))
