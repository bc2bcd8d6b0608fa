"""Imports from the working folder: none but the modules that the user names.

A model is opened in the folder it was downloaded to, and a file `onnx.py` next to it may be the
stranger's.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType

IMPORTERS_FOR_OTHERS = {  # modules that import what their caller, or the file they read, names
    "importlib",
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "importlib.util",
    "joblib.numpy_pickle",
    "pickle",
    "pkgutil",
    "pydoc",
    "torch.serialization",
}


def leave_out_working_folder() -> None:
    """Takes the working folder off Python's path, in this process and in those that it starts.

    Python puts it there for `python -c` and `python -m`, and for an empty or relative entry of
    PYTHONPATH. An absolute entry of PYTHONPATH is the user's choice of that folder and stays, as
    does the folder that this program itself comes from.
    """
    sys.path[:] = [entry for entry in sys.path if not _is_left_out(entry)]
    # For workers and other processes that this one starts.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if os.environ.get("PYTHONPATH"):
        given = [
            entry for entry in os.environ["PYTHONPATH"].split(os.pathsep) if not _is_left_out(entry)
        ]
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, given))


def import_from_working_folder(module_name: str) -> None:
    """Lets a module that the user names be found in the working folder, after all else.

    So are the modules that it imports itself.

    Libraries still find nothing there, not even what they import where it happens to be installed.
    """
    package = module_name.partition(".")[0]
    folder = os.getcwd()
    # One finder for a folder, however many modules are named.
    finders = [known for known in sys.meta_path if isinstance(known, _NamedModules)]
    finder = next((known for known in finders if known.folder == folder), None)
    if finder is None:
        finder = _NamedModules(folder)
        # At the end: nothing that is installed can be replaced from the folder.
        sys.meta_path.append(finder)
    finder.named.add(package)


class _NamedModules(MetaPathFinder):
    """Finder of modules in a folder: those that are named, and those that these import."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.named: set[str] = set()
        self._found: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns the specification of a module that this finder may find.

        Modules inside of packages never are.
        """
        # Submodules are found by their package; others only if named or imported by such a module.
        if path is not None or (
            fullname not in self.named and _importer(sys._getframe(1)) not in self._found
        ):
            return None
        # Last in sys.meta_path: everything installed was looked through before.
        spec = PathFinder.find_spec(fullname, [self.folder], target)
        if spec is not None:
            self._found.add(fullname)
        return spec


def _importer(frame: FrameType | None) -> str:
    """Returns the top package of the code that contains an import statement.

    Or a call of an import function.
    """
    # Through the machinery of imports to whoever wanted the module.
    while frame is not None and frame.f_globals.get("__name__") in IMPORTERS_FOR_OTHERS:
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__")).partition(".")[0]


def _is_left_out(entry: str) -> bool:
    """Checks whether a path entry is the working folder, not chosen by its full name."""
    try:
        # Links are followed: another name of the working folder is the working folder.
        folder = os.path.realpath(entry)
        return folder == os.path.realpath(os.getcwd()) and folder not in _chosen_folders()
    except OSError:  # the working folder was removed
        return not os.path.isabs(entry)


def _chosen_folders() -> set[str]:
    """Returns the folders that stay on the path even as the working folder.

    The user's choice, and what is installed.
    """
    # The folder that holds this package, three levels up.
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    named = [
        entry
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if os.path.isabs(entry)
    ]
    installed = [
        *site.getsitepackages(),
        site.getusersitepackages(),
        *sysconfig.get_paths().values(),
    ]
    return {os.path.realpath(folder) for folder in (own, *named, *installed)}
