"""The bar: only for work that takes long, only where a person is watching."""

import io
import sys

import numpy as np
import pytest

import wobbliness
from wobbliness.runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "patience", "shown"),
    [(Terminal, 0.0, True), (Terminal, 2.0, False), (io.StringIO, 0.0, False)],
)
def test_a_bar_only_for_long_work_on_a_terminal(monkeypatch, stream, patience, shown):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", patience)
    monkeypatch.setattr(sys, "stderr", stream())
    with progress.progress_bar("measuring", 3) as advance:
        for _ in range(3):
            advance(1)
    assert ("measuring" in sys.stderr.getvalue()) == shown


def test_a_callback_takes_the_place_of_the_bar(monkeypatch, images):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    calls = []
    wobbliness.measure(
        lambda batch: np.zeros(len(batch), np.int64),
        images[:3],
        0.1,
        draws=5,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert sys.stderr.getvalue() == ""
