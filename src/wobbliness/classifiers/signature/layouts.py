"""The axis of the channels in a classifier's images, found in its shape or declared by the user."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

Layout = Literal["nchw", "nhwc"]
ImageShape = tuple[int | None, ...]

# Grey, three colours, and these with transparency.
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
    if declared is not None:
        return _checked_declaration(shape, declared)
    found = _implied(shape) or hint
    if found is None:
        raise ValueError(
            f"expected a shape that tells where the channels are, got {list(shape)}; give layout "
            "nchw or nhwc"
        )
    return found


def _implied(shape: Sequence[int | None]) -> Layout | None:
    """Returns the layout if one axis only, of a batch of pictures, may be that of the channels."""
    first, last = (shape[axis] in PICTURE_CHANNELS for axis in (1, 3))
    if first == last:
        return None
    return "nchw" if first else "nhwc"


def _checked_declaration(shape: Sequence[int | None], declared: Layout) -> Layout:
    """Returns the declared layout of a batch of pictures."""
    implied = _implied(shape)
    # The shape contradicts a declaration only by two equal sides next to the one possible axis: a
    # picture may well be 3 or 4 pixels high.
    sides = shape[2:] if implied == "nchw" else shape[1:3]
    if implied is not None and sides[0] == sides[1] and declared != implied:
        raise ValueError(f"expected layout {implied} for a shape of {list(shape)}, got {declared}")
    return declared


def described_layout(shape: Sequence[int | None], layout: Layout) -> dict[str, str]:
    """Describes a layout, for comparisons; nothing if it is implied or channels first."""
    is_implied = len(shape) == 4 and _implied(shape) == layout
    return {} if is_implied or layout == "nchw" else {"layout": layout}


def image_shape(shape: Sequence[int | None], layout: Layout) -> ImageShape | None:
    """Returns the shape of one image, channels first; None for batches of flat features.

    Images of any shape are flattened to flat features.
    """
    if len(shape) < 3:
        return None
    sizes = tuple(shape[1:])
    return (sizes[-1], *sizes[:-1]) if layout == "nhwc" else sizes
