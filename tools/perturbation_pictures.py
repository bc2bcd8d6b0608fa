"""The pictures of the page on perturbations: one image, six copies and the votes, for each family.

    python tools/perturbation_pictures.py        # writes docs/figures/perturbations.png

The network is the first one of C3 in the recipe of the digits; levels change a fifth of the labels
of 100 clean images where a family has such a level.
"""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wobbliness import measure
from wobbliness.perturbations import (
    Affine,
    Blur,
    BoxMix,
    BoxNoise,
    CellMix,
    Contrast,
    Corrupt,
    Elastic,
    Flow,
    Gaussian,
    KeepBox,
    KeepFeature,
    Laplace,
    Occlude,
    SaltAndPepper,
    Scale,
    Superpose,
    Uniform,
)
from wobbliness.perturbations.base import Perturbation, Scratch, Stream, num_draws_of
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.reports.plot_style import BLUE, FIGURE_STYLE, RESOLUTION
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.matching import matched
from wobbliness.study.recipes import digits
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "perturbations.png"
NUM_CLEAN, NUM_OVERLAYS, NUM_COPIES, DRAWS = 100, 100, 6, 250


def perturbations(match: Any, overlays: Overlays) -> dict[str, Perturbation]:
    """One of each family by what it says of itself."""
    return {
        "Gaussian": match(Gaussian),
        "Uniform": match(Uniform),
        "Laplace": match(Laplace),
        "SaltAndPepper": match(SaltAndPepper),
        "KeepFeature": match(lambda level: KeepFeature(1 - level)),
        "Flow": match(Flow),
        "BoxNoise": match(BoxNoise, most=4.0),
        "BoxMix": BoxMix(overlays),
        "KeepBox": KeepBox(overlays),
        "CellMix": match(lambda level: CellMix(overlays, level, cells=4)),
        "Superpose": Superpose(overlays),
        "Superpose, sum": Superpose(overlays, mix="sum"),
        "Occlude": Occlude(0.5),
        "Scale": Scale(3, 5, 7, 9, 11),
        "Contrast": Contrast(0.75, 0.5, 0.4, 0.3, 0.15),
        "Blur": Blur(0.5, 0.75, 1, 1.5, 2),
        "Affine": match(lambda level: Affine(level, 180 * level, 0.9 * level)),
        "Elastic": match(lambda level: Elastic(level, width=2), most=64.0),
        "Corrupt": Corrupt("zoom-blur"),
    }


def copies(made: Perturbation, image: np.ndarray) -> np.ndarray:
    """Returns the first copies of an image."""
    draws = min(NUM_COPIES, num_draws_of(made) or NUM_COPIES)
    out = np.empty((draws, *image.shape), np.float32)
    made.copies(Stream(0, 1, scratch=Scratch()), image, draws, out)
    return out


def main() -> None:
    """Trains the network, matches the levels, and draws a row for each family."""
    recipe, data = digits(), load_data("digits")
    network = train_network(recipe.effect_networks[0], data, progress=ignore_progress).network
    clean = data.test.images[:NUM_CLEAN]
    overlays = Overlays(data.test.images[NUM_CLEAN : NUM_CLEAN + NUM_OVERLAYS])
    image = data.test.images[-4]
    made = perturbations(partial(matched, classifier=network, clean=clean), overlays)
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(9.2, 0.78 * len(made)), layout="constrained")
        ratios = [1.9] + [1] * (NUM_COPIES + 1) + [2.4]
        grid = figure.subplots(len(made), NUM_COPIES + 3, gridspec_kw={"width_ratios": ratios})
        for axes, (name, each) in zip(grid, made.items(), strict=True):
            votes = measure(network, image[None], each, DRAWS, progress=ignore_progress)
            title = each.name.rpartition("-")[0] if hasattr(each, "overlays") else each.name
            text = f"{name}\n{title}\nW = {votes.wobbliness[0]:.2f}"
            axes[0].text(0, 0.5, text, va="center", fontsize=7)
            pictures = [image, *copies(each, image)]
            for axis in axes[:-1]:
                axis.set_axis_off()
            for axis, picture in zip(axes[1:], pictures, strict=False):
                axis.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
            axes[-1].bar(range(10), votes.probabilities[0], color=BLUE)
            axes[-1].set(ylim=(0, 1), xticks=range(10), yticks=[])
            axes[-1].tick_params(labelsize=6, length=0)
        PICTURE.parent.mkdir(exist_ok=True)
        figure.savefig(PICTURE, dpi=RESOLUTION)
    print(PICTURE)


if __name__ == "__main__":
    main()
