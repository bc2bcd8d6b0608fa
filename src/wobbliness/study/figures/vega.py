"""Parts of Vega-Lite charts that several figures share."""

from wobbliness.study.figures.figure import Chart

COLOURS = [f"var(--series-{number})" for number in (1, 2, 3)]
"""Colours of the page's style, which knows light from dark."""

SIGMA_TITLE = "sigma (pixel units)"


def ordinal(field: str, title: str) -> Chart:
    """Returns an axis of categories, in the order of the rows or of their values."""
    return {"field": field, "type": "ordinal", "title": title, "axis": {"labelAngle": 0}}


def boxes(x: str, x_title: str) -> Chart:
    """Returns box plots of W over a column; the tick is the mean."""
    return {"layer": [box(x, x_title), mean_tick(x, x_title)]}


def box(x: str, x_title: str, size: int = 22) -> Chart:
    """Returns the layer of the boxes."""
    mark = {
        "type": "boxplot",
        "extent": 1.5,
        "size": size,
        "color": COLOURS[0],
        "median": {"opacity": 0},
    }
    mark |= {
        "box": {"fillOpacity": 0.5},
        "rule": {"color": "currentColor", "opacity": 0.6},
        "outliers": {"size": 8, "filled": True, "opacity": 0.6},
    }
    y = {"field": "wobbliness", "type": "quantitative", "title": "W (nats)"}
    return {"mark": mark, "encoding": {"x": ordinal(x, x_title), "y": y}}


def mean_tick(x: str, x_title: str) -> Chart:
    """Returns the layer of the means."""
    mean = {"aggregate": "mean", "field": "wobbliness", "type": "quantitative"}
    tooltip = [
        ordinal(x, x_title),
        mean | {"title": "mean W", "format": ".3f"},
        {"aggregate": "count", "title": "points"},
    ]
    mark = {"type": "tick", "color": "currentColor", "thickness": 2.5, "size": 22}
    return {"mark": mark, "encoding": {"x": ordinal(x, x_title), "y": mean, "tooltip": tooltip}}


def intervals(
    x: str, x_title: str, columns: tuple[str, str, str], y_title: str, line: float
) -> Chart:
    """Returns estimates with their intervals over a column, by test, and a line to compare with."""
    estimate, lower, upper = columns
    shared: Chart = {
        "x": ordinal(x, x_title) | {"sort": None},
        "xOffset": {"field": "test", "sort": None},
        "color": {
            "field": "test",
            "sort": None,
            "scale": {"range": COLOURS},
            "legend": {"title": None},
        },
        "opacity": if_in_legend(),
        "tooltip": [
            {"field": name, "title": name.replace("_", " ")} for name in (x, "test", *columns)
        ],
    }
    y = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": y_title}
    rule = {"type": "rule", "strokeDash": [2, 4], "color": "currentColor"}
    return {
        "layer": [
            {"mark": rule, "encoding": {"y": {"datum": line} | y}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "params": [by_legend("test")],
                "encoding": shared | {"y": {"field": lower} | y, "y2": {"field": upper}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 55},
                "encoding": shared
                | {
                    "y": {"field": estimate} | y,
                    "shape": {"field": "test", "sort": None, "legend": None},
                },
            },
        ]
    }


def by_legend(field: str) -> Chart:
    """Returns a choice of one series in the legend."""
    return {"name": "chosen", "select": {"type": "point", "fields": [field]}, "bind": "legend"}


def if_in_legend() -> Chart:
    """Returns the opacity of a mark: faint unless its series is chosen."""
    return {"condition": {"param": "chosen", "value": 1}, "value": 0.12}
