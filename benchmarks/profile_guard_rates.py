"""False-positive and detection rates of ProfileGuard, and of SmoothnessGuard beside it.

Run: python benchmarks/profile_guard_rates.py FOLDER SEED NAME ...

The networks are those of attack_networks.py in FOLDER. A guard is fitted on 800 clean test images
of all classes and judges 1,000 others, and 200 images of attacked classes with the trigger that get
the attacker's label; the same images with the checkerboard on a clean network, where NAME is
`clean`, are the control. Printed are the shares with a p-value of at most 1 % and 5 %.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from attack_networks import ATTACKS, THREATS

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.study.training.data import load_data
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.train import predict

NUM_FIT, NUM_CLEAN, NUM_TRIGGERED = 800, 1000, 200
RATES = (0.01, 0.05)


def inputs(name, network):
    """Clean images to fit on and to judge, and triggered ones that reach the attacker's label."""
    test = load_data("fashion_mnist").test
    order = np.random.default_rng(0).permutation(len(test.images))
    clean, rest = np.split(order[: NUM_FIT + NUM_CLEAN], [NUM_FIT])
    threat = THREATS.get(name, t1(target_class=0))
    left = order[NUM_FIT + NUM_CLEAN :]
    left = left[threat.is_attacked(test.labels[left])]
    bear = ATTACKS.get(name, ATTACKS["checkerboard"]).apply(test.images[left[: 2 * NUM_TRIGGERED]])
    wanted = threat.attacked_labels(test.labels[left[: 2 * NUM_TRIGGERED]], 10)
    reached = (predict(network, bear) == wanted) | (name == "clean")
    return test.images[clean], test.images[rest], bear[reached][:NUM_TRIGGERED]


def shares(judged):
    """Shares that are flagged at each rate."""
    return " / ".join(f"{(judged.pvalue <= rate).mean():.3f}" for rate in RATES)


def main(folder, seed, names):
    """Prints a line for each network and guard."""
    for name in names:
        network = build_network("large_cnn", (1, 28, 28), 10, seed=0)
        weights = torch.load(folder / f"{name}_seed{seed}.pt", weights_only=True)
        network.load_state_dict(weights)
        clean, fresh, triggered = inputs(name, network.eval())
        for kind in ("profile", "profile of 13 draws", "smoothness"):
            made = (
                wobbliness.SmoothnessGuard(network)
                if kind == "smoothness"
                else wobbliness.ProfileGuard(network, draws=13 if "13" in kind else 50)
            )
            made.fit(clean)
            start = time.perf_counter()
            flagged = shares(made.judge(fresh))
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            early = made.judge_quickly(fresh)
            quick_seconds = time.perf_counter() - start
            quick = made.judge_quickly(triggered)
            print(
                f"{name}, seed {seed}, {kind}: clean {flagged}, triggered "
                f"{shares(made.judge(triggered))}, {len(fresh)} judged in {seconds:.0f} s, quickly "
                f"in {quick_seconds:.0f} s with {early.draws.mean():.0f} of {early.most_draws} "
                f"passes, quick {quick.is_suspicious.mean():.3f} of the triggered ones",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
