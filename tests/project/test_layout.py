"""The tree stays one that is seen at once: few names in each folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import wobbliness

SOURCE = Path(wobbliness.__file__).parent
MOST_ROOMS = 14
MOST_FILES = 16


def _names(folder: Path) -> list[str]:
    """Returns what a reader sees in a folder: its modules and folders, without `__init__`."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in {"__init__.py", "__init__.pyi", "py.typed", "__pycache__"}
    )


def _folders(top: Path) -> Iterator[Path]:
    yield top
    for path in sorted(top.iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            yield from _folders(path)


def test_the_top_floor_has_at_most_fourteen_names() -> None:
    assert len(_names(SOURCE)) <= MOST_ROOMS, _names(SOURCE)


@pytest.mark.parametrize(
    "folder", tuple(_folders(SOURCE)), ids=lambda path: str(path.relative_to(SOURCE.parent))
)
def test_no_folder_has_more_than_sixteen_files(folder: Path) -> None:
    assert len(_names(folder)) <= MOST_FILES, _names(folder)


def test_a_folder_of_seventeen_files_is_found(tmp_path: Path) -> None:
    for name in range(MOST_FILES + 1):
        (tmp_path / f"detector_{name}.py").touch()
    (tmp_path / "__init__.py").touch()
    assert len(_names(tmp_path)) == MOST_FILES + 1
