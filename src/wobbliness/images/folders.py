"""Folders of pictures, or of class folders with pictures."""

from pathlib import Path

import numpy as np

from wobbliness.images.fitting import Target
from wobbliness.images.image_set import ImageSet
from wobbliness.images.pictures import PICTURE_ENDINGS
from wobbliness.images.stacking import stack_pictures

_SYSTEMS = (
    "__macosx",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "__pycache__",
)
_FILE_MANAGERS = (
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "#recycle",
    "@recycle",
)
_SYSTEM_FILES = frozenset(_SYSTEMS + _FILE_MANAGERS)
"""Lower-case names of files that systems, file managers and notebooks leave in folders."""


def read_picture(path: Path, target: Target) -> ImageSet:
    """Reads one picture, as a set of one.

    Raises:
        ValueError: as for `stack_pictures`.
    """
    images = stack_pictures([(str(path), path)], 1, target, str(path))
    return ImageSet(images=images, labels=None, names=(path.name,), class_names=None)


def read_picture_folder(folder: Path, target: Target) -> ImageSet:
    """Reads pictures sorted by name, with labels from class folders in alphabetical order.

    Torchvision's ImageFolder assigns the same labels.

    Hidden files and folders, those that systems and file managers leave (`__MACOSX`, `@eaDir`,
    `Thumbs.db`), and empty folders are skipped: they are no classes. Anything else that is no
    picture is refused: a picture of another format must not go missing unnoticed.

    Raises:
        ValueError: there are no pictures or other files, or as for `stack_pictures`.
    """
    class_folders = [path for path in _entries(folder) if path.is_dir() and _entries(path)]
    if not class_folders:
        files, labels, class_names = _pictures(folder), None, None
    else:
        _check_only_folders(folder, class_folders)
        by_class = [_pictures(class_folder) for class_folder in class_folders]
        files = [path for paths in by_class for path in paths]
        # A class's number is its folder's place in the alphabet.
        sizes = [len(paths) for paths in by_class]
        labels = np.repeat(np.arange(len(by_class)), sizes).astype(np.int64)
        class_names = tuple(path.name for path in class_folders)
    images = stack_pictures([(str(path), path) for path in files], len(files), target, str(folder))
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    return ImageSet(images=images, labels=labels, names=names, class_names=class_names)


def _check_only_folders(folder: Path, class_folders: list[Path]) -> None:
    loose_files = [path for path in _entries(folder) if not path.is_dir()]
    if loose_files:
        raise ValueError(
            f"expected pictures or class folders in {folder}, got both: {class_folders[0].name} "
            f"and {loose_files[0].name}"
        )


def _pictures(folder: Path) -> list[Path]:
    # Empty folders are left out here, too; any other folder is refused below.
    files = [path for path in _entries(folder) if not (path.is_dir() and not _entries(path))]
    for path in files:
        if path.is_dir():
            raise ValueError(
                f"expected pictures in class folder {folder}, got folder {path.name} in it; "
                "name a folder whose own folders are the classes"
            )
        if path.suffix.lower() not in PICTURE_ENDINGS or not path.is_file():
            raise ValueError(
                f"expected only pictures ({', '.join(PICTURE_ENDINGS)}) in {folder}, got "
                f"{path.name}"
            )
    return files


def _entries(folder: Path) -> list[Path]:
    """Returns the entries of a folder, sorted by name, without files that systems put there."""
    return sorted(
        path
        for path in folder.iterdir()
        if not (path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES)
    )
