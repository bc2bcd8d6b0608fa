"""The axis of the channels in a classifier's images, found in its shape or declared by the user."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

Layout = Literal["nchw", "nhwc"]
ImageShape = tuple[int | None, ...]

PICTURE_CHANNELS = (1, 3, 4)


def checked_layout(layout: str | None) -> Layout | None:
    """Raises ValueError unless the layout is one of the two, or None."""
    if layout not in (*get_args(Layout), None):
        raise ValueError(f"expected a layout of nchw or nhwc, got {layout!r}")
    return cast(Layout | None, layout)


def find_layout(
    shape: Sequence[int | None], declared: Layout | None, hint: Layout | None = None
) -> Layout:
    """Finds whether the channels are the first or the last axis of an image in a batch.

    The channels are the axis whose size is in PICTURE_CHANNELS, if that is so for one of them only.
    Batches that are no pictures have none; flat features `(B, F)` are pictures flattened in the
    declared layout, channels first by default.

    Args:
        shape: as the classifier declares it, None for free axes.
        declared: by the user; it decides, unless only one axis can be that of channels, the other
            two being equal sides.
        hint: the layout of the classifier's own steps, for shapes that do not decide it.

    Raises:
        ValueError: neither the shape nor the user decides; they contradict each other; or there is
            no axis of channels.
    """
    if declared == "nhwc" and len(shape) not in (2, 4):
        raise ValueError(
            "expected no layout for images without an axis of channels, got nhwc for shape "
            f"{list(shape)}"
        )
    if len(shape) != 4:
        return declared or "nchw"
    # An axis may be that of the channels if its size is one of PICTURE_CHANNELS.
    first, last = (shape[axis] in PICTURE_CHANNELS for axis in (1, 3))
    if declared is not None:
        # The declaration is contradicted only by two equal sides beyond the one candidate axis.
        sides = shape[2:] if first else shape[1:3]
        if first != last and sides[0] == sides[1] and declared != ("nchw" if first else "nhwc"):
            raise ValueError(
                f"expected layout {'nchw' if first else 'nhwc'} for a shape of {list(shape)}, got "
                f"{declared}"
            )
        return declared
    if first != last:
        return "nchw" if first else "nhwc"
    if hint is not None:
        return hint
    raise ValueError(
        f"expected a shape that tells where the channels are, got {list(shape)}; give layout nchw "
        "or nhwc"
    )


def described_layout(shape: Sequence[int | None], layout: Layout) -> dict[str, str]:
    """Describes a layout, for comparisons; nothing if it is implied or channels first."""
    axes = (
        [shape[axis] in PICTURE_CHANNELS for axis in (1, 3)] if len(shape) == 4 else [False, False]
    )
    is_implied = axes == [layout == "nchw", layout == "nhwc"]
    return {} if is_implied or layout == "nchw" else {"layout": layout}


def image_shape(shape: Sequence[int | None], layout: Layout) -> ImageShape | None:
    """Returns the shape of one image, channels first; None for batches of flat features.

    Images of any shape are flattened to flat features.
    """
    if len(shape) < 3:
        return None
    sizes = tuple(shape[1:])
    return (sizes[-1], *sizes[:-1]) if layout == "nhwc" else sizes
