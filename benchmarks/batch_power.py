"""Power of the batch tests by size of the batch and share of triggered inputs.

Run: python benchmarks/batch_power.py STUDY FOLDER KEEP

The networks are those of X4 of the study `noises` in STUDY, and those of attack_networks.py in
FOLDER. Votes of pools of test points are measured once and kept in KEEP: clean ones of all classes,
points of attacked classes with the network's trigger, and others with a pattern that it was not
trained on. Then 100 random pairs of batches are compared: 200 clean inputs, 40 of them to mix with,
against a suspect batch of which a share, but at least one input, is triggered, and the rest clean.

Printed are shares of pairs with p at most 1 % for 5, 10, 25 and 50 suspect inputs: smoother under
noise alone, under box mix alone, in the verdict of `compare_batches` (both, by Holm's correction;
it refuses fewer than 8 inputs), and by the permutation test of `compare_destinations`.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from attack_networks import ATTACKS, THREATS

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.detectors.batches.batch_test import DEFAULT_SIGMAS, MIN_POINTS
from wobbliness.detectors.inputs.noise_level import choose_sigma
from wobbliness.perturbations import BoxMix
from wobbliness.statistics.destinations import destination_test
from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.statistics.holm import holm_pvalues
from wobbliness.statistics.two_sample import mann_whitney_test
from wobbliness.study.cells.base import spec_file
from wobbliness.study.records.record import read_recipe
from wobbliness.study.training.data import load_data
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.saved_networks import load_network

NUM_OVERLAYS, NUM_CLEAN, NUM_PATTERN, DRAWS = 40, 400, 100, 50
NUM_PAIRS, NUM_PERMUTATIONS, LEVEL, NUM_COMPARED = 100, 199, 0.01, 160
SIZES, SHARES = (5, 10, 25, 50), (0, 0.05, 0.2, 1)
TESTS = ("noise", "box mix", "both", "destinations")
READ = (4, 6, 7)  # of the destinations: sigma 0.2 and 0.4, and box mix
NAMES = ("all_to_all_seed1", "sinusoid_seed1")
UNTRAINED = wobbliness.trigger("square")


def networks(study, folder):
    """Yields name, network, threat model and trigger of each network."""
    for spec in read_recipe(study).noise_networks:
        threat = "clean" if spec.threat is None else spec.threat.name
        own = None if spec.attack is None else spec.attack
        name = f"{threat}, {'none' if own is None else own.name}, seed {spec.seed}"
        yield name, load_network(spec_file(study, spec)), spec.threat, own
    for name in NAMES:
        kind = name.rpartition("_")[0]
        network = build_network("large_cnn", (1, 28, 28), 10, seed=0)
        network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        threat = THREATS.get(kind, t1(target_class=0))
        full = f"{threat.name}, {ATTACKS[kind].name}, seed {name[-1]}"
        yield full, network.eval(), threat, ATTACKS[kind]


def pools(network, threat, own):
    """Returns votes and clean predictions of overlays, clean points and those with patterns."""
    test = load_data("fashion_mnist").test
    order = np.random.default_rng(1).permutation(len(test.labels))
    overlays, clean, rest = np.split(order, [NUM_OVERLAYS, NUM_OVERLAYS + NUM_CLEAN])
    if threat is not None:
        rest = rest[threat.is_attacked(test.labels[rest])]
    first, second = rest[:NUM_PATTERN], rest[NUM_PATTERN : 2 * NUM_PATTERN]
    bear = {"clean": test.images[clean], "untrained": UNTRAINED.apply(test.images[first])}
    if own is not None:
        bear["triggered"] = own.apply(test.images[second])
    made = [*DEFAULT_SIGMAS, 0.4, BoxMix(test.images[overlays])]
    settings = {"draws": DRAWS, "workers": 1, "keep_clean": True, "num_classes": 10}
    found = {
        kind: wobbliness.sweep(network, images, made, **settings) for kind, images in bear.items()
    }
    found["overlays"] = wobbliness.sweep(
        network, test.images[overlays], [*DEFAULT_SIGMAS, 0.4], **settings
    )
    return {
        f"{kind} {what}": value
        for kind, sweep in found.items()
        for what, value in {
            "counts": np.stack([votes.counts for votes in sweep.votes]),
            "label": sweep.votes[0].clean_label,
        }.items()
    }


def kept_pools(name, network, threat, own, keep):
    """The pools, from the file if it is there."""
    path = keep / f"{name.replace(', ', '-')}.npz"
    if not path.is_file():
        np.savez_compressed(path, **pools(network, threat, own))
    return dict(np.load(path))


def pvalues(found, kind, clean, suspect_clean, bearing, seed):
    """P-values of each test of a suspect batch: some clean points, and some with a pattern."""
    counts, label = (
        np.concatenate(
            [
                np.take(found[f"clean {what}"], clean, axis=axis),
                np.take(found[f"clean {what}"], suspect_clean, axis=axis),
                np.take(found[f"{kind} {what}"], bearing, axis=axis),
            ],
            axis=axis,
        )
        for what, axis in (("counts", 1), ("label", 0))
    )
    is_suspect = np.arange(len(label)) >= len(clean)
    read = destination_test(
        counts[READ, :], label, is_suspect, num_permutations=NUM_PERMUTATIONS, seed=seed
    )
    if is_suspect.sum() < MIN_POINTS:
        return {"destinations": read.pvalue}
    w = plug_in_entropy(counts)
    sigma, compared = chosen_sigma(found, clean, int(is_suspect.sum()))
    noise = mann_whitney_test(w[sigma][compared], w[sigma][is_suspect]).pvalue
    mixed = mann_whitney_test(w[-1][~is_suspect], w[-1][is_suspect]).pvalue
    both = holm_pvalues([noise, mixed]).min()
    return dict(zip(TESTS, (noise, mixed, both, read.pvalue), strict=True))


def chosen_sigma(found, clean, size):
    """Place of the sigma that 40 overlays and 60 clean points choose, and the 100 others' rows."""
    compared, rest = np.split(np.arange(len(clean)), [(len(clean) + NUM_OVERLAYS) // 2])
    for_choice = [found["overlays counts"], found["clean counts"][:-1, clean[rest]]]
    w = plug_in_entropy(np.concatenate(for_choice, axis=1))
    by_sigma = {sigma: w[place] for place, sigma in enumerate(DEFAULT_SIGMAS)}
    choice = choose_sigma(by_sigma, batch_size=min(len(compared), size))
    return DEFAULT_SIGMAS.index(choice.sigma), compared


def rates(found, kind, share):
    """Share of pairs that each test finds, by test, for each size in turn."""
    rows = defaultdict(list)
    for size in SIZES:
        num_bearing = max(1, round(share * size)) if share else 0
        rng, hits = np.random.default_rng(size), defaultdict(int)
        for seed in range(NUM_PAIRS):
            order = rng.permutation(NUM_CLEAN)[: NUM_COMPARED + size - num_bearing]
            clean, suspect = np.split(order, [NUM_COMPARED])
            bearing = rng.permutation(NUM_PATTERN)[:num_bearing]
            for test, pvalue in pvalues(found, kind, clean, suspect, bearing, seed).items():
                hits[test] += pvalue <= LEVEL
        for test in TESTS:
            rows[test].append(f"{hits[test] / NUM_PAIRS:.2f}" if test in hits else "-")
    return [" / ".join(rows[test]) for test in TESTS]


def print_rates(name, found):
    """Prints a row for each share of triggered inputs, and one for the untrained pattern."""
    kinds = [("untrained", share) for share in SHARES[:1]]
    kinds += [("triggered", share) for share in SHARES[1:] if "triggered counts" in found]
    for kind, share in [*kinds, ("untrained", 1)]:
        what = f"{kind} {share:.0%}" if share else "clean"
        print(f"| {name} | {what} | {' | '.join(rates(found, kind, share))} |", flush=True)


if __name__ == "__main__":
    study, folder, keep = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    print(f"| network | suspects | {' | '.join(TESTS)} |\n|{'---|' * (2 + len(TESTS))}")
    for name, network, threat, own in networks(study, folder):
        print_rates(name, kept_pools(name, network, threat, own, keep))
