"""Object store for the files of a study, for machines that share no folder."""

from pathlib import Path
from typing import Any

from wobbliness.runtime.field_limits import named
from wobbliness.runtime.files import (
    MAX_JSON_BYTES,
    CannotWrite,
    check_study_folder,
    parse_json,
    read_json,
    write_bytes,
)
from wobbliness.study.records.bounded_tables import MAX_TABLE_BYTES
from wobbliness.study.records.integrity import weights_file
from wobbliness.study.records.record import STUDY_FILE

MAX_WEIGHTS_BYTES = 2**32  # as of any model file


class Store:
    """Records, networks and perturbations below a URL of fsspec, `s3://bucket/study` for instance.

    A cell's record is written last and read first, so that who finds it finds the cell's other
    files, too.

    Args:
        url: of any file system that fsspec knows.

    Raises:
        ValueError: fsspec does not know the file system, or lacks the package for it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = _open(url)

    def take_ownership(self, out: Path) -> None:
        """Makes the store that of the study whose folder this is.

        Raises:
            ValueError: it holds another study, or a damaged one, or is a local folder with links in
                it.
        """
        self._check_links()
        content = self._read(STUDY_FILE)
        if content is None:
            self._write(STUDY_FILE, (out / STUDY_FILE).read_bytes())
            return
        found, own = parse_json(content, f"{self.url}/{STUDY_FILE}"), read_json(out / STUDY_FILE)
        if any(found.get(key) != own.get(key) for key in ("recipe", "seed", "digest")):
            raise ValueError(
                f"expected a store of recipe {own.get('recipe')} with seed {own.get('seed')}, got "
                f"{self.url}, which belongs to {named(found.get('recipe'))} with seed "
                f"{named(found.get('seed'))}"
            )

    def names(self) -> set[str]:
        """Returns the names of the cells that are recorded there."""
        # fsspec caches listings; other nodes add cells meanwhile
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
        """Gets a cell's files; returns False where the cell is not recorded there.

        Raises:
            CannotWrite: the store cannot be read, or the folder not be written to.
        """
        # the record says that the other files are complete: read it first, write it last
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

    def _check_links(self) -> None:
        """Checks for links: a store in a folder may be untrusted, as a study's folder may."""
        if "file" in _protocols(self._files):
            check_study_folder(Path(self._root))

    def _read(self, file: str) -> bytes | None:
        try:
            # bounded before it is read: a store may be untrusted
            size = self._files.info(f"{self._root}/{file}")["size"] or 0
            if size > _most_bytes(file):
                raise ValueError(f"{size} bytes, more than {_most_bytes(file)}")
            content: bytes = self._files.cat_file(f"{self._root}/{file}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise CannotWrite(f"cannot read {self.url}/{file}: {error}") from error
        return content


def _protocols(files: Any) -> tuple[str, ...]:
    found = files.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def _most_bytes(file: str) -> int:
    limits: dict[str, int] = {".json": MAX_JSON_BYTES, ".parquet": MAX_TABLE_BYTES}
    return limits.get(Path(file).suffix, MAX_WEIGHTS_BYTES)


def _files_of(out: Path, name: str) -> tuple[str, ...]:
    """Returns a cell's files in the order in which they are written."""
    return (
        str(weights_file(out, name).relative_to(out)),
        f"records/{name}.parquet",
        f"records/{name}.json",
    )


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"expected a URL that fsspec can open, got {url}: {error}") from error
    return files, root.rstrip("/")
