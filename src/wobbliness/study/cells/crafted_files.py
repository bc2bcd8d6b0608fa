"""Files of patterns that were crafted after training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import in_order, write_bytes

EVALUATION_IMAGES = 2000  # of each split, on which a crafted pattern's success is counted


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a damaged file raises into one line."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"expected the file of {what}, got {path}: {reason_of(error)}") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], header: dict[str, str]) -> None:
    """Writes arrays as tensors of a file, with a header."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, in_order(save(contiguous, header)))
