"""Tables as CSV and Parquet that are safe with any text in them."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.runtime.terminal import visible, well_formed

# what a spreadsheet takes for a formula, also where it splits cells at semicolons; the wide forms
# count in East Asian editions
_FORMULA = re.compile("(^|;)(?=[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def cell_text(text: str) -> str:
    r"""Returns the text of a CSV cell that no spreadsheet runs as a formula and no terminal obeys.

    A single quote before `=`, `+`, `-`, `@`, tab or newline makes it text; control characters
    become escapes.

    >>> print(cell_text("=1+1.png"), cell_text("cat.png"))
    '=1+1.png cat.png
    """
    return visible(_FORMULA.sub(r"\1'", text))


def csv_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows as CSV may hold them, each text as `cell_text` writes it.

    Numbers, negative ones too, stay as they are.
    """
    return _with_text(frame, cell_text)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes rows as CSV."""
    csv_rows(frame).to_csv(path, index=False)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes rows as Parquet; text stays as it is, except for bytes that are not UTF-8."""
    _with_text(frame, well_formed).to_parquet(path, index=False)


def _with_text(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    """Returns the rows with all strings changed, in cells and heads.

    Other values and the types of columns stay.
    """
    # By position: names of columns may come from files, and may be equal.
    changed = frame.copy(deep=False)
    for position in range(frame.shape[1]):
        values = frame.iloc[:, position]
        if not (pd.api.types.is_numeric_dtype(values.dtype) or values.dtype == bool):
            changed.isetitem(
                position,
                values.map(lambda value: change(value) if isinstance(value, str) else value),
            )
    changed.columns = [change(name) if isinstance(name, str) else name for name in frame.columns]
    return changed
