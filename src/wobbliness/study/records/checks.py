"""Checks that a record holds what tables are formed of.

Numbers where numbers belong, and as many rows as were measured.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from wobbliness.runtime.field_limits import MAX_CLASSES, shown
from wobbliness.study.specs import (
    CleanseSpec,
    MeasureSpec,
    NetworkSpec,
    ResponseSpec,
    Spec,
    UniversalSpec,
)

Results = Mapping[str, Any]
MAX_KEYS = 50  # of results
MEASURED = ("point", "label", "sigma", "draws", "top_score", "candidate")
RESPONSES = ("level", "confident_share", "mean_top_score", "entropy_of_classes")
CANDIDATE_FORMS = ("first", "smallest")


def check_record(spec: Spec, results: Results, table: pd.DataFrame) -> None:
    """Checks results and table of a cell.

    Raises:
        ValueError: something is missing, of another type, or not of this cell; the message names
            it.
    """
    if isinstance(spec, NetworkSpec):
        _check_training(spec, results)
    elif isinstance(spec, MeasureSpec):
        _check_measurement(spec, results)
        _check_votes(spec, table)
    elif isinstance(spec, UniversalSpec):
        _check_plain(results, ("norm_reached", "fooling_rate", "fooling_rate_on_test"))
    elif isinstance(spec, CleanseSpec):
        _check_candidates(results)
    else:
        _check_responses(spec, table)


def _check_training(spec: NetworkSpec, results: Results) -> None:
    _check_numbers(results, ("num_poisoned", "clean_accuracy"))
    _check_numbers(results, ("backdoor_accuracy",), or_none=True)
    losses = _list_of(results, "losses", spec.epochs)
    if not losses or not all(map(_is_number, losses)):
        raise ValueError("losses of another kind")


def _check_measurement(spec: MeasureSpec, results: Results) -> None:
    if not isinstance(spec.crafted, CleanseSpec):
        _check_numbers(
            results, ("accuracy_on_attacker_labels", "accuracy_on_clean_labels"), or_none=True
        )
    by_class = (
        []
        if results.get("attacker_labels_by_class") is None
        else _list_of(results, "attacker_labels_by_class", MAX_CLASSES)
    )
    if not all(value is None or _is_number(value) for value in by_class):
        raise ValueError("attacker_labels_by_class of another kind")
    pictures = results.get("pictures")
    if pictures is not None and not _are_pictures(pictures):
        raise ValueError("pictures of another kind")


def _are_pictures(pictures: Any) -> bool:
    if not isinstance(pictures, dict) or not isinstance(pictures.get("strips"), dict):
        return False
    height, strips = pictures.get("height"), pictures["strips"]
    return (
        isinstance(height, int)
        and height > 0
        and all(
            _is_integer_text(name) and (text is None or isinstance(text, str))
            for name, text in strips.items()
        )
    )


def _check_candidates(results: Results) -> None:
    """Checks rows of a form, a class and plain values.

    There are as many anomaly indices as classes.
    """
    index, flagged = (
        _list_of(results, "anomaly_index", MAX_CLASSES),
        _list_of(results, "flagged", MAX_CLASSES),
    )
    # one candidate of each form for each class at most
    candidates = _list_of(results, "candidates", len(CANDIDATE_FORMS) * len(index))
    if not all(value is None or _is_number(value) for value in index) or not all(
        map(_is_number, flagged)
    ):
        raise ValueError("anomaly_index or flagged of another kind")
    for row in candidates:
        if (
            not isinstance(row, dict)
            or row.get("form") not in CANDIDATE_FORMS
            or not isinstance(row.get("found"), bool)
        ):
            raise ValueError(f"a candidate of another kind, {shown(row)}")
        target_class = row.get("target_class")
        if not isinstance(target_class, int) or not 0 <= target_class < len(index):
            raise ValueError(f"a candidate of class {shown(target_class)} out of {len(index)}")
        _check_plain({name: value for name, value in row.items() if name != "form"}, ())


def _check_votes(spec: MeasureSpec, table: pd.DataFrame) -> None:
    if table.empty and isinstance(spec.crafted, CleanseSpec):  # no candidate was found at all
        return
    votes = [name for name in table.columns if name not in MEASURED]
    if (
        not set(MEASURED) <= set(table.columns)
        or votes != [f"votes_{index}" for index in range(len(votes))]
        or not votes
    ):
        raise ValueError(
            "a table of other columns than point, label, sigma, draws, top_score, candidate and "
            "votes"
        )
    # one row per point, sigma and number of draws; several times that by class or by candidate
    rows, rest = divmod(len(table), spec.num_points * len(spec.sigmas) * len(spec.draws))
    if (
        rest
        or rows < 1
        or (rows > 1 and not (spec.per_class or isinstance(spec.crafted, CleanseSpec)))
    ):
        raise ValueError(f"a table of {len(table)} rows for {spec.num_points} points")
    if (
        len(votes) > MAX_CLASSES
        or not table.sigma.isin(spec.sigmas).all()
        or not table.draws.isin(spec.draws).all()
    ):
        raise ValueError("a table of other sigmas or draws, or of too many classes")
    # counts are integers that add up to the draws: entropies of anything else are meaningless
    counts = table[votes].to_numpy()
    integers = table[["point", "label", "candidate", "draws"]].dtypes
    if not all(np.issubdtype(kind, np.integer) for kind in (counts.dtype, *integers)):
        raise ValueError("a table in which counts are no integers")
    if counts.min() < 0 or (counts.sum(axis=1) != table.draws).any() or table.label.min() < 0:
        raise ValueError("a table in which votes do not add up to the draws")
    if not np.isfinite(table.top_score).all():
        raise ValueError("a table in which a top score is no number")


def _check_responses(spec: ResponseSpec, table: pd.DataFrame) -> None:
    if (
        tuple(table.columns) != RESPONSES
        or not np.isfinite(table.to_numpy(float)).all()
        or len(table) != len(spec.levels)
    ):
        raise ValueError("a table of other columns or levels")


def _check_plain(results: Results, wanted: tuple[str, ...]) -> None:
    """Checks names, each with a number or None: they become columns of a table."""
    _check_numbers(results, wanted)
    if len(results) > MAX_KEYS:
        raise ValueError(f"{len(results)} results")
    for name, value in results.items():
        if not (name.isidentifier() and name.isascii() and len(name) <= MAX_KEYS):
            raise ValueError(f"a result called {shown(name)}")
        if value is not None and not isinstance(value, bool | int | float):
            raise ValueError(f"{name} of another kind")


def _check_numbers(results: Results, names: tuple[str, ...], *, or_none: bool = False) -> None:
    for name in names:
        value = results.get(name)
        if not (_is_number(value) or (or_none and value is None)):
            raise ValueError(f"no number for {name}")


def _list_of(results: Results, name: str, max_length: int) -> list[Any]:
    found = results.get(name)
    if not isinstance(found, list) or len(found) > max_length:
        raise ValueError(f"no list of at most {max_length} for {name}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 2.0**63


def _is_integer_text(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 10
