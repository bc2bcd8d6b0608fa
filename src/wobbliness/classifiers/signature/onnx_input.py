"""The conversion of images to the input that an ONNX graph declares."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float32

from wobbliness.classifiers.compile.session import layout_hint
from wobbliness.classifiers.signature.layouts import (
    Layout,
    described_layout,
    find_layout,
    image_shape,
)
from wobbliness.classifiers.signature.onnx_metadata import PictureRules, picture_rules
from wobbliness.classifiers.signature.pixel_scale import BYTE, PixelScale, described_scale

# Types of an input by ONNX Runtime's names. Numpy has no bfloat16, so that it is missing here.
FLOAT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
INTEGER_TYPES = {
    f"tensor({kind.__name__})": kind
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
}
TYPES: dict[str, Any] = {**FLOAT_TYPES, **INTEGER_TYPES}


class OnnxInput:
    """A callable that converts images in [0, 1], channels first, to a graph's input.

    Pixel values are scaled where the user, the graph's metadata or its type requires it. A graph of
    integers gets them rounded and clipped to their range: the noise is then smaller or clipped, and
    W is that of the rounded copies.

    Attributes:
        name: of the input.
        batch_size: B where the graph fixes it.
        image_shape: of one image, channels first; None inside where any size goes, None where
            images are flat.
    """

    def __init__(
        self,
        inputs: list[Any],
        model: onnx.ModelProto,
        *,
        layout: Layout | None,
        scale: PixelScale | None,
        integers: bool = False,
        source: str,
    ) -> None:
        """Reads what a graph declares.

        Args:
            inputs: of ONNX Runtime's session.
            model: the graph.
            layout: the user's choice of the axis of the channels.
            scale: the user's pixel values.
            integers: whether inputs are integers as they are, which a graph of integers takes.
            source: of the graph, for errors.

        Raises:
            ValueError: there is not one input of images, or the user's options contradict it.
        """
        _check_single_input(inputs, source)
        self.name, self._declared = inputs[0].name, inputs[0].shape
        self._dtype = TYPES[inputs[0].type]
        images = next((value for value in model.graph.input if value.name == self.name), None)
        rules = picture_rules(model, images, scale)
        self.batch_size = self._sizes[0]
        self._layout = _found_layout(self._sizes, layout, rules, model.graph)
        self.image_shape = image_shape(self._sizes, self._layout)
        self._takes_ids = integers and self._dtype in INTEGER_TYPES.values()
        is_scaled = rules.scale is not None or not self._takes_ids
        self._scale = _scale_of_type(rules.scale, inputs[0].type, source) if is_scaled else None
        self._is_blue_first = rules.is_blue_first
        # Where the graph declares its channels, another number of them is refused here already.
        num_channels = (self.image_shape or (None,))[0]
        if self._scale is not None and len(self._sizes) == 4 and num_channels is not None:
            self._scale.check_channels((1, *(self.image_shape or ())))

    @property
    def _sizes(self) -> list[int | None]:
        """The declared shape, None for axes that the graph leaves free or gives a name."""
        return [size if isinstance(size, int) else None for size in self._declared]

    @property
    def rounding(self) -> str | None:
        """Describes what is done to noisy copies beyond a change of units; None for floats."""
        if self._scale is None or self._dtype in FLOAT_TYPES.values():
            return None
        low, high = self._scale.low, self._scale.high
        return (
            f"noisy copies are rounded and clipped to {low:g} ... {high:g}, since the graph takes "
            f"{self._dtype.__name__}"
        )

    def preprocessing(self) -> dict[str, str]:
        """Describes pixel values and layout, for comparisons."""
        return described_scale(self._scale) | described_layout(self._sizes, self._layout)

    def __call__(self, images: Float32[np.ndarray, "B ..."]) -> np.ndarray:
        """Converts images to the graph's input.

        Raises:
            ValueError: their shape is not what it declares.
        """
        values = images if not self._is_blue_first else _blue_first(images)
        arranged = self._arranged(values if self._scale is None else self._scale.apply(values))
        # Integers: noisy copies are rounded to even at .5 and clipped to the range of pictures.
        if self._scale is not None and self._dtype in INTEGER_TYPES.values():
            arranged = np.clip(np.rint(arranged), self._scale.low, self._scale.high)
        if self._takes_ids:
            self._check_ids(arranged)
        return arranged.astype(self._dtype, order="C", copy=False)

    def _check_ids(self, ids: np.ndarray) -> None:
        """Raises ValueError for values that the graph's type would change to others."""
        limit = np.iinfo(self._dtype).max
        wrong = ids[(ids > limit) | (ids < 0) | (ids != np.rint(ids))]
        if wrong.size:
            raise ValueError(
                f"expected token ids up to {limit} for a graph of {self._dtype.__name__}, got "
                f"{wrong[0]:g}"
            )

    def _arranged(self, images: np.ndarray) -> np.ndarray:
        declared = self._declared
        is_last = self._layout == "nhwc" and images.ndim == 4
        given = images.transpose(0, 2, 3, 1) if is_last else images
        # Flat features, or grey pictures without an axis of channels.
        if len(declared) == 2:
            given = given.reshape(len(given), -1)
        elif len(declared) == 3 and given.ndim == 4 and given.shape[1] == 1:
            given = given[:, 0]
        if not _fits(declared, given.shape):
            raise ValueError(
                f"expected images of shape {declared}, as the graph declares, got {given.shape}"
            )
        return given


def _fits(declared: list[Any], shape: tuple[int, ...]) -> bool:
    """Checks a batch's shape but for its first axis; free axes are None or a name."""
    return len(declared) == len(shape) and all(
        not isinstance(size, int) or size == got
        for size, got in zip(declared[1:], shape[1:], strict=True)
    )


def _check_single_input(inputs: list[Any], source: str) -> None:
    is_usable = len(inputs) == 1 and inputs[0].type in TYPES and len(inputs[0].shape) > 1
    if not is_usable:
        found = ", ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs)
        raise ValueError(
            f"expected a graph with one float input (B, ...), got {found or 'none'} in {source}"
        )


def _found_layout(
    sizes: list[int | None], layout: Layout | None, rules: PictureRules, graph: onnx.GraphProto
) -> Layout:
    if layout is not None and rules.layout is not None and layout != rules.layout:
        raise ValueError(
            f"expected layout {rules.layout}, as the graph denotes its axes, got {layout}"
        )
    return find_layout(sizes, layout or rules.layout, layout_hint(graph))


def _scale_of_type(scale: PixelScale | None, dtype: str, source: str) -> PixelScale | None:
    """Returns the scale that a graph's type implies.

    8 bits are 0 to 255; for other integers the user has to give the range.
    """
    if dtype in FLOAT_TYPES:
        return scale
    if dtype == "tensor(uint8)":
        scale = BYTE if scale is None else scale
        scale = scale if scale.has_range else replace(scale, low=0.0, high=255.0, has_range=True)
    if scale is None or not scale.has_range:
        raise ValueError(
            f"expected a graph with one float input (B, ...), got {dtype} in {source}; "
            "say what 0 and 1 become (input_range, --input-range), or measure token ids"
        )
    if not _is_of_integers(scale, np.iinfo(INTEGER_TYPES[dtype])):
        raise ValueError(
            f"expected a range of whole numbers without mean and std for {dtype} in {source}, got "
            f"{scale}"
        )
    return scale


def _is_of_integers(scale: PixelScale, kind: "np.iinfo[Any]") -> bool:
    """Checks for a range within the type's in which rounding leaves more than two values."""
    is_plain = scale.mean == (0.0,) and scale.std == (1.0,)
    is_within = scale.low >= kind.min and scale.high <= kind.max
    return is_plain and is_within and scale.high - scale.low >= 2


def _blue_first(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.shape[1] < 3:
        raise ValueError(
            "expected coloured pictures (N, 3, H, W) for a graph of blue, green and red, got "
            f"{images.shape}"
        )
    # A channel after the first three, as of transparency, stays where it is.
    return images[:, [2, 1, 0, *range(3, images.shape[1])]]
