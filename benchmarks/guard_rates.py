"""The guard's false-positive and detection rates beside those of the top softmax score.

On every network of a study one pool of test points is measured once: clean ones of all classes, and
others with the trigger (on a clean network: the checkerboard, as a control). Over 20 splits of the
clean ones the guard is fitted on two thirds and meets the rest. Detection counts triggered points
that get the attacker's label. The top score is calibrated by the same p-values, on all points that
the guard is fitted on; a high score is suspicious. Inside: splits whose false positives lie in the
central 95 % of what a guard of exactly the stated rate would give, binomial, and beta-binomial,
which also allows for the calibration set's own luck. Run: python benchmarks/guard_rates.py
runs/fashion-mnist [FOLDER_TO_KEEP_MEASUREMENTS_IN [NUM_NETWORKS_OF_A_KIND]]
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats

import wobbliness
from wobbliness.detectors.guards.smoothness_guard import DEFAULT_SIGMAS
from wobbliness.perturbations.base import image_keys
from wobbliness.statistics.conformal import (
    Reference,
    conformal_pvalues,
    num_flagged,
    score_limit,
    tie_breakers,
)
from wobbliness.statistics.two_sample import rate
from wobbliness.study.cells.base import spec_file
from wobbliness.study.records.record import read_recipe
from wobbliness.study.specs import cell_name
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network
from wobbliness.study.training.train import predict, top_scores

TRIGGERED, SHARE_FIT, SPLITS, RATES, DRAWS = 250, 2 / 3, 20, (0.01, 0.05), 250
MOST_CLEAN = 750
TINY = 1e-9  # below the resolution of float32 near 1


def networks(recipe, most):
    """Each network of the study once, at most so many of a threat model and trigger."""
    fields = ("effect_networks", "class_networks", "detection_networks", "strength_networks")
    seen = Counter()
    for spec in dict.fromkeys(spec for field in fields for spec in getattr(recipe, field)):
        kind = (spec.architecture, spec.threat, spec.trigger)
        seen[kind] += 1
        if seen[kind] <= most:
            yield spec


def pool(spec):
    """Clean and triggered images, and whether a label is what the attacker wants of the latter."""
    test = load_data(spec.dataset).test
    order = np.random.default_rng(0).permutation(len(test.labels))
    num_triggered = min(TRIGGERED, len(order) // 4)
    clean, rest = order[: min(MOST_CLEAN, len(order) - num_triggered)], order[-num_triggered:]
    if spec.threat is not None:
        rest = rest[spec.threat.is_attacked(test.labels[rest])]
    wanted = (
        None
        if spec.threat is None
        else spec.threat.attacked_labels(test.labels[rest], test.num_classes)
    )
    stamped = wobbliness.trigger(spec.trigger or "checkerboard").apply(test.images[rest])
    return test.images[clean], stamped, wanted


def measured(network, images, kept):
    """W at each sigma, labels, top scores: from the file if it is there."""
    if kept is None or not kept.is_file():
        sweep = wobbliness.sweep(network, images, DEFAULT_SIGMAS, draws=DRAWS)
        found = {
            "w": np.stack([votes.wobbliness for votes in sweep.votes]),
            "label": predict(network, images),
            "top": top_scores(network, images).astype(np.float64),
            "tie": tie_breakers(image_keys(images), 0),
        }
        if kept is None:
            return found
        np.savez(kept, **found)
    with np.load(kept) as file:
        return dict(file)


def part(found, points):
    return {name: values[..., points] for name, values in found.items()}


def fitted(found, points):
    """As `SmoothnessGuard.fit` does: half reference, half calibration."""
    first, second = part(found, points[: len(points) // 2]), part(found, points[len(points) // 2 :])
    reference = Reference(wobbliness=first["w"], label=first["label"])
    return reference, np.sort(reference.scores(second["w"], second["label"], second["tie"]))


def pvalues(found, fit, points):
    """Of the guard and of the top score."""
    reference, calibration = fitted(found, fit)
    new, scores = part(found, points), TINY * found["tie"] - found["top"]
    guard = conformal_pvalues(reference.scores(new["w"], new["label"], new["tie"]), calibration)
    return guard, conformal_pvalues(scores[points], np.sort(scores[fit]))


def central(counts, law):
    return sum(law.ppf(0.025) <= count <= law.ppf(0.975) for count in counts)


def report(found, num_clean, works, num_fit):
    """Prints rates over the splits; the detection rate's spread is that over the splits."""
    splits = [np.random.default_rng(seed).permutation(num_clean) for seed in range(SPLITS)]
    triggered = np.arange(num_clean, len(found["tie"]))
    fresh = [pvalues(found, order[:num_fit], order[num_fit:]) for order in splits]
    active = [pvalues(found, order[:num_fit], triggered[works]) for order in splits]
    num_fresh, num_calibration = num_clean - num_fit, num_fit - num_fit // 2
    for stated in RATES:
        for index, name in enumerate(("guard", "top score")):
            counts = [int((pair[index] <= stated).sum()) for pair in fresh]
            detected = np.array([(pair[index] <= stated).mean() for pair in active])
            size = num_calibration if index == 0 else num_fit
            flagged = num_flagged(size, stated)
            law = (
                stats.betabinom(num_fresh, flagged, size + 1 - flagged)
                if flagged
                else stats.binom(num_fresh, 0.0)
            )
            pooled = rate(sum(counts), num_fresh * SPLITS)
            print(
                f"  stated {stated:.0%} {name:<9} false positives {pooled.estimate:6.2%} "
                f"[{pooled.lower:.2%}, {pooled.upper:.2%}]"
                f"  inside {central(counts, stats.binom(num_fresh, stated)):>2} / "
                f"{central(counts, law):>2} of {SPLITS}  detected {detected.mean():6.1%} "
                f"(splits {detected.min():.0%} to {detected.max():.0%})",
                flush=True,
            )


def report_draws(network, found, images, num_clean, num_fit):
    """Prints the draws of early verdicts, and how many verdicts differ from those of all draws.

    Fresh clean points and triggered points are reported apart.
    """
    order = np.random.default_rng(0).permutation(num_clean)
    guard = wobbliness.SmoothnessGuard(network, draws=DRAWS, false_positive_rate=RATES[-1])
    guard.image_shape_, guard.n_features_in_ = images.shape[1:], images.shape[1]
    guard.reference_, guard.calibration_ = fitted(found, order[:num_fit])
    guard.offset_ = score_limit(guard.calibration_, guard.false_positive_rate)
    for name, points in (
        ("clean", order[num_fit:]),
        ("triggered", np.arange(num_clean, len(images))),
    ):
        quick, new = guard.judge_quickly(images[points]), part(found, points)
        full = guard.reference_.scores(new["w"], new["label"], new["tie"]) < guard.offset_
        print(
            f"  {name}: {quick.draws.mean():.0f} draws on average of {quick.most_draws} "
            f"({quick.draws.mean() / quick.most_draws:.0%}), "
            f"{(quick.is_suspicious != full).mean():.2%} verdicts differ"
        )


def main(folder, keep=None, most=99):
    for spec in networks(read_recipe(folder), most):
        network = load_network(spec_file(folder, spec))
        clean, stamped, wanted = pool(spec)
        images = np.concatenate([clean, stamped])
        found = measured(network, images, keep and keep / f"guard-{cell_name(spec)}.npz")
        works = (
            np.ones(len(stamped), bool)
            if wanted is None
            else found["label"][len(clean) :] == wanted
        )
        num_fit = round(SHARE_FIT * len(clean))
        threat = f"{spec.threat.name} {spec.attack.name}" if spec.threat else "clean network"
        print(
            f"{spec.architecture} {threat} seed {spec.seed}: "
            f"{num_fit} clean to fit, {len(clean) - num_fit} fresh, "
            f"{len(stamped)} triggered, on {works.mean():.0%} of which it works"
        )
        if works.any():
            report(found, len(clean), works, num_fit)
            report_draws(network, found, images, len(clean), num_fit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]), *map(int, sys.argv[3:4]))
