"""Speed of measuring W in `wobbliness bench`, compared with the baselines.

Every figure is a ratio of both sides in one run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from wobbliness.bench import contenders
from wobbliness.bench.contenders import Contender
from wobbliness.bench.families import families_of
from wobbliness.bench.methods import methods_of
from wobbliness.bench.results import (
    BARE,
    CHECKED,
    FAMILY,
    LOOP,
    OURS,
    Benchmark,
    DecisionResult,
    NetworkResult,
    Rate,
)
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
SLOW_DIVISOR, BARE_DIVISOR = 16, 2  # these get so many times fewer images
DECISION_SIGMA = 0.3
# part of the passes of ours that each side of a detection method's comparison makes
METHOD_SHARE = 1 / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One side of a comparison: what it runs, on which images, with how many passes for each."""

    name: str
    contender: Contender
    images: np.ndarray
    draws: int = DRAWS

    def __call__(self) -> None:
        """Does its work once."""
        self.contender(self.images)

    def per_second(self, seconds: float) -> float:
        """Returns its forward passes per second."""
        return len(self.images) * self.draws / seconds


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
        device: where ours, also under each family, the loop and the bare forward run.
        scale: of the number of images; below 1 for a quick run.
        families: whether to time measuring under each family of perturbations, too.
        progress: called with (steps done, steps in all), in place of a bar on the terminal.

    Raises:
        ValueError: an unknown network, or a number of repeats below 1.
    """
    _check_settings(networks, repeats)
    rounds = len(networks) * repeats * (2 if families else 1)
    with progress_bar("benchmark", rounds, report=progress) as advance:
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
    num_images = max(2, round(num_images * scale))
    images = _random_images(num_images, shape)
    sides, precisions = list(_contenders(network, images, device)), list[str]()
    if device == "cpu":
        low = contenders.checked(network, DRAWS, precisions=precisions)
        sides.append(Side(name=CHECKED, contender=low, images=images))
    # also warms up
    peaks = [_peak_bytes(side) for side in sides]
    seconds, products = _seconds_in_turn(sides, repeats, device, advance)
    found = NetworkResult(
        network=name,
        flops=_flops(network, images[:1]),
        rates=tuple(
            Rate(
                contender=side.name,
                per_second=tuple(side.per_second(s) for s in own),
                peak_bytes=peak,
            )
            for side, own, peak in zip(sides, seconds, peaks, strict=True)
        ),
        sgemm=products,
        precision=precisions[-1] if precisions else None,
    )
    if not families:
        return found
    best = found.best(BARE)
    bare = next(side for side in sides if best is not None and side.name == best.contender)
    more = [*_family_sides(network, shape, num_images, device)]
    more += _methods(network, shape, num_images)
    return replace(found, rates=(*found.rates, *_rates_beside(bare, more, repeats, advance)))


def _random_images(num_images: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random((num_images, *shape), dtype=np.float32)


def _family_sides(
    network: torch.nn.Module, shape: tuple[int, ...], num_images: int, device: str
) -> Iterator[Side]:
    """Yields measuring under each family; of few draws, more images for as many passes."""
    for made in families_of(network, shape, device):
        draws = min(DRAWS, num_draws_of(made) or DRAWS)
        yield Side(
            name=f"{FAMILY}{made.name}",
            contender=contenders.ours(network, DRAWS, device=device, perturbation=made),
            images=_random_images(num_images * DRAWS // draws, shape),
            draws=draws,
        )


def _methods(network: torch.nn.Module, shape: tuple[int, ...], num_images: int) -> Iterator[Side]:
    """Yields both sides of each detection method, on the same images."""
    for method in methods_of(network):
        # About as many forward passes for each method, however many it makes for an image.
        size = max(2, round(METHOD_SHARE * num_images * DRAWS / method.passes))
        images = _random_images(size, shape)
        for suffix, make in ((OURS, method.ours), (LOOP, method.loop)):
            yield Side(
                name=f"{method.name}{suffix}",
                contender=make(network, shape),
                images=images,
                draws=method.passes,
            )


def _seconds_in_turn(
    sides: Sequence[Side], repeats: int, device: str, advance: Callable[[int], None]
) -> tuple[list[list[float]], tuple[float, ...]]:
    """Times each side in each repeat; also returns a matrix product's operations per second."""
    product = contenders.sgemm(SGEMM_SIZE, device=device)
    seconds: list[list[float]] = [[] for _ in sides]
    products = []
    # in turn within each repeat: a slower minute of the machine slows all sides
    for _ in range(repeats):
        for own, side in zip(seconds, sides, strict=True):
            own.append(_seconds(side))
        # A product of n x n matrices takes 2 n^3 operations.
        products.append(2.0 * SGEMM_SIZE**3 / _seconds(product))
        advance(1)
    return seconds, tuple(products)


def _rates_beside(
    bare: Side, sides: Sequence[Side], repeats: int, advance: Callable[[int], None]
) -> Iterator[Rate]:
    """Yields the rates of sides, each timed between two runs of the bare forward pass.

    A round of all families takes minutes, in which a machine may become slower.
    """
    peaks = [_peak_bytes(side) for side in sides]
    rates: list[list[float]] = [[] for _ in sides]
    beside: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        before = bare.per_second(_seconds(bare))
        for side, own, others in zip(sides, rates, beside, strict=True):
            own.append(side.per_second(_seconds(side)))
            after = bare.per_second(_seconds(bare))
            others.append((before + after) / 2)
            before = after
        advance(1)
    for side, own, others, peak in zip(sides, rates, beside, peaks, strict=True):
        yield Rate(
            contender=side.name,
            per_second=tuple(own),
            peak_bytes=peak,
            bare_beside=tuple(others),
        )


def _contenders(network: torch.nn.Module, images: np.ndarray, device: str) -> Iterator[Side]:
    yield Side(name="ours", contender=contenders.ours(network, DRAWS, device=device), images=images)
    # Fewer images for slow ones, at least two.
    fewer = images[: max(2, len(images) // SLOW_DIVISOR)]
    loop = contenders.smoothing_loop(network, DRAWS, device=device)
    yield Side(name="loop", contender=loop, images=fewer)
    # Several batch sizes each, since others' best size depends on network and machine.
    for batch_size in contenders.ART_BATCHES:
        try:
            art = contenders.art(network, DRAWS, batch_size=batch_size, device=device)
        # ART is optional; the others are compared without it.
        except ImportError:
            break
        yield Side(name=f"ART {batch_size}", contender=art, images=fewer)
    half = images[: max(2, len(images) // BARE_DIVISOR)]
    for size in contenders.BARE_BLOCKS if device == "cpu" else (250, 1000, 4000, 16000):
        bare = contenders.bare_forward(network, DRAWS, block_size=size, device=device)
        yield Side(name=f"{BARE} {size}", contender=bare, images=half)


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
    # The kernel's counters are not exact: the difference may come out below 0.
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
