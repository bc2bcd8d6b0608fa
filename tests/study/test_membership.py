"""Membership of rows in claims: whole ids."""

import pandas as pd
import pytest

from wobbliness.study.tables.membership import of_claims


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (("C1",), ["C1 C2"]),
        (("C10",), ["C10", "C4 C10"]),
        (("C2", "C4"), ["C1 C2", "C4 C10"]),
        (("C",), []),
        (("C1 C2",), []),
        ((), []),
    ],
)
def test_a_row_of_c10_is_none_of_c1(ids, expected):
    frame = pd.DataFrame({"claims": ["C1 C2", "C10", "C4 C10"]})
    assert list(of_claims(frame, *ids).claims) == expected


def test_a_table_without_rows_needs_no_column():
    assert of_claims(pd.DataFrame(), "C1").empty
