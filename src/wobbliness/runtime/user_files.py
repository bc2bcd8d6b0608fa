"""Python files that the user names, as `FILE.py:name`, and the objects in them.

Their code is run; nothing is loaded that the user did not name.
"""

import hashlib
import importlib.util
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.input_files import found_instead

_PREFIX = "wobbliness_file_"
_loaded: dict[str, Path] = {}  # by the name of the module
# A file that another thread is loading is waited for, and may itself load others.
_lock = threading.RLock()


def _replace_lock() -> None:
    """Gives a forked process a lock of its own: nobody there releases the old one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_lock)


def is_user_object(text: str) -> bool:
    """Checks whether a text says `FILE.py:name`."""
    return ".py:" in text


def load_object(text: str) -> Any:
    """Returns what `FILE.py:name` says; the file's code is run, once for the same content.

    Raises:
        ValueError: the file does not exist, raises an error, or has no such name.
    """
    path, _, name = text.rpartition(":")
    module = load_file(Path(path))
    try:
        return getattr(module, name)
    except AttributeError:
        raise ValueError(f"expected {name} in {path}, which does not define it") from None


def instance_of(found: Any, protocol: type, what: str, name: str) -> Any:
    """Returns an object of a protocol, or makes one of its class.

    Args:
        found: the object or the class.
        protocol: checked at run time.
        what: a noun and what such an object has, for the message: `a detector, with name and fit`.
        name: what the user called it.

    Raises:
        ValueError: it is another object, or the class wants arguments.
    """
    try:
        made = found() if isinstance(found, type) else found
    except Exception as error:  # a user's class raises whatever it likes
        raise ValueError(
            f"expected {what.partition(',')[0]} with a default for each setting, got {name}: "
            f"{cause_of(error)}"
        ) from error
    if not isinstance(made, protocol):
        raise ValueError(f"expected {what}, got {type(made).__name__} from {name}")
    return made


class _FromSource(SourceFileLoader):
    """A loader that keeps no bytecode.

    Python takes kept bytecode for that of a file that was changed within the same second and has as
    many bytes as before.
    """

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)


def load_file(path: Path) -> ModuleType:
    """Returns the module of a Python file; the file's code is run, once for the same content.

    The module has a name of its own for each path and content, so that pickle finds its classes.

    Raises:
        ValueError: the file does not exist, or raises an error.
    """
    if not path.is_file():
        raise ValueError(f"expected a Python file, got {path}, {found_instead(path)}")
    path = path.resolve()
    content = hashlib.blake2b(bytes(path) + path.read_bytes(), digest_size=8).hexdigest()
    with _lock:
        return _loaded_once(f"{_PREFIX}{content}", path)


def _loaded_once(name: str, path: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before its code runs: a dataclass looks its module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file raises whatever it likes
        del sys.modules[name]
        raise ValueError(f"expected a Python file, got {path}: {cause_of(error)}") from error
    _loaded[name] = path
    return module


def loaded_modules() -> list[ModuleType]:
    """Returns the modules of all files loaded in this process."""
    return [sys.modules[name] for name in _loaded]


@dataclass(frozen=True, init=False)
class LoadedFiles:
    """The files loaded in this process; unpickling it loads them in another process.

    Sent ahead of objects whose classes they define.
    """

    paths: tuple[Path, ...]

    def __init__(self) -> None:
        object.__setattr__(self, "paths", tuple(_loaded.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (self.paths,)


def _load_again(paths: tuple[Path, ...]) -> LoadedFiles:
    for path in paths:
        # one that is gone by now need not be one that is needed; its objects would say so
        with suppress(ValueError):
            load_file(path)
    return LoadedFiles()
