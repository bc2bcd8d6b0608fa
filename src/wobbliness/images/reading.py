"""The reading of images from any source that a user names."""

from pathlib import Path

from wobbliness.images.arrays import read_npy, read_npz
from wobbliness.images.fitting import ImageShape, Target
from wobbliness.images.folders import read_picture, read_picture_folder
from wobbliness.images.hub import HUB_PREFIX, read_hub
from wobbliness.images.image_set import ImageSet
from wobbliness.images.local_sets import is_hub_copy, read_local
from wobbliness.images.pictures import PICTURE_ENDINGS
from wobbliness.images.saved_tables import is_saved
from wobbliness.images.tables import parquet_files, read_parquet
from wobbliness.runtime.input_files import found_instead

_WITH_COLUMNS = (".npz", ".parquet")
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def read_images(
    source: str | Path,
    *,
    column: str | None = None,
    label_column: str | None = None,
    image_shape: ImageShape = None,
    resize: bool = False,
    size: tuple[int, int] | None = None,
    as_stored: bool = False,
) -> ImageSet:
    """Reads images in [0, 1] from files.

    The range is read from the type of the pixels, never guessed from their values: 8-bit ones are
    divided by 255, 16-bit ones by 65535, floats must be in [0, 1] already. Nothing is unpickled,
    and a file that would unpack to far more than it stores is refused.

    Args:
        source: one of

            - a `.npy` array or an array of an `.npz` archive, `(N, C, H, W)` or `(N, ...)`. What
              the classifier declares tells one picture, `(C, H, W)` or `(H, W, C)`, from several
              grey ones, and channels that are the last axis;
            - a PNG, JPEG or WebP picture;
            - a folder of pictures, taken in the order of their names; sorted into class folders,
              their alphabetical order gives the labels, as torchvision's `ImageFolder` and
              `datasets` have it. Hidden files, empty folders and what systems leave (`__MACOSX`,
              `@eaDir`, `Thumbs.db`) are skipped, others refused;
            - a `.parquet` table with encoded pictures or nested lists of numbers, or a folder of
            such files of one split;
            - a folder that `save_to_disk` of `datasets` wrote;
            - `FILE.npz:NAME` or `FILE.parquet:NAME`, one array or column; a file that has a colon
            in its name goes first;
            - a hub data set, `hf:NAME[SPLIT]` or `hf:NAME:CONFIG[SPLIT]`, looked for in the folder
              that the environment variable WOBBLINESS_DATA names, then as a local folder, then on
              the hub. SPLIT may be a slice, as in `test[:100]`. A local folder is read by its files
              alone, without asking the network: a README in it is not followed.
        column: the array of an archive or the column of a table; found by its type where only one
            can be meant, else by the name `images` (archive) or `image`.
        label_column: likewise for the labels: a `ClassLabel` column, else integers called `label`
            or `labels`.
        image_shape: what the classifier declares (`classifier.image_shape`), to fit the images to
            (see `fit_images`). A model of Hugging Face declares with it how its image processor
            resizes and crops.
        resize: scale pictures of another size to the declared one.
        size: height and width to scale pictures to, for a classifier that declares none.
        as_stored: take the values of an array as they are, as those of tables and token ids.

    Returns:
        ImageSet with images, labels where there are any, a name for each image, and class names
        where the source tells them.

    Raises:
        ValueError: the source is missing, damaged or of another kind, a column does not exist,
            values are out of range, or the images do not fit together or to the classifier.
    """
    if not isinstance(source, str | Path):
        raise ValueError(
            f"expected the path of images or hf:NAME[SPLIT], got {type(source).__name__}; measure "
            "arrays as they are"
        )
    if as_stored:
        return _read_as_stored(source, resize or size is not None, column, label_column)
    target = _target(image_shape, resize, size)
    if isinstance(source, str) and source.startswith(HUB_PREFIX) and not Path(source).is_file():
        return read_hub(
            source.removeprefix(HUB_PREFIX), target, column=column, label_column=label_column
        )
    path, named = _with_column(Path(source))
    if named is not None and column is not None:
        raise ValueError(f"expected one column, got {named} in {source} and {column}")
    return _read_path(path, target, column or named, label_column)


def _read_as_stored(
    source: str | Path, is_scaled: bool, column: str | None, label_column: str | None
) -> ImageSet:
    """Reads an array whose values are no pixels."""
    path, named = _with_column(Path(source))
    if path.suffix.lower() not in (".npy", ".npz") or is_scaled:
        found = "a size of pictures" if is_scaled else source
        raise ValueError(f"expected a .npy or .npz array of tables or token ids, got {found}")
    return _read_path(path, Target(as_stored=True), column or named, label_column)


def _target(image_shape: ImageShape, resize: bool, size: tuple[int, int] | None) -> Target:
    if size is None:
        return Target(image_shape=image_shape, resize=resize)
    return Target.of_size(image_shape, size)


def _with_column(path: Path) -> tuple[Path, str | None]:
    """Splits a path from the array or column after a colon, unless there is such a file."""
    # The last colon: paths may hold others, as `C:` on Windows.
    file, colon, column = str(path).rpartition(":")
    if (
        path.exists()
        or not colon
        or not column
        or Path(file).suffix.lower() not in _WITH_COLUMNS
        or not Path(file).exists()
    ):
        return path, None
    return Path(file), column


def _read_path(
    path: Path, target: Target, column: str | None, label_column: str | None
) -> ImageSet:
    if not path.exists():
        raise ValueError(f"expected images, got {path}, which does not exist")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"expected images, got {path}, {found_instead(path)}")
    columns: dict[str, str | None] = {"column": column, "label_column": label_column}
    ending = path.suffix.lower() if path.is_file() else ""
    if ending == ".npz":
        return read_npz(path, target, **columns)
    if ending == ".parquet" or (path.is_dir() and parquet_files(path)):
        return read_parquet(path, target, **columns)
    if path.is_dir() and is_saved(path):
        name = f"{HUB_PREFIX}{path}"
        return read_local(path, target, config=None, split=None, name=name, **columns)
    _check_no_columns(path, columns)
    return _read_plain(path, target)


def _check_no_columns(path: Path, columns: dict[str, str | None]) -> None:
    if any(column is not None for column in columns.values()):
        raise ValueError(
            f"expected a source with columns ({', '.join(_WITH_COLUMNS)} or hf:) for a column, got "
            f"{path}"
        )


def _read_folder(folder: Path, target: Target) -> ImageSet:
    try:
        return read_picture_folder(folder, target)
    except ValueError as error:
        if not is_hub_copy(folder):
            raise
        name = f"{HUB_PREFIX}{folder}"
        raise ValueError(
            f"expected pictures or a table, got {folder}, a copy of a hub data set; read it as "
            f"{name} or {name}[SPLIT]"
        ) from error


def _read_plain(path: Path, target: Target) -> ImageSet:
    ending = path.suffix.lower()
    if path.is_dir():
        return _read_folder(path, target)
    if ending == ".npy" and path.is_file():
        return read_npy(path, target)
    if ending in PICTURE_ENDINGS and path.is_file():
        return read_picture(path, target)
    # Not unpacked here: an archive may hold anything, of any size.
    if ending in _PACKED:
        raise ValueError(
            f"expected a folder of pictures or a table, got {path}, a packed one; unpack it first"
        )
    endings = ", ".join((".npy", *_WITH_COLUMNS, *PICTURE_ENDINGS))
    raise ValueError(f"expected images as {endings}, a folder or hf:NAME[SPLIT], got {path}")
