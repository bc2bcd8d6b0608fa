"""Data sets by name on the Hugging Face hub; a local folder of that name needs no request."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wobbliness.images.columns import Columns, find_columns, labels_from
from wobbliness.images.fitting import Target
from wobbliness.images.image_set import ImageSet
from wobbliness.images.local_sets import read_local
from wobbliness.images.stacking import Encoded, stack_pictures
from wobbliness.images.tables import column_types, picture_cell
from wobbliness.runtime.errors import cause_of

DATA_VARIABLE = "WOBBLINESS_DATA"
HUB_PREFIX = "hf:"
HUB_NAMES = {"fashion_mnist": "zalando-datasets/fashion_mnist", "cifar10": "uoft-cs/cifar10"}

_NAME = re.compile(r"(?P<name>[^\[\]]+?)(:(?P<config>[\w.-]+))?(\[(?P<split>.+)\])?")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A name of the form `name[split]` or `name:config[split]`.

    The split may be a slice, `test[:100]`.
    """

    name: str
    config: str | None
    split: str | None

    @property
    def source(self) -> str:
        """Returns the name that `datasets.load_dataset` is to read."""
        return data_source(self.name)


def parse_hub_name(text: str) -> HubName:
    """Parses a data set's name, without the `hf:`.

    >>> parse_hub_name("cifar10[test[:100]]").split
    'test[:100]'

    Raises:
        ValueError: it has another form.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a data set as hf:NAME[SPLIT], got {HUB_PREFIX}{text}")
    return HubName(name=match["name"], config=match["config"], split=match["split"])


def data_source(name: str) -> str:
    """Returns a data set's folder in WOBBLINESS_DATA if it exists, else its name on the hub."""
    # Read each time: a program may set it after the import.
    folder = os.environ.get(DATA_VARIABLE)
    local = Path(folder) / name if folder else None
    return str(local) if local is not None and local.is_dir() else HUB_NAMES.get(name, name)


def read_hub(
    text: str, target: Target, *, column: str | None, label_column: str | None
) -> ImageSet:
    """Reads the pictures of one split of a hub data set.

    Raises:
        ValueError: the data set or its split cannot be had, a column does not exist, or as for
            `stack_pictures`.
    """
    wanted = parse_hub_name(text)
    name = HUB_PREFIX + text
    columns: dict[str, str | None] = {"column": column, "label_column": label_column}
    if Path(wanted.source).is_dir():
        bare = f"{HUB_PREFIX}{wanted.name}"
        return read_local(
            Path(wanted.source),
            target,
            config=wanted.config,
            split=wanted.split,
            name=bare,
            **columns,
        )
    return _read_remote(wanted, target, name, **columns)


def _read_remote(
    wanted: HubName, target: Target, name: str, *, column: str | None, label_column: str | None
) -> ImageSet:
    import datasets

    if _looks_local(wanted.source):
        raise ValueError(
            f"expected data set {name} as a folder or a name on the hub, got no folder "
            f"{wanted.source}"
        )
    table = _loaded(wanted, name)
    columns = find_columns(
        column_types(table.features.arrow_schema), name, column=column, label_column=label_column
    )
    # Undecoded: the library's own decoder would take any format, and any size.
    undecoded = datasets.Image(decode=False)
    table = table.select_columns(columns.names).cast_column(columns.image, undecoded)
    rows = _Rows(table, columns, roots=_caches())
    images = stack_pictures(rows, len(table), target, name)
    labels_found = table[columns.label][:] if columns.label else []
    labels, class_names = labels_from(labels_found, columns, name)
    return ImageSet(images=images, labels=labels, names=tuple(rows.names), class_names=class_names)


def _loaded(wanted: HubName, name: str) -> Any:
    """Loads a data set from the hub; any error becomes a ValueError of one line."""
    import datasets

    try:
        split = wanted.split or _only_split(wanted)
        return datasets.load_dataset(wanted.source, wanted.config, split=split)
    except _Ambiguous:
        raise
    # The library raises a dozen classes of its own, from the network's to the file system's.
    except Exception as error:
        reason = cause_of(error)
        raise ValueError(
            f"expected data set {name} in ${DATA_VARIABLE} or on the hub, got {reason}"
        ) from error


def _looks_local(source: str) -> bool:
    """Checks whether a name is impossible on the hub: a path, a file, a script or an address."""
    # A name on the hub is NAME or OWNER/NAME; nothing else is asked for there.
    return (
        source.count("/") > 1
        or source.startswith((".", "/", "~"))
        or "\\" in source
        or ":" in source
        or Path(source).exists()
    )


class _Ambiguous(ValueError):
    """An error for a data set of several splits without a chosen one."""


def _only_split(wanted: HubName) -> str:
    import datasets

    splits = datasets.get_dataset_split_names(wanted.source, wanted.config)
    if len(splits) != 1:
        raise _Ambiguous(
            f"expected a split of data set {wanted.name} as hf:{wanted.name}[SPLIT], got none of "
            f"{', '.join(splits)}"
        )
    return str(splits[0])


class _Rows:
    """An iterator over the rows of a data set that keeps their names."""

    def __init__(self, table: Any, columns: Columns, roots: tuple[Path, ...]) -> None:
        self._table, self._columns, self._roots = table, columns, roots
        self.names: list[str] = []

    def __iter__(self) -> Iterator[Encoded]:
        for row, cells in enumerate(self._table):
            # The bytes in the table go before the file: that may be of whoever made the table.
            path, content = picture_cell(cells[self._columns.image])
            name = Path(path).name if path else str(row)
            self.names.append(name)
            yield name, content if isinstance(content, bytes) else self._file(path, name)

    def _file(self, path: str | None, name: str) -> Path:
        """Returns a picture file of the data set itself; a table may not name other files."""
        # Resolved first: a link, or dots in the path, may lead elsewhere.
        file = Path(path or "").resolve()
        if not path or not any(file.is_relative_to(root) for root in self._roots):
            raise ValueError(
                f"expected a picture within the data set, got {path or 'none'} for {name}"
            )
        return file


def _caches() -> tuple[Path, ...]:
    """Returns the folders that the files of a hub data set are in."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    return tuple(
        root.resolve() for root in (Path(HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE))
    )
