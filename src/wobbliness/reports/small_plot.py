"""Small plots inside the rows of a page: a few series over a few ticks, as SVG in its colours."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 250, 112
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 8, 24  # margins of the axes
LETTER = 6.0  # width of a letter of the labels, on average
MARKS = ("circle", "square", "triangle")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values over the ticks of a plot.

    Attributes:
        name: in the legend; series of one name have one colour and one mark.
        values: one for each tick; NaN where there is none.
        lower: ends of their intervals, or empty.
        upper: likewise.
    """

    name: str
    values: tuple[float, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SmallPlot:
    """Plot without a frame.

    Attributes:
        quantity: what is drawn, with its unit.
        over: what the ticks are.
        ticks: labels, at equal distances.
        series: of at most three different names.
        bounds: of the vertical axis; from the values where there are none.
        limit: value of a dashed line, such as that of a rule.
        joined: whether a series is a line; else its values are marks alone.
    """

    quantity: str
    over: str
    ticks: tuple[str, ...]
    series: tuple[Series, ...]
    bounds: tuple[float, float] | None = None
    limit: float | None = None
    joined: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the legend, in the order of colours and marks."""
        return tuple(dict.fromkeys(one.name for one in self.series))

    @property
    def axis(self) -> tuple[float, float]:
        """Returns the ends of the vertical axis; it holds 0 unless the bounds say otherwise."""
        if self.bounds is not None:
            return self.bounds
        drawn = [
            value
            for one in self.series
            for value in (*one.values, *one.lower, *one.upper)
            if math.isfinite(value)
        ]
        low, high = 0 - _rounded_up(-min((0.0, *drawn))), _rounded_up(max((0.0, *drawn)))
        return low, high if high > low else low + 1


def _rounded_up(value: float) -> float:
    """Returns the next number of one digit, as the end of an axis."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    # rounded first, or 0.3 / 0.1 would be above 3
    return math.ceil(round(value / power, 9)) * power


def svg(plot: SmallPlot) -> str:
    """Returns a plot as an SVG element, which takes colours and text size from its page."""
    parts = [*_axis(plot), *_limit(plot)]
    for one in plot.series:
        number = plot.names.index(one.name)
        parts.append(f'<g class="series-{number + 1}">{"".join(_series(plot, one, number))}</g>')
    return (
        f'<svg class="small" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_spoken(plot))}">{"".join(parts)}</svg>'
    )


def _spoken(plot: SmallPlot) -> str:
    return f"{plot.quantity} over {plot.over}: {', '.join(plot.names)}"


def _x(plot: SmallPlot, tick: int) -> float:
    width, steps = WIDTH - LEFT - RIGHT, len(plot.ticks)
    # marks alone stand in the middle of their places, lines go from edge to edge
    if plot.joined and steps > 1:
        return LEFT + width * tick / (steps - 1)
    return LEFT + width * (tick + 0.5) / steps


def _y(plot: SmallPlot, value: float) -> float:
    low, high = plot.axis
    share = (min(max(value, low), high) - low) / (high - low)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _axis(plot: SmallPlot) -> Iterator[str]:
    for value in plot.axis:
        y = _y(plot, value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>'
    for tick in _labelled(plot.ticks):
        x = _x(plot, tick)
        anchor = "end" if plot.joined and tick and tick == len(plot.ticks) - 1 else "middle"
        end = WIDTH if anchor == "end" else x
        yield (
            f'<text x="{end:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">'
            f"{escape(plot.ticks[tick])}</text>"
        )


def _labelled(ticks: Sequence[str]) -> Sequence[int]:
    """Returns the ticks whose labels have room: all, or the first, the middle and the last."""
    room = (WIDTH - LEFT - RIGHT) / max(len(ticks), 1)
    widths = [LETTER * (len(one) + len(other) + 1) / 2 for one, other in pairwise(ticks)]
    if all(width <= room for width in widths) or len(ticks) < 3:
        return range(len(ticks))
    return (0, len(ticks) // 2, len(ticks) - 1)


def _limit(plot: SmallPlot) -> Iterator[str]:
    if plot.limit is not None:
        y = _y(plot, plot.limit)
        yield f'<path class="limit" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'


def _series(plot: SmallPlot, one: Series, number: int) -> Iterator[str]:
    drawn = [tick for tick, value in enumerate(one.values) if math.isfinite(value)]
    # side by side, or marks of one tick would cover each other
    offset = 0 if plot.joined and not one.lower else 6 * (number - (len(plot.names) - 1) / 2)
    places = {tick: (_x(plot, tick) + offset, _y(plot, one.values[tick])) for tick in drawn}
    if plot.joined and not one.lower and len(drawn) > 1:
        # the ends alone are marked, for the eye to find the colour
        drawn = [drawn[0], drawn[-1]]
        corners = "L".join(f"{x:.1f} {y:.1f}" for x, y in places.values())
        yield f'<path class="line" d="M{corners}"/>'
    for tick in drawn if one.lower else ():
        low, high = _y(plot, one.lower[tick]), _y(plot, one.upper[tick])
        yield f'<path class="line" d="M{places[tick][0]:.1f} {low:.1f}V{high:.1f}"/>'
    yield from (mark(MARKS[number % len(MARKS)], *places[tick]) for tick in drawn)


def mark(shape: str, x: float, y: float) -> str:
    """Returns a mark around a point, by its name in MARKS."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    if shape == "square":
        return f'<rect x="{x - 2.8:.1f}" y="{y - 2.8:.1f}" width="5.6" height="5.6"/>'
    return f'<path d="M{x:.1f} {y - 3.8:.1f}l3.6 6.4h-7.2z"/>'
