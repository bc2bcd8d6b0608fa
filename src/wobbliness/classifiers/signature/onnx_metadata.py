"""The metadata and denotations of an ONNX file that describe its input pictures."""

from dataclasses import dataclass, replace

import onnx

from wobbliness.classifiers.signature.layouts import Layout
from wobbliness.classifiers.signature.pixel_scale import PixelScale

# Keys and values are those of ONNX's own specification of metadata for pictures.
PIXEL_RANGE, PIXEL_FORMAT, GAMMA = (
    "Image.NominalPixelRange",
    "Image.BitmapPixelFormat",
    "Image.ColorSpaceGamma",
)
RANGES = {
    "nominalrange_0_255": (0.0, 255.0),
    "normalized_0_1": (0.0, 1.0),
    "normalized_1_1": (-1.0, 1.0),
    "nominalrange_16_235": (16.0, 235.0),
}


@dataclass(frozen=True, kw_only=True)
class PictureRules:
    """The rules by which images in [0, 1], red first, become the input of a graph.

    Attributes:
        scale: of the pixel values; None where they stay.
        is_blue_first: whether the order of three channels is reversed, before mean and std.
        layout: where the channels are; None where this is not given.
    """

    scale: PixelScale | None = None
    is_blue_first: bool = False
    layout: Layout | None = None


def picture_rules(
    model: onnx.ModelProto, images: onnx.ValueInfoProto | None, scale: PixelScale | None
) -> PictureRules:
    """Reads the metadata of a model; the user's scale may add to it but not contradict it.

    Args:
        model: of an ONNX file.
        images: the input of the graph that takes the images.
        scale: the user's.

    Raises:
        ValueError: the metadata contradict the user, or ask for an unsupported step.
    """
    metadata = {entry.key: entry.value.strip() for entry in model.metadata_props}
    gamma = metadata.get(GAMMA, "SRGB")
    if gamma.lower() != "srgb":
        raise ValueError(f"expected a graph of sRGB pictures, got {GAMMA} {gamma!r}")
    # Bgr8 and the like; of the other formats, the channels are in the order of images here.
    is_blue_first = metadata.get(PIXEL_FORMAT, "").lower().startswith("bgr")
    layout = None if images is None else _stated_layout(images)
    return PictureRules(
        scale=_scale(metadata.get(PIXEL_RANGE), scale), is_blue_first=is_blue_first, layout=layout
    )


def _scale(stated: str | None, scale: PixelScale | None) -> PixelScale | None:
    if stated is None:
        return scale
    if stated.lower() not in RANGES:
        raise ValueError(
            f"expected {PIXEL_RANGE} of 0 to 255, 0 to 1, -1 to 1 or 16 to 235, got {stated!r}"
        )
    low, high = RANGES[stated.lower()]
    if scale is not None and scale.has_range and (scale.low, scale.high) != (low, high):
        raise ValueError(
            f"expected input range {low:g},{high:g}, as the graph's metadata say, got "
            f"{scale.low:g},{scale.high:g}"
        )
    return replace(scale or PixelScale(), low=low, high=high, has_range=True)


def _stated_layout(images: onnx.ValueInfoProto) -> Layout | None:
    """Returns the layout from the axis that is denoted as the channels."""
    denotations = [axis.denotation for axis in images.type.tensor_type.shape.dim]
    if len(denotations) != 4 or "DATA_CHANNEL" not in denotations:
        return None
    stated: dict[int, Layout] = {1: "nchw", 3: "nhwc"}
    return stated.get(denotations.index("DATA_CHANNEL"))
