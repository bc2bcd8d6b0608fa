"""Checks of shapes and types for some calls of a function: loops repeat them thousands of times."""

import functools
import types
from collections import Counter

import beartype
import jaxtyping

# a whole number is a float, as for mypy
check_types = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
ALWAYS, EVERY = 8, 64
counts = Counter()  # by code: calls, and definitions inside of other functions; of one test


def _is_due(key):
    counts[key] += 1
    return counts[key] <= ALWAYS or counts[key] % EVERY == 0


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
        # an inner function is decorated each time that the outer one runs
        if "<locals>" in function.__qualname__ and not _is_due((code, "defined")):
            return function
        # only now: of 3,000 functions a test calls a few dozen
        checked = functools.cache(lambda: jaxtyped(function, **settings))

        @functools.wraps(function)
        def call(*arguments, **options):
            return (checked() if _is_due(code) else function)(*arguments, **options)

        return call

    return decorate


def install():
    """Replaces the decorator that jaxtyping's import hook writes before each function."""
    jaxtyping.jaxtyped = sampled(jaxtyping.jaxtyped)
