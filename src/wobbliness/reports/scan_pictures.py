"""Pictures of a scan: the patterns, images without and with them, and W around both."""

import io

import matplotlib
import numpy as np
from jaxtyping import Float32
from matplotlib.figure import Figure

from wobbliness.attacks.patch import Trigger
from wobbliness.detectors.model_scan.results import PatternEffect, Scan
from wobbliness.reports.plot_style import BLUE, FIGURE_STYLE, GREEN, ORANGE, RESOLUTION, draw_boxes
from wobbliness.runtime.terminal import visible

ROW_HEIGHT, WIDTH = 0.3, 4.2  # inches, of the boxes; a telephone shows them at about that width


def picture_png(image: Float32[np.ndarray, "C H W"]) -> bytes:
    """Returns an image as PNG, pixel by pixel, in grey or colour.

    Channels beyond the third are left out.
    """
    return _png(_colours(image))


def pattern_png(stamp: Trigger, image_shape: tuple[int, int, int]) -> bytes:
    """Returns a pattern as PNG of the size of a whole image.

    The alpha channel says how much of each pixel it replaces. `trigger_from_png` makes the same
    trigger of it again, up to the rounding to 8 bits.
    """
    # a trigger is an affine map of each pixel: two images determine mask and pattern
    black = stamp.apply(np.zeros((1, *image_shape), np.float32))[0]
    white = stamp.apply(np.ones((1, *image_shape), np.float32))[0]
    alpha = 1 - (white - black)[0]  # (1 - a) * image + a * pattern at image 0 and 1
    pattern = np.divide(black, alpha, out=np.zeros_like(black), where=alpha > 0).clip(0, 1)
    return _png(
        np.concatenate(
            [
                np.repeat(_colours(pattern), 3 // len(_colours(pattern)), axis=0),
                alpha.clip(0, 1)[None],
            ]
        )
    )


def w_png(scan: Scan) -> bytes:
    """Returns a figure of W around clean images and images with each pattern, as PNG."""
    return _figure_bytes(scan, "png")


def w_svg(scan: Scan) -> bytes:
    """Returns the figure of `w_png` as SVG."""
    return _figure_bytes(scan, "svg")


def pattern_label(effect: PatternEffect, *, is_candidate: bool) -> str:
    """Returns the label of a pattern on figure and page."""
    return (
        f"candidate of class {effect.target_class}"
        if is_candidate
        else f"trigger {visible(effect.trigger.name)}"
    )


def _figure_bytes(scan: Scan, kind: str) -> bytes:
    """Returns the figure; the same bytes for the same scan."""
    # Without version or date: the same scan gives the same bytes.
    metadata: dict[str, None] = {"Software": None} if kind == "png" else {"Date": None}
    with matplotlib.rc_context(FIGURE_STYLE):
        content = io.BytesIO()
        _boxes(scan).savefig(content, format=kind, dpi=RESOLUTION, metadata=metadata)
    return content.getvalue()


def _boxes(scan: Scan) -> Figure:
    """Draws a box for the clean images and for each pattern, at the sigma of the verdicts."""
    assert scan.comparison is not None
    sigma = float(scan.comparison.sigma)  # a scan measures under noise alone
    rows = [("clean images", scan.clean_w[sigma], BLUE)]
    rows += [
        (f"class {finding.target_class}", finding.effect.w[sigma], ORANGE)
        for finding in scan.candidates
        if finding.effect
    ]
    rows += [(visible(effect.trigger.name), effect.w[sigma], GREEN) for effect in scan.triggers]
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots()
    for position, (_, w, colour) in enumerate(rows):
        draw_boxes(axes, [w], [float(position)], colour, orientation="horizontal")
    axes.set(xlabel="W (nats)", title=f"sigma {sigma:g}")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()  # the first row on top
    return figure


def _colours(image: Float32[np.ndarray, "C H W"]) -> Float32[np.ndarray, "c H W"]:
    # Grey, or the first three channels.
    return image[:3] if len(image) >= 3 else image[:1]


def _png(channels: Float32[np.ndarray, "c H W"]) -> bytes:
    from PIL import Image

    # Rounded, not cut: 1 / 255 in the image is 1 in the file.
    pixels = np.round(255 * channels).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(
        pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    ).save(content, "PNG")
    return content.getvalue()
