"""Data sets in local folders, read by their files alone: README and scripts are ignored."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from wobbliness.images.fitting import Target
from wobbliness.images.folders import read_picture_folder
from wobbliness.images.image_set import ImageSet
from wobbliness.images.saved_tables import is_saved, saved_splits, saved_tables
from wobbliness.images.tables import (
    SPLIT_OF_SHARD,
    ParquetTable,
    RowRange,
    parquet_files,
    read_rows,
)
from wobbliness.runtime.errors import reason_of

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CARD = "README.md"
_DATA_FOLDER, _PLAIN_NAME = "data", re.compile(r"[\w.-]+")


def read_local(
    folder: Path,
    target: Target,
    *,
    config: str | None,
    split: str | None,
    name: str,
    column: str | None,
    label_column: str | None,
) -> ImageSet:
    """Reads the pictures of one split of a data set in a folder, without downloads or its code.

    It holds Parquet files (`SPLIT-00000-of-00001.parquet`, also in `data/`, in a folder of the
    configuration's name, or in one of the split's), pictures in a folder of the split's name, or
    what `save_to_disk` writes.

    Args:
        folder: the data set's.
        target: what the pictures are fitted to.
        config: a folder within it; None for none.
        split: its name, or slices of splits as `datasets` has them; None where there is only one.
        name: of the data set, for messages.
        column: the pictures', if named.
        label_column: the labels', if named.

    Raises:
        ValueError: it holds none of these, has no such split, or several and none is named; or as
            for the readers of its files.
    """
    folder = _configured(folder, config, name)
    splits = _splits(folder)
    if not splits and column is None and label_column is None:
        return _read_pictures(folder, target, split, name)
    if not splits:
        raise ValueError(
            f"expected Parquet files or what save_to_disk writes in {folder}, for a column of "
            f"{name}, got none"
        )
    if split is None and len(splits) != 1:
        raise _no_split(name, splits)
    parts = _chosen(splits, split or next(iter(splits)), name)
    return read_rows(parts, target, name, column=column, label_column=label_column, root=folder)


def is_hub_copy(folder: Path) -> bool:
    """Checks for a copy of a hub data set: tables in folders, or a card beside those of splits."""
    if _parquet_splits(folder):
        return True
    has_splits = any(_split_word(path.name) for path in folder.iterdir() if path.is_dir())
    return has_splits and (folder / _CARD).is_file()


def _configured(folder: Path, config: str | None, name: str) -> Path:
    if config is None:
        return folder
    # One plain name: a configuration must not lead out of the data set's folder.
    if not _PLAIN_NAME.fullmatch(config) or config in (".", "..") or not (folder / config).is_dir():
        raise ValueError(
            f"expected a configuration of {name} that is a folder in {folder}, got {config!r}"
        )
    return folder / config


def _splits(folder: Path) -> dict[str, Callable[[], list[RowRange]]]:
    """Finds how to open the tables of each split."""
    if is_saved(folder):
        return {name: _opener(saved_tables, [path]) for name, path in saved_splits(folder).items()}
    return {
        name: _opener(lambda file: [ParquetTable(file)], files)
        for name, files in _parquet_splits(folder).items()
    }


def _no_split(name: str, splits: Iterable[str]) -> ValueError:
    # In the usual order of splits, not in that of the alphabet.
    order = {split: place for place, split in enumerate(SPLIT_WORDS)}
    found = ", ".join(sorted(splits, key=lambda split: order.get(split, len(order))))
    bare = name.removeprefix("hf:")
    return ValueError(
        f"expected a split of data set {bare} as hf:{bare}[SPLIT], got none of {found}"
    )


def _opener(
    open_tables: Callable[[Path], list],  # type: ignore[type-arg]
    paths: list[Path],
) -> Callable[[], list[RowRange]]:
    # Later, and only for the split that is read.
    return lambda: [RowRange(table=table) for path in paths for table in open_tables(path)]


def _parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """Finds Parquet files by split: in the folder, else in `data`, else in folders of splits."""
    for place in (folder, folder / _DATA_FOLDER):
        files = parquet_files(place) if place.is_dir() else []
        if files:
            splits: dict[str, list[Path]] = {}
            for file in files:
                splits.setdefault(_split_of(file), []).append(file)
            return splits
    # Nothing there: each folder may be a split.
    inner = [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]
    return {
        _split_word(path.name) or path.name: files
        for path in inner
        if (files := parquet_files(path))
    }


def _split_of(file: Path) -> str:
    match = SPLIT_OF_SHARD.fullmatch(file.name)
    return match["split"] if match else _split_word(file.stem) or "train"


def _split_word(name: str) -> str | None:
    """Returns the split that a word in a name denotes, if any, as `datasets` reads it."""
    # Words between digits and signs: `test` in `my-test-2`, and not in `latest`.
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, synonyms in SPLIT_WORDS.items() if words & set(synonyms)), None)


def _chosen(
    splits: dict[str, Callable[[], list[RowRange]]], wanted: str, name: str
) -> list[RowRange]:
    # A name as a whole first: a split may be called what would read as a slice.
    if wanted in splits:
        return splits[wanted]()
    opened = {word: splits[word]() for word in _named_splits(wanted, splits, name)}
    try:
        from datasets import ReadInstruction

        lengths = {word: _Length(sum(map(len, parts))) for word, parts in opened.items()}
        slices = ReadInstruction.from_spec(wanted).to_absolute(lengths)
    except Exception as error:  # the library raises classes of its own
        raise ValueError(
            f"expected a split of data set {name} such as test[:100], got {wanted!r}: "
            f"{reason_of(error)}"
        ) from error
    return [part for cut in slices for part in _cut(opened[cut.splitname], cut.from_, cut.to)]


def _named_splits(wanted: str, splits: Iterable[str], name: str) -> list[str]:
    """Returns the splits that a specification names; ValueError where one does not exist."""
    # Slices joined by "+", each the name of a split with bounds in brackets behind it.
    words = [word for word in re.split(r"\s*\+\s*", wanted) if word]
    named = [re.split(r"[\[(]", word)[0].strip() for word in words]
    unknown = [word for word in named if word not in splits]
    if unknown or not words:
        raise ValueError(
            f"expected a split of data set {name} out of {', '.join(splits)}, got "
            f"{unknown[0] if unknown else wanted!r}"
        )
    return named


class _Length(int):
    """A stand-in for a split with its number of rows, as `datasets` asks for it."""

    @property
    def num_examples(self) -> int:
        return int(self)


def _cut(parts: list[RowRange], start: int, stop: int) -> list[RowRange]:
    """Selects the rows from `start` to before `stop` of consecutive tables."""
    cut, first = [], 0
    for part in parts:
        # The bounds as rows of this table, which begins at row `first` of all.
        begin, end = max(start - first, 0), min(stop - first, len(part))
        if begin < end:
            cut.append(replace(part, start=begin, stop=end))
        first += len(part)
    return cut


def _read_pictures(folder: Path, target: Target, split: str | None, name: str) -> ImageSet:
    """Reads pictures in the split's folder, or in the data set's own where it has no splits."""
    inner = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    # Both by the folder's own name and by the split that it denotes: `val` is `validation`.
    by_split = {word: path for path_name, path in inner.items() if (word := _split_word(path_name))}
    if split is not None and (split in inner or split in by_split):
        read = read_picture_folder(inner.get(split) or by_split[split], target)
    elif split in (None, "train") and not by_split:
        read = read_picture_folder(folder, target)
    elif split is None:
        raise _no_split(name, by_split)
    else:
        raise ValueError(
            f"expected a split of data set {name} out of "
            f"{', '.join(by_split or inner) or 'train'}, got {split!r}"
        )
    # Names as the hub gives them: the file's alone, without its class folder.
    return replace(read, names=tuple(Path(file).name for file in read.names))
