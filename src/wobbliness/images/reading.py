"""From what a user names to images."""

from pathlib import Path

from wobbliness.images.arrays import read_npy, read_npz
from wobbliness.images.fitting import ImageShape, Target
from wobbliness.images.folders import read_picture, read_picture_folder
from wobbliness.images.hub import HUB_PREFIX, read_hub
from wobbliness.images.image_set import ImageSet
from wobbliness.images.pictures import PICTURE_ENDINGS
from wobbliness.images.tables import parquet_files, read_parquet

_WITH_COLUMNS = (".npz", ".parquet")


def read_images(
    source: str | Path,
    *,
    column: str | None = None,
    label_column: str | None = None,
    image_shape: ImageShape = None,
    resize: bool = False,
) -> ImageSet:
    """Images in [0, 1] from files.

    The range is read from the type of the pixels, never guessed from their values: 8-bit ones are divided by 255, 16-bit ones by
    65535, floats must be in [0, 1] already. Nothing is unpickled, and a file that would unpack to far more than it stores is
    refused.

    Args:
        source: one of

            - a `.npy` array or an array of an `.npz` archive, `(N, C, H, W)` or `(N, ...)`;
            - a PNG, JPEG or WebP picture;
            - a folder of pictures, taken in the order of their names; sorted into class folders, their alphabetical order gives
              the labels, as torchvision's `ImageFolder` and `datasets` have it. Hidden files are skipped, others refused;
            - a `.parquet` table with encoded pictures, or a folder of such files of one split;
            - a hub data set, `hf:NAME[SPLIT]` or `hf:NAME:CONFIG[SPLIT]`, looked for in the folder that the environment variable
              WOBBLINESS_DATA names, then as a local folder, then on the hub. SPLIT may be a slice, as in `test[:100]`.
        column: the array of an archive or the column of a table; found by its type where only one can be meant, else by the name
            `images` (archive) or `image`.
        label_column: likewise for the labels: a `ClassLabel` column, else integers called `label` or `labels`.
        image_shape: what the classifier declares (`classifier.image_shape`), to fit the images to (see `fit_images`).
        resize: scale pictures of another size to the declared one.

    Returns:
        ImageSet with images, labels where there are any, a name for each image, and class names where the source tells them.

    Raises:
        ValueError: the source is missing, damaged or of another kind, a column does not exist, values are out of range, or the
            images do not fit together or to the classifier.
    """
    target = Target(image_shape=image_shape, resize=resize)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        return read_hub(source.removeprefix(HUB_PREFIX), target, column=column, label_column=label_column)
    path = Path(source)
    if not path.exists():
        raise ValueError(f"expected images, got {path}, which does not exist")
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path, target, column=column, label_column=label_column)
    if (path.suffix == ".parquet" and path.is_file()) or (path.is_dir() and parquet_files(path)):
        return read_parquet(path, target, column=column, label_column=label_column)
    if column is not None or label_column is not None:
        raise ValueError(f"expected a source with columns ({', '.join(_WITH_COLUMNS)} or hf:) for a column, got {path}")
    return _read_plain(path, target)


def _read_plain(path: Path, target: Target) -> ImageSet:
    if path.is_dir():
        return read_picture_folder(path, target)
    if path.suffix == ".npy" and path.is_file():
        return read_npy(path, target)
    if path.suffix.lower() in PICTURE_ENDINGS and path.is_file():
        return read_picture(path, target)
    endings = ", ".join((".npy", *_WITH_COLUMNS, *PICTURE_ENDINGS))
    raise ValueError(f"expected images as {endings}, a folder or hf:NAME[SPLIT], got {path}")
