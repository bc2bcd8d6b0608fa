"""`wobbliness perturbations`: the families, their settings and sources."""

import inspect
from textwrap import wrap
from typing import Any

from wobbliness.cli.options import Json
from wobbliness.runtime.terminal import say, say_json

WIDTH = 96


def perturbations(as_json: Json = False) -> None:
    """List the perturbations that --perturbation takes, with their settings and sources.

    Settings are said in their order or by name. In place of OVERLAYS stands a file or folder of
    clean images. Those of training sets stand last, as Python says them.

    Example: wobbliness measure model.onnx inbox/ --perturbation box-mix:clean.npy,0.36,0.82
    """
    from wobbliness.perturbations.find import perturbation_kinds, training_kinds

    rows = [
        _row(kind, of, f"{kind}:{','.join(_settings(of))}")
        for kind, of in perturbation_kinds().items()
        if kind != "custom"
    ] + [
        _row(kind, of, f"{of.__name__}({', '.join(_settings(of))})")
        for kind, of in training_kinds().items()
    ]
    if as_json:
        say_json(rows, indent=1)
        return
    for row in rows:
        say(row["usage"])
        for line in wrap(row["summary"], WIDTH) + wrap(row["source"], WIDTH):
            say(f"    {line}")


def _row(kind: str, of: type[Any], usage: str) -> dict[str, str]:
    summary, _, rest = inspect.getdoc(of).partition("\n\n")  # type: ignore[union-attr]
    paragraph = rest.partition("\n\n")[0]
    return {
        "kind": kind,
        "usage": usage,
        "summary": " ".join(summary.split()),
        "source": ""
        if paragraph.startswith(("Attributes", ">>>"))
        else " ".join(paragraph.split()),
    }


def _settings(of: type[Any]) -> list[str]:
    """Describes the settings that can be said in a text: all but those of several values."""
    parameters = inspect.signature(of).parameters.values()
    return [_setting(each) for each in parameters if not isinstance(each.default, tuple)]


def _setting(parameter: inspect.Parameter) -> str:
    if parameter.name == "overlays":
        return "OVERLAYS"
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        name = parameter.name.upper().removesuffix("S")
        return f"{name},..."
    if parameter.default is inspect.Parameter.empty:
        return parameter.name.upper()
    return f"{parameter.name}={parameter.default}"
