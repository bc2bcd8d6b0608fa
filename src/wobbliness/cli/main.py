"""Entry of the command line.

Ctrl-C is handled before anything else is loaded, and every end is an exit code and one line.
"""

import atexit
import sys

from wobbliness.cli.working_folder import leave_out_working_folder
from wobbliness.runtime.exit import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TRIGGER,
    end_on_interrupt,
    note_reported,
    skip_final_collection,
)

__all__ = ["EXIT_BAD_INPUT", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_TRIGGER", "main"]

MAX_CHARACTERS = 1000  # of a refusal


def main() -> None:
    """Runs the command line and exits with its code.

    0 done, 2 wrong use or bad input (one line says what), 1 failed, 130 stopped by Ctrl-C.
    """
    # First of all: the imports below take a second, in which Ctrl-C may come.
    put_back = end_on_interrupt()
    skip_final_collection()
    # Before any import that a file in the working folder could take the place of.
    leave_out_working_folder()
    from wobbliness.cli.app import app
    from wobbliness.runtime.interrupts import clean_interrupts
    from wobbliness.runtime.quiet_libraries import quiet_libraries
    from wobbliness.runtime.terminal import one_line_notices, write_any_character

    write_any_character()
    try:
        with clean_interrupts(), one_line_notices(), quiet_libraries():
            code = app(standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        _fail(error)
    finally:
        # Ctrl-C during the exit ends the process without a traceback.
        atexit.register(end_on_interrupt)
        put_back()
    if code == EXIT_INTERRUPTED:
        _stop("")
    # Commands return None; Typer gives back the code of an exit of its own.
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException) -> None:
    """Ends with the code of the error, and one line of it.

    An interrupt goes first: it may show as any error of a library that it met at work.
    """
    from typer.exceptions import TyperException

    from wobbliness.runtime.errors import cause_of, reason_of
    from wobbliness.runtime.files import StudyStopped
    from wobbliness.runtime.interrupts import Interrupted, is_interrupted

    if isinstance(error, Interrupted | KeyboardInterrupt) or is_interrupted():
        _stop(str(error) if isinstance(error, Interrupted) else "")
    if isinstance(error, TyperException):
        _end(error.format_message(), error.exit_code)
    if isinstance(error, ValueError):
        _end(reason_of(error, MAX_CHARACTERS), EXIT_BAD_INPUT)
    # a model's own error, a full disk: one line, not a page
    _end(str(error) if isinstance(error, StudyStopped) else cause_of(error), EXIT_FAILED)


def _end(message: str, code: int) -> None:
    from wobbliness.runtime.terminal import say

    if message:  # there is none where a bare command printed its help
        say("error: " + " ".join(message.split()), error=True)
    sys.exit(code)


def _stop(message: str) -> None:
    from wobbliness.runtime.terminal import say

    note_reported()
    say(message or "interrupted", error=True)
    sys.exit(EXIT_INTERRUPTED)
