"""Speed of measuring W in `wobbliness bench`, compared with the baselines.

Every figure is a ratio of both sides in one run.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from wobbliness.bench import contenders
from wobbliness.bench.contenders import Contender
from wobbliness.bench.families import every_family
from wobbliness.perturbations.base import num_draws_of
from wobbliness.runtime.progress import Progress, progress_bar
from wobbliness.sampling.measure import measure
from wobbliness.sampling.sequential_test import decide, decide_as_measured
from wobbliness.study.recipes import digits
from wobbliness.study.training.data import load_data
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.train import train_network

NUM_CLASSES, DRAWS = 10, 250
SGEMM_SIZE = 2048
# image shape; images of one repeat of ours
NETWORKS: dict[str, tuple[tuple[int, int, int], int]] = {
    "small_cnn": ((1, 28, 28), 320),
    "large_cnn": ((1, 28, 28), 96),
    "resnet18_width16": ((3, 32, 32), 32),
    "resnet18": ((3, 32, 32), 4),
}
IMAGE_DIVISORS = {"loop": 16, "ART": 16, "bare": 2}  # these get so many times fewer images
DECISION_SIGMA = 0.3
FAMILY = "under "  # in front of the name of a perturbation that is timed


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Forward passes per second of one contender on one network.

    Attributes:
        contender: its name.
        per_second: of each repeat.
        peak_bytes: most memory above that of the process before; None where the system does not
            tell.
    """

    contender: str
    per_second: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Returns the median of the repeats."""
        return statistics.median(self.per_second)

    def ratio(self, other: "Rate") -> float:
        """Returns the median over the repeats of this rate / another one."""
        return statistics.median(
            a / b for a, b in zip(self.per_second, other.per_second, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """All contenders on one network, in turn in every repeat.

    Attributes:
        network: name of the architecture.
        flops: floating-point operations of one forward pass.
        rates: of the contenders; ours first.
        sgemm: floating-point operations per second of a large matrix product, in each repeat.
    """

    network: str
    flops: float
    rates: tuple[Rate, ...]
    sgemm: tuple[float, ...]

    def ratio(self, contender: str) -> float | None:
        """Returns the median over the repeats of ours / the contender's best setting.

        None where the contender was not run.
        """
        best = self._best(contender)
        return None if best is None else self.rates[0].ratio(best)

    def family_ratios(self) -> dict[str, float]:
        """Returns the medians of measuring under each perturbation / the bare forward pass."""
        bare = self._best("bare")
        return {
            rate.contender.removeprefix(FAMILY): rate.ratio(bare)
            for rate in self.rates
            if bare is not None and rate.contender.startswith(FAMILY)
        }

    def _best(self, contender: str) -> Rate | None:
        """Returns the best of a contender's settings by the median; None where it was not run."""
        # The comparison is with others at their best.
        others = (rate for rate in self.rates if rate.contender.startswith(contender))
        return max(others, key=lambda rate: rate.median, default=None)

    @property
    def sgemm_share(self) -> float:
        """Returns the share of the matrix product's rate that ours reaches.

        The rate is that of the whole measurement, end to end.
        """
        return statistics.median(
            a * self.flops / b for a, b in zip(self.rates[0].per_second, self.sgemm, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class DecisionResult:
    """Draws that sequential decisions save on the digits.

    Half of the points are clean, half bear the active trigger.

    Attributes:
        question: `true W` or `all draws`.
        threshold: nats, midway between the halves' medians.
        mean_draws: against the fixed 250.
        undecided: share of points.
        equal: share of the decided points whose decision is that of the 250 draws.
    """

    question: str
    threshold: float
    mean_draws: float
    undecided: float
    equal: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All that was measured, with the settings."""

    draws: int
    repeats: int
    device: str
    networks: tuple[NetworkResult, ...]
    decisions: tuple[DecisionResult, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Returns the benchmark as plain values for JSON."""
        return asdict(self)


def run_benchmark(
    networks: tuple[str, ...] = tuple(NETWORKS),
    *,
    repeats: int = 5,
    device: str = "cpu",
    scale: float = 1.0,
    families: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Times all contenders on each network, and counts the draws of sequential decisions.

    Args:
        networks: names of architectures.
        repeats: of each timing.
        device: where ours, the loop and the bare forward run.
        scale: of the number of images; below 1 for a quick run.
        families: whether to time measuring under each family of perturbations, too.
        progress: called with (steps done, steps in all), in place of a bar on the terminal.

    Raises:
        ValueError: an unknown network, or a number of repeats below 1.
    """
    _check_settings(networks, repeats)
    with progress_bar("benchmark", len(networks) * repeats, report=progress) as advance:
        results = tuple(
            _time_network(name, repeats, device, scale, advance, families=families)
            for name in networks
        )
    return Benchmark(
        draws=DRAWS,
        repeats=repeats,
        device=device,
        networks=results,
        decisions=tuple(_decisions(scale)),
    )


def _check_settings(networks: tuple[str, ...], repeats: int) -> None:
    unknown = set(networks) - set(NETWORKS)
    if unknown or not networks:
        raise ValueError(
            f"expected networks out of {', '.join(NETWORKS)}, got "
            f"{', '.join(sorted(unknown)) or 'none'}"
        )
    if repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {repeats}")


def _time_network(
    name: str,
    repeats: int,
    device: str,
    scale: float,
    advance: Callable[[int], None],
    *,
    families: bool,
) -> NetworkResult:
    shape, num_images = NETWORKS[name]
    network = build_network(name, shape, NUM_CLASSES, seed=0).eval()
    size = (max(2, round(num_images * scale)), *shape)
    images = np.random.default_rng(0).random(size, dtype=np.float32)
    made = {f"{FAMILY}{each.name}": each for each in every_family(shape)} if families else {}
    runs = {
        side: partial(run, _share_of(images, side)) for side, run in _contenders(network, device)
    } | {
        side: partial(contenders.ours(network, DRAWS, device="cpu", perturbation=each), images)
        for side, each in made.items()
    }
    # Of a family with a fixed number of draws no more are made.
    draws = {side: min(DRAWS, num_draws_of(each) or DRAWS) for side, each in made.items()}
    # also warms up
    peaks = {side: _peak_bytes(run) for side, run in runs.items()}
    seconds, products = _seconds_in_turn(runs, repeats, device, advance)
    return NetworkResult(
        network=name,
        flops=_flops(network, images[:1]),
        rates=tuple(
            Rate(
                contender=side,
                per_second=tuple(
                    len(_share_of(images, side)) * draws.get(side, DRAWS) / s for s in seconds[side]
                ),
                peak_bytes=peaks[side],
            )
            for side in runs
        ),
        sgemm=products,
    )


def _share_of(images: np.ndarray, side: str) -> np.ndarray:
    """Returns the images of one side: fewer for slow ones, at least two."""
    return images[: max(2, len(images) // IMAGE_DIVISORS.get(side.split()[0], 1))]


def _seconds_in_turn(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str,
    advance: Callable[[int], None],
) -> tuple[dict[str, list[float]], tuple[float, ...]]:
    """Times each side in each repeat; also returns a matrix product's operations per second."""
    product = contenders.sgemm(SGEMM_SIZE, device=device)
    seconds: dict[str, list[float]] = {side: [] for side in runs}
    products = []
    # in turn within each repeat: a slower minute of the machine slows all sides
    for _ in range(repeats):
        for side, run in runs.items():
            seconds[side].append(_seconds(run))
        products.append(2.0 * SGEMM_SIZE**3 / _seconds(product))
        advance(1)
    return seconds, tuple(products)


def _contenders(network: torch.nn.Module, device: str) -> Iterator[tuple[str, Contender]]:
    yield "ours", contenders.ours(network, DRAWS, device=device)
    yield "loop", contenders.smoothing_loop(network, DRAWS, device=device)
    # Several batch sizes each, since others' best size depends on network and machine.
    for batch_size in contenders.ART_BATCHES:
        try:
            yield (
                f"ART {batch_size}",
                contenders.art(network, DRAWS, batch_size=batch_size, device=device),
            )
        except ImportError:
            break
    for block_size in contenders.BARE_BLOCKS if device == "cpu" else (250, 1000, 4000, 16000):
        yield (
            f"bare {block_size}",
            contenders.bare_forward(network, DRAWS, block_size=block_size, device=device),
        )


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()  # all sides end on the host, so nothing is left running on a device
    return time.perf_counter() - started


def _peak_bytes(function: Callable[[], object]) -> int | None:
    """Returns the peak memory of a function call, above what the process held before.

    None except on Linux, where the kernel tells.
    """
    function()  # what is loaded or compiled once does not count
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        function()
        return None
    # writing 5 to clear_refs resets the peak (VmHWM) to the present size
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    # Lines such as `VmRSS:     1234 kB`.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def _flops(network: torch.nn.Module, image: np.ndarray) -> float:
    # Multiplications and additions count as two, as in the matrix product.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.from_numpy(image))
    return float(counter.get_total_flops())


def _decisions(scale: float) -> Iterator[DecisionResult]:
    network, images = _attacked_digits(scale)
    half = len(images) // 2
    w = measure(network, images, DECISION_SIGMA, draws=DRAWS).wobbliness
    # a threshold between the halves: most points are decided early
    threshold = float((np.median(w[:half]) + np.median(w[half:])) / 2)
    for question, answer in (("true W", decide), ("all draws", decide_as_measured)):
        found = answer(network, images, DECISION_SIGMA, threshold, max_draws=DRAWS)
        # The same draws, so a difference is the decision's own and no noise.
        same = found.is_below == (w < threshold)
        yield DecisionResult(
            question=question,
            threshold=threshold,
            mean_draws=float(found.draws.mean()),
            undecided=float(1 - found.is_decided.mean()),
            equal=float(same[found.is_decided].mean()),
        )


def _attacked_digits(scale: float) -> tuple[torch.nn.Module, np.ndarray]:
    """Returns a poisoned network and images, the second half of which bear its trigger."""
    spec, data = digits().effect_networks[0], load_data("digits")
    if spec.threat is None or spec.attack is None:
        raise AssertionError("the digits recipe poisons its effect networks")
    network = train_network(spec, data, progress=lambda *_: None).network
    attacked = data.test.images[spec.threat.is_attacked(data.test.labels)]
    images = attacked[: max(20, round(400 * scale))]
    half = len(images) // 2
    stamped = spec.attack.apply(images[half:])
    return network, np.concatenate([images[:half], stamped])
