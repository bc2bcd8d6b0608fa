"""The files of a study in an object store, for machines that share no folder."""

import json
from pathlib import Path
from typing import Any

from wobbliness.study.checking import weights_file
from wobbliness.study.files import CannotWrite, read_json, write_bytes
from wobbliness.study.records import STUDY_FILE


class Store:
    """Records, networks and perturbations below a URL of fsspec, `s3://bucket/study` for instance.

    A cell's record is written last and read first, so that who finds it finds the cell's other files, too.

    Args:
        url: of any file system that fsspec knows.

    Raises:
        ValueError: fsspec does not know the file system, or lacks the package for it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = _open(url)

    def claim(self, out: Path) -> None:
        """Makes the store that of the study whose folder this is.

        Raises:
            ValueError: it holds another study, or a damaged one.
        """
        content = self._read(STUDY_FILE)
        if content is None:
            self._write(STUDY_FILE, (out / STUDY_FILE).read_bytes())
            return
        found, own = _parsed(content, self.url), read_json(out / STUDY_FILE)
        if any(found.get(key) != own.get(key) for key in ("recipe", "seed", "digest")):
            raise ValueError(
                f"expected a store of recipe {own.get('recipe')} with seed {own.get('seed')}, got {self.url}, which belongs to "
                f"{found.get('recipe')} with seed {found.get('seed')}"
            )

    def names(self) -> set[str]:
        """Names of the cells that are recorded there."""
        self._files.invalidate_cache()
        found = self._files.glob(f"{self._root}/records/*.json")
        return {str(path).rpartition("/")[2].removesuffix(".json") for path in found}

    def keep(self, out: Path, name: str) -> None:
        """Puts a cell's files there.

        Raises:
            CannotWrite: the store does not take them.
        """
        for file in _files_of(out, name):
            if (out / file).is_file():
                self._write(file, (out / file).read_bytes())

    def fetch(self, out: Path, name: str) -> bool:
        """Gets a cell's files; False where the cell is not recorded there.

        Raises:
            CannotWrite: the store cannot be read, or the folder not be written to.
        """
        *others, record = _files_of(out, name)
        content = self._read(record)
        if content is None:
            return False
        for file in others:
            if (weights_or_table := self._read(file)) is not None:
                _write_file(out / file, weights_or_table)
        _write_file(out / record, content)
        return True

    def _write(self, file: str, content: bytes) -> None:
        target = f"{self._root}/{file}"
        try:
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(target, content)
        except Exception as error:  # each file system raises its own
            raise CannotWrite(f"cannot write {self.url}/{file}: {error}") from error

    def _read(self, file: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{file}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise CannotWrite(f"cannot read {self.url}/{file}: {error}") from error
        return content


def _files_of(out: Path, name: str) -> tuple[str, ...]:
    """A cell's files in the order in which they are written."""
    return (str(weights_file(out, name).relative_to(out)), f"records/{name}.parquet", f"records/{name}.json")


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)


def _parsed(content: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"expected a readable {STUDY_FILE} in {url}, got something else")
    return found


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"expected a URL that fsspec can open, got {url}: {error}") from error
    return files, root.rstrip("/")
