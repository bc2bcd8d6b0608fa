"""Small plots inside rows: every value is where its axis says, and a name is text alone."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wobbliness.reports.small_plot import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    SmallPlot,
    svg,
)

PLOT = SmallPlot(
    quantity="W (nats)",
    over="sigma",
    ticks=("0.1", "0.2", "0.3"),
    series=(Series(name="clean", values=(0.0, 0.5, 1.0)),),
    bounds=(0, 1),
)


def marks(drawn):
    """Centres of circles."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    return [(float(x), float(y)) for x, y in found]


def labels(drawn):
    return re.findall(r"<text [^>]*>([^<]*)</text>", drawn)


def test_values_stand_at_their_share_of_the_axis():
    drawn = svg(replace(PLOT, joined=False))
    bottom, top = HEIGHT - BOTTOM, TOP
    width = WIDTH - LEFT - RIGHT
    expected = [
        (LEFT + width * place, bottom + (top - bottom) * value)
        for place, value in ((1 / 6, 0), (0.5, 0.5), (5 / 6, 1))
    ]
    for found, wanted in zip(marks(drawn), expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.06)


def test_a_line_goes_through_all_values_and_is_marked_at_its_ends():
    drawn = svg(PLOT)
    (corners,) = re.findall(r'class="line" d="M([^"]*)"', drawn)
    assert len(corners.split("L")) == 3
    assert len(marks(drawn)) == 2
    assert 'class="line"' not in svg(replace(PLOT, joined=False))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_the_axis_holds_every_value_and_zero(values):
    plot = replace(
        PLOT,
        ticks=("a",) * len(values),
        series=(Series(name="x", values=tuple(values)),),
        bounds=None,
    )
    low, high = plot.axis
    assert low <= min(0, *values)
    assert high >= max(0, *values) * (1 - 1e-9)
    assert low < high
    assert all(TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1 for _, y in marks(svg(plot)))


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.79,), ["0", "0.8"]),
        ((0.3,), ["0", "0.3"]),
        ((0.0,), ["0", "1"]),
        ((-0.21,), ["-0.3", "0"]),
    ],
)
def test_the_axis_ends_at_numbers_of_one_digit(values, shown):
    plot = replace(PLOT, ticks=("t",), series=(Series(name="x", values=values),), bounds=None)
    assert labels(svg(plot))[:2] == shown


def test_what_was_not_measured_is_not_drawn():
    values = (0.2, math.nan, 0.4)
    drawn = svg(replace(PLOT, series=(Series(name="x", values=values),), joined=False))
    assert len(marks(drawn)) == 2
    assert "nan" not in drawn
    nothing = svg(replace(PLOT, series=(Series(name="x", values=(math.nan,) * 3),), bounds=None))
    assert marks(nothing) == []


def test_intervals_and_a_limit_are_lines():
    one = Series(name="x", values=(0.5,) * 3, lower=(0.4,) * 3, upper=(0.9,) * 3)
    drawn = svg(replace(PLOT, series=(one,), limit=0.95))
    assert drawn.count('class="line"') == 3
    assert drawn.count('class="limit"') == 1
    assert 'class="limit"' not in svg(PLOT)


def test_series_of_one_name_share_a_colour_and_others_have_their_own():
    series = tuple(Series(name=name, values=(0.1, 0.2, 0.3)) for name in ("a", "b", "a", "c"))
    drawn = svg(replace(PLOT, series=series))
    assert re.findall(r'<g class="series-(\d)"', drawn) == ["1", "2", "1", "3"]
    assert drawn.count("<circle") == 4
    assert drawn.count("<rect") == 2


def test_labels_without_room_are_thinned_out():
    short = labels(svg(PLOT))[2:]
    assert short == ["0.1", "0.2", "0.3"]
    ticks = tuple(f"network {number}" for number in range(9))
    values = Series(name="x", values=(0.5,) * 9)
    assert labels(svg(replace(PLOT, ticks=ticks, series=(values,))))[2:] == [
        "network 0",
        "network 4",
        "network 8",
    ]


def test_names_are_text():
    evil = '"><script>x</script>'
    drawn = svg(replace(PLOT, quantity=evil, ticks=(evil, "b", "c")))
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn
