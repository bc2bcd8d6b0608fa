"""Checks of shapes and types for some calls of a function: loops repeat them thousands of times."""

import functools
import inspect
import threading
import types
from collections import Counter

import beartype
import jaxtyping

# a whole number is a float, as for mypy
check_types = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
ALWAYS, EVERY = 8, 64
counts = Counter()  # by code: calls, and definitions inside of other functions; of one test
_checkers = {}  # by code and annotations, of functions inside of others
_called = threading.local()


def _is_due(key):
    counts[key] += 1
    return counts[key] <= ALWAYS or counts[key] % EVERY == 0


def _relay(function):
    """Returns a function of the same signature that calls the one of `_called`.

    It holds nothing of the definition that it was made from, whose closure may be large.
    """

    called = _called

    def relay(*arguments, **options):
        return vars(called).pop("function")(*arguments, **options)

    # names in annotations are looked up where the function was written
    made = types.FunctionType(relay.__code__, function.__globals__, closure=relay.__closure__)
    functools.update_wrapper(made, function)
    made.__signature__ = inspect.signature(function)
    del made.__wrapped__
    return made


def _checker(jaxtyped, function, **settings):
    """Compiles the checks of an inner function once, not for each of its definitions."""
    if function.__defaults__ or function.__kwdefaults__:  # each definition may have its own
        return jaxtyped(function, **settings)
    key = (function.__code__, repr(function.__annotations__))
    if key not in _checkers:
        _checkers[key] = jaxtyped(_relay(function), **settings)
    checked = _checkers[key]

    def call(*arguments, **options):
        _called.function = function
        try:
            return checked(*arguments, **options)
        finally:
            vars(_called).pop("function", None)

    return call


def sampled(jaxtyped):
    """Checks the first calls of each function in each test, and every 64th after them."""

    def decorate(function=None, **settings):
        if function is None:
            return functools.partial(decorate, **settings)
        # settings of a perturbation: refused in words of its own
        if hasattr(function, "copies") or hasattr(function, "training_labels"):
            return function
        if not isinstance(function, types.FunctionType):
            return jaxtyped(function, **settings)
        code = function.__code__
        is_inner = "<locals>" in function.__qualname__
        # an inner function is decorated each time that the outer one runs
        if is_inner and not _is_due((code, "defined")):
            return function
        make = functools.partial(_checker, jaxtyped) if is_inner else jaxtyped
        # only now: of 3,000 functions a test calls a few dozen
        checked = functools.cache(lambda: make(function, **settings))

        @functools.wraps(function)
        def call(*arguments, **options):
            return (checked() if _is_due(code) else function)(*arguments, **options)

        return call

    return decorate


def install():
    """Replaces the decorator that jaxtyping's import hook writes before each function."""
    jaxtyping.jaxtyped = sampled(jaxtyping.jaxtyped)
