"""Parts that the pages share: templates, formatted numbers, pictures inside a page."""

import base64
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from wobbliness.runtime.terminal import visible

MAX_BELOW_ONE = 0.9999
# HTML, cells and code, and the brackets of links; intervals stay as they are
_MARKDOWN = re.compile(r"[<&|`\\]|\](?=[(\[:])")


def page_environment() -> Environment:
    """Returns the templates of the pages, in which an undefined name is an error."""
    return Environment(
        loader=PackageLoader("wobbliness.reports"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escaped,
    )


def _escaped(value: Any) -> Any:
    """Returns text as every page can hold it, with our own markup left as it is.

    Control characters and what is not Unicode become escapes.
    """
    # Markup is a subclass of str, and is ours: only plain strings are changed.
    if type(value) is not str or value.isprintable():
        return value
    # Line by line: line breaks of a message stay.
    return "\n".join(visible(line) for line in value.split("\n"))


def number(value: object) -> str:
    """Returns a table's value as text: three decimals, p-values in powers of ten.

    An absent value is empty. What is not 1 never reads as 1: a share just below it keeps a fourth
    decimal.
    """
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    if value != value:
        return ""
    # Fixed decimals where three of them say enough; trailing zeros add nothing.
    if value == 0 or 0.001 <= abs(value) < 10_000:
        text = f"{value:.3f}".rstrip("0").rstrip(".")
        return f"{min(value, MAX_BELOW_ONE):.4f}" if text == "1" and value < 1 else text
    return f"{value:.1e}"


def markdown_cell(text: str) -> str:
    """Returns text for a cell or a line of Markdown, in which nothing is markup.

    >>> print(markdown_cell("a|b <script> [x](http://y) [0.1, 0.2]"))
    a&#124;b &#60;script> [x&#93;(http://y) [0.1, 0.2]
    """
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def data_uri(content: bytes, kind: str) -> str:
    """Returns a file as a data URI, so that the page requests nothing.

    Args:
        content: of the file.
        kind: its media type, such as `image/png`.
    """
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
