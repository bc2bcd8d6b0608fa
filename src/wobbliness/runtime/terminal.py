"""Output to the terminal, which text of strangers cannot steer.

No other module prints or makes a console (a test looks for it). Names in model files, file names,
texts of errors: whatever reaches this module is shown with its control characters, direction marks
and broken characters as visible escapes.
"""

import json
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Not printable for Python, harmless on a terminal: spaces, unknown characters.
KEPT_CATEGORIES = ("Zs", "Co", "Cn")

_reserved: list[TextIO] = []  # standard output as it was when `reserved_output` started


def visible(text: str) -> str:
    r"""Returns text in one line in which nothing steers a terminal.

    Such characters become escapes.

    Escaped are control characters with the newline, direction marks, characters without width, line
    separators, and lone surrogates, which stand for the bytes of a file name that is not UTF-8.

    >>> print(visible("\x1b[2J and \udce9.png"))
    \x1b[2J and \xe9.png
    """
    return text if text.isprintable() else "".join(map(_visible_character, text))


def well_formed(text: str) -> str:
    r"""Returns text that every encoding of Unicode can write.

    Lone surrogates become escapes, as `visible` writes them.

    >>> print(well_formed("\udce9.png"))
    \xe9.png
    """
    if text.isascii():
        return text
    return "".join(
        _escape(character) if _is_surrogate(character) else character for character in text
    )


def say(line: str = "", *, error: bool = False) -> None:
    """Prints one line to standard output, or to standard error.

    Raises:
        OSError: nobody reads it any more, or the disk is full; what else is printed to that stream
            is dropped.
    """
    _write(sys.stderr if error else _output(), visible(line) + "\n")


def say_json(content: Any, *, indent: int | None = None) -> None:
    """Prints JSON that holds ASCII characters only."""
    # ASCII by default; what is left of the control characters is DEL.
    text = json.dumps(content, indent=indent)
    # A lone surrogate in ASCII JSON, which strict readers refuse.
    if "\\ud" in text:
        text = json.dumps(_well_formed_json(content), indent=indent)
    _write(_output(), text.replace("\x7f", "\\u007f") + "\n")


def console(*, error: bool = False) -> "Console":
    """Makes a console for tables and bars, without markup and control characters."""
    from rich.console import Console

    class _VisibleConsole(Console):
        def render_str(self, text: str, **options: Any) -> Any:
            # Line by line, since newlines of the table's own must stay.
            return super().render_str("\n".join(map(visible, text.split("\n"))), **options)

    stream = None if error else _output()
    return _VisibleConsole(file=stream, stderr=error, markup=False, highlight=False, emoji=False)


@contextmanager
def reserved_output() -> Iterator[None]:
    """Keeps standard output for this module, while active.

    What a library or a model prints goes to standard error.

    For the commands only, whose output is a table or JSON that another program reads.
    """
    kept = sys.stdout
    _reserved.append(kept)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept
        _reserved.pop()


@contextmanager
def one_line_notices() -> Iterator[None]:
    """Shows warnings and log records of any library in one visible line each, while active.

    No stream is redirected.
    """
    import logging

    class _VisibleRecord(logging.LogRecord):
        def getMessage(self) -> str:
            return visible(" ".join(super().getMessage().split("\n")))

    shown, made = warnings.showwarning, logging.getLogRecordFactory()
    warnings.showwarning = _show_warning
    logging.setLogRecordFactory(_VisibleRecord)
    try:
        yield
    finally:
        warnings.showwarning = shown
        logging.setLogRecordFactory(made)


def write_any_character() -> None:
    """Makes standard output escape characters that its encoding lacks, where possible."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _output() -> TextIO:
    return _reserved[-1] if _reserved else sys.stdout


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {' '.join(str(message).split())}", error=True)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # the command was started without one
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _drop(stream)
        raise


def _drop(stream: TextIO) -> None:
    """Redirects a broken stream to nowhere.

    What was not written cannot be written at the end of the process either, where it would be an
    error of its own.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        # The descriptor itself: the interpreter flushes the stream once more at its end.
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


def _visible_character(character: str) -> str:
    is_kept = character.isprintable() or unicodedata.category(character) in KEPT_CATEGORIES
    return character if is_kept else _escape(character)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _well_formed_json(content: Any) -> Any:
    if isinstance(content, str):
        return well_formed(content)
    if isinstance(content, dict):
        return {
            _well_formed_json(name): _well_formed_json(value) for name, value in content.items()
        }
    return (
        [_well_formed_json(value) for value in content]
        if isinstance(content, list | tuple)
        else content
    )
