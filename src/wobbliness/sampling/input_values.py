"""The values that the inputs of a measurement may have, as its perturbations declare them."""

from collections.abc import Sequence

import numpy as np

from wobbliness.perturbations.base import (
    MAX_EXACT_INTEGER,
    InputValues,
    Perturbation,
    input_values_of,
)


def common_values(perturbations: Sequence[Perturbation]) -> InputValues:
    """Returns the values that inputs of all perturbations may have.

    Raises:
        ValueError: one of token ids is measured together with one of other inputs.
    """
    kinds = {input_values_of(made): made for made in perturbations}
    if InputValues.TOKENS in kinds and len(kinds) > 1:
        tokens = kinds.pop(InputValues.TOKENS)
        raise ValueError(
            f"expected perturbations of token ids alone beside {tokens.name}, got "
            f"{next(iter(kinds.values())).name}"
        )
    # Values in [0, 1] are such as a perturbation of any values takes, but not the other way round.
    return InputValues.UNIT if InputValues.UNIT in kinds else next(iter(kinds))


def check_type(array: np.ndarray, values: InputValues) -> None:
    """Raises ValueError where an array is not of the type that the values need."""
    if values is InputValues.TOKENS and array.dtype.kind not in "iu":
        raise ValueError(f"expected token ids as integers, got {array.dtype}")
    if values is InputValues.ANY and array.dtype.kind not in "fiu":
        raise ValueError(f"expected inputs as numbers, got {array.dtype}")
    if values is InputValues.UNIT and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"expected images as floats in [0, 1], got {array.dtype}; divide 8-bit pixels by 255"
        )


def check_range(array: np.ndarray, values: InputValues) -> None:
    """Raises ValueError where an array has other values."""
    # NaN fails all comparisons, so it is refused as well.
    lowest, highest = array.min(), array.max()
    if values is InputValues.UNIT:
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(f"expected images in [0, 1], got values from {lowest} to {highest}")
        return
    # Copies are float32: larger integers are not exact there, and larger floats infinite.
    limit = np.finfo(np.float32).max if array.dtype.kind == "f" else MAX_EXACT_INTEGER
    least = 0 if values is InputValues.TOKENS else -limit
    if not (lowest >= least and highest <= limit):
        raise ValueError(
            f"expected {values.value} from {least:.8g} to {limit:.8g}, got values from {lowest} to "
            f"{highest}"
        )
