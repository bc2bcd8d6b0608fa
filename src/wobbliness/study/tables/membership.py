"""Rows of a table by the claims that they belong to: whole ids, never parts of them."""

import pandas as pd


def of_claims(frame: pd.DataFrame, *ids: str) -> pd.DataFrame:
    """Returns the rows of a table that belong to at least one of the claims.

    A row's column `claims` lists ids, such as "C3 C4". An id is compared as a whole: a row of C10
    is not a row of C1. A table without rows may lack the column.
    """
    if frame.empty:
        return frame
    wanted = set(ids)
    # a table of many rows has few different lists of claims
    members = [text for text in frame.claims.unique() if not wanted.isdisjoint(text.split())]
    return frame[frame.claims.isin(members)]
