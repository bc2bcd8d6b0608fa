"""Errors of libraries, condensed to one line that a user can read."""

import re

# About five lines of a terminal.
MAX_CHARACTERS = 400
# Of a line, before it is condensed: a stranger's message may be long, and patterns slow on it.
MAX_READ = 2000

# Escapes by which libraries colour their messages.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What ONNX Runtime writes in front: [ONNXRuntimeError] : 1 : FAIL :
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# A place in C++ code: /onnxruntime/core/graph/model.cc:182
_SOURCE_LINE = re.compile(r"(?:\S*/)?[\w.-]+\.(?:cc|cpp|cxx|cu|cuh|h|hpp):\d+:?\s+")
# Signature of a C++ function: void a::b<T>::c(const d&, e (*)(f)) const [with T = g]
_SIGNATURE = re.compile(
    r"(?:[\w:<>,&*~ ]|\[with[^\]]*\])*?[\w~>]+\s?"
    r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
    r"(?: const)?(?:::<lambda[^>]*>)?(?: \[with [^\]]*\])?\s+"
)
# A dotted name of an error's class in front of its message.
_CLASS = re.compile(r"^(?:\w+\.)+\w*(?:Error|Exception): ")
_STREAM = re.compile(r" <_io\.\w+ object at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r" (?:at|object at) 0x[0-9a-fA-F]+")
# The folders up to an installed package.
_INSTALLED = re.compile(r"[^\s'\"(]*[/\\](?:site|dist)-packages[/\\]")
# Lines of a traceback, and of marks below code.
_TRACE = re.compile(r'Traceback \(most recent call last\)|File ".*", line \d+|[\s^~-]*$')


def reason_of(error: BaseException, max_characters: int = MAX_CHARACTERS) -> str:
    r"""Returns an error's message in one line, without details for its library's developers.

    That is the first line, or the last one where a traceback stands in the message, and what it
    introduces with a colon. Addresses of objects, lines and signatures of C++ code, colours and the
    place of installation are left out.

    >>> text = "Error(s) in loading:\n\n  Missing key <object at 0x7f12>\n  Unexpected key"
    >>> reason_of(RuntimeError(text))
    'Error(s) in loading: Missing key <object>'
    >>> reason_of(KeyError("name"))
    "KeyError: 'name'"
    """
    return (
        cause_of(error)
        if isinstance(error, KeyError)
        else _message(error, max_characters) or type(error).__name__
    )


def cause_of(error: BaseException) -> str:
    """Returns the class of an error, and what it says as by `reason_of`.

    >>> cause_of(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    message = _message(error, MAX_CHARACTERS)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _message(error: BaseException, max_characters: int) -> str:
    try:
        return condensed(_essence(str(error)), max_characters)
    except Exception:  # an exception's own code may fail, too
        return ""


def condensed(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Returns a text in one line of at most `max_characters`.

    Without addresses, C++ code, colours and places of installation.
    """
    text = _STATUS.sub("", _COLOURS.sub("", text[:MAX_READ]))
    text = _without_signatures(text)
    text = _INSTALLED.sub("", _ADDRESS.sub("", _STREAM.sub("", text)))
    text = " ".join(_CLASS.sub("", text).split())
    return text if len(text) <= max_characters else f"{text[: max_characters - 4]} ..."


def _essence(text: str) -> str:
    """Returns the most informative line, and what it introduces."""
    lines = [line.strip() for line in text.splitlines()]
    informative = [line for line in lines if line and not _TRACE.match(line)]
    if not informative:
        return ""
    if "Traceback (most recent call last)" in text:
        return informative[-1]
    # Lines that end with a colon introduce the next one.
    introduced = next(
        (index for index, line in enumerate(informative) if not line.endswith(":")),
        len(informative) - 1,
    )
    return " ".join(informative[: introduced + 1])


def _without_signatures(text: str) -> str:
    """Removes lines of C++ code and the function that follows each."""
    # What follows each file:line begins with the function's signature.
    first, *others = _SOURCE_LINE.split(text)
    return first + "".join(map(_without_signature, others))


def _without_signature(text: str) -> str:
    signature = _SIGNATURE.match(text)
    return text[signature.end() :] if signature is not None and "::" in signature[0] else text
