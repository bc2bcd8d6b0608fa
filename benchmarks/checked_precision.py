"""Checked low precision against float32: changed votes, W and speed, on a network trained here.

First what changed, around clean images and ones with an active trigger: votes, the audit's bound,
the share of copies below the margin, and W. Then, in each repeat in turn: `sweep` in float32,
`sweep` in checked low precision, and the bare compiled forward pass in blocks of 25 and 50, all on
every core; medians of the ratios.

On a processor without dot products of 8-bit integers checked votes are those of float32; with
--assume-dot-products they are cast as if it had them, which tells what changes, not how fast it is.
Likewise --assume-cost stands for the estimate from the sizes of a network's steps.

Run: python benchmarks/checked_precision.py --dataset digits --network small_cnn --epochs 20
     [--images 600] [--draws 250] [--repeats 5] [--assume-dot-products] [--assume-cost 0.3]
"""

import argparse
import math
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wobbliness.attacks.patch import trigger
from wobbliness.attacks.poisoning import t1
from wobbliness.bench.contenders import bare_forward
from wobbliness.classifiers.compile import processor, quantised
from wobbliness.runtime.progress import ignore_progress
from wobbliness.runtime.threads import num_cores
from wobbliness.sampling.counting.low_precision import CONFIDENCE, MAX_CHANGED
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.votes import Sweep, Votes
from wobbliness.statistics.tolerance import values_needed
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import predict, train_network

SIGMAS, TARGET, TRIGGER, BLOCKS = (0.1, 0.2), 1, "dot", (25, 50)


def processor_name() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else "unknown processor"


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def timed(network: object, images: np.ndarray, options: argparse.Namespace) -> None:
    """Prints the medians of the ratios, both sides of each in one repeat."""
    settings = {"draws": options.draws, "progress": ignore_progress}
    sides: dict[str, Callable[[], object]] = {
        "float32": lambda: sweep(network, images, SIGMAS, **settings),
        "checked": lambda: sweep(network, images, SIGMAS, precision="checked", **settings),
    }
    draws = options.draws * len(SIGMAS)
    for size in BLOCKS:
        bare = bare_forward(network, draws, block_size=size, device="cpu")
        sides[f"bare {size}"] = lambda bare=bare: bare(images)
    for work in sides.values():
        work()  # what is compiled once does not count
    rounds = [{name: seconds(work) for name, work in sides.items()} for _ in range(options.repeats)]
    best = min(
        (name for name in sides if name.startswith("bare")),
        key=lambda name: statistics.median(each[name] for each in rounds),
    )
    for above, below in (("checked", "float32"), ("checked", best), ("float32", best)):
        ratio = statistics.median(each[below] / each[above] for each in rounds)
        print(f"  {above} / {below}: {ratio:.2f}")


def compared(plain: Votes, checked: Votes) -> str:
    changed, num_votes = checked.changed_votes, int(plain.counts.sum())
    differ = int(np.abs(plain.counts - checked.counts).sum()) // 2
    w = np.abs(plain.wobbliness - checked.wobbliness).mean()
    if changed is None:
        return f"{checked.execution.precision}; {differ} votes differ"
    num_known = len(plain) * math.ceil(values_needed(MAX_CHANGED, CONFIDENCE) / len(plain))
    below = 1 - changed.num_low / (num_votes - num_known)
    return (
        f"{differ} of {num_votes} votes differ ({differ / num_votes:.1e}), at most "
        f"{changed.upper_bound():.1e} by the audit ({changed.num_changed} of "
        f"{changed.num_audited}), {below:.1%} of the copies that did not calibrate below the "
        f"margin, mean |W - W'| {w:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--assume-dot-products", action="store_true")
    parser.add_argument("--assume-cost", type=float)
    options = parser.parse_args()
    has_dots = processor.has_int8_dot_products()
    print(
        f"{processor_name()}, {num_cores()} cores, "
        f"{'with' if has_dots else 'without'} dot products of 8-bit integers"
        f"{'; they are assumed' if options.assume_dot_products else ''}"
        f"{'' if options.assume_cost is None else f'; cost {options.assume_cost} is assumed'}"
    )
    if options.assume_dot_products:
        processor.has_int8_dot_products = lambda: True
    if options.assume_cost is not None:
        quantised.relative_cost = lambda _: options.assume_cost
    data = load_data(options.dataset)
    spec = NetworkSpec(
        dataset=options.dataset,
        architecture=options.network,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        threat=t1(TARGET),
        trigger=TRIGGER,
        seed=0,
    )
    network = train_network(spec, data, progress=ignore_progress).network.eval()
    images, labels = data.test.images[: options.images], data.test.labels[: options.images]
    accuracy = (predict(network, images) == labels).mean()
    print(f"{options.network} on {options.dataset}, accuracy {accuracy:.3f}, {len(images)} images")
    active = trigger(TRIGGER).apply(images)
    for name, inputs in (("clean", images), ("active trigger", active)):
        both: list[Sweep] = [
            sweep(network, inputs, SIGMAS, draws=options.draws, precision=precision)
            for precision in ("float32", "checked")
        ]
        for sigma in SIGMAS:
            print(f"  {name}, sigma {sigma:g}: {compared(both[0][sigma], both[1][sigma])}")
    if options.repeats:
        timed(network, images, options)


if __name__ == "__main__":
    main()
