"""The picture of the start page.

It shows one test image untouched, with an active and an inactive trigger, and what noise does to
it.

    python tools/start_picture.py        # writes docs/figures/start.png; half a minute
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wobbliness import image_keys, measure
from wobbliness.perturbations.noise.gaussian import NormalStream
from wobbliness.reports.plot_style import BLUE, FIGURE_STYLE, GREEN, ORANGE, RESOLUTION
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.votes import Votes
from wobbliness.study.recipes import digits
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import predict, train_network

PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "start.png"
SIGMA, NUM_POINTS, NUM_COPIES = 0.2, 100, 5


def main() -> None:
    """Trains the first network of C3, takes the test image of median W, and draws."""
    recipe, data = digits(), load_data("digits")
    spec = recipe.effect_networks[0]
    assert spec.attack is not None
    assert spec.threat is not None
    network = train_network(spec, data, progress=ignore_progress).network
    points = data.test.images[spec.threat.is_attacked(data.test.labels)][:NUM_POINTS]
    clean = measure(network, points, SIGMA, progress=ignore_progress).wobbliness
    image = points[np.argsort(clean)[NUM_POINTS // 2]][None]
    rows = {
        "as it is": (image, BLUE),
        f"with the trigger\nthat the network\nwas trained on\n({spec.attack.name})": (
            spec.attack.apply(image),
            ORANGE,
        ),
        f"with another\npattern\n({recipe.inactive_trigger})": (
            trigger(recipe.inactive_trigger).apply(image),
            GREEN,
        ),
    }
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        grid = figure.subplots(
            len(rows),
            NUM_COPIES + 2,
            gridspec_kw={"width_ratios": [1.25] + [1] * NUM_COPIES + [2.4]},
        )
        for axes, (name, (shown, colour)) in zip(grid, rows.items(), strict=True):
            noise = NormalStream(0, int(image_keys(shown)[0]), shown.shape[1:]).take(NUM_COPIES)
            noisy = (shown + SIGMA * noise).astype(np.float32)
            labels = predict(network, np.concatenate([shown, noisy]))
            for axis, picture, label in zip(axes, [shown[0], *noisy], labels, strict=False):
                axis.imshow(picture[0].clip(0, 1), cmap="gray", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[], title=f"“{label}”")
                axis.spines[:].set_visible(False)
            axes[0].set_ylabel(name, rotation=0, ha="right", va="center", color=colour)
            _draw_votes(axes[-1], measure(network, shown, SIGMA, progress=ignore_progress), colour)
        figure.savefig(PICTURE, dpi=RESOLUTION)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1024} KiB")


def _draw_votes(axis: matplotlib.axes.Axes, votes: Votes, colour: str) -> None:
    axis.bar(range(votes.counts.shape[1]), votes.counts[0], color=colour)
    axis.set(
        xticks=range(votes.counts.shape[1]),
        yticks=[],
        title=f"{votes.draws} noisy copies: W = {votes.wobbliness[0]:.2f} nats",
    )
    axis.tick_params(length=0)
    axis.spines["left"].set_visible(False)


if __name__ == "__main__":
    main()
