"""Group-sequential tests of whether W is below a threshold, with as few draws as decide it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers.execution import Execution
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.runtime.progress import Advance, Progress, progress_bar
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.checked_counting import contradiction, is_contradicted
from wobbliness.sampling.counting.checked_groups import CheckedGroups
from wobbliness.sampling.counting.low_precision import CHECKED, FLOAT32, open_low_precision
from wobbliness.sampling.gating import plans_of
from wobbliness.sampling.plan import Plan, Precision, Prepared, make_plan, require_endless
from wobbliness.sampling.sequential_sampling import GROUP_SIZE, Rules, Tally, sample_until_decided
from wobbliness.statistics.sequential import boundaries as stopping
from wobbliness.statistics.sequential import disagreement
from wobbliness.statistics.sequential.boundaries import Boundaries

# Of all draws, those that a sequential test is expected to make: whether low precision pays
# depends on it, and on no clock.
EXPECTED_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """Decision for each image whether W is below the threshold.

    Attributes:
        is_decided: `(N,)` False where `max_draws` did not decide it.
        is_below: `(N,)` W is below the threshold; False where undecided.
        draws: `(N,)` noisy copies that were classified.
        counts: `(N, K)` their votes.
        lower: `(N,)` nats, lower end of a one-sided confidence sequence of the true W at level `1 -
            error_rate`. It holds for any number of draws and is wider than what decides: that knows
            `max_draws`.
        upper: `(N,)` nats, the upper end of another one.
        threshold: nats, for all images or for each.
        sigma: standard deviation of the noise, pixel units of [0, 1].
        error_rate: probability of a wrong decision, for each image.
        max_draws: most draws of an image.
        seed: of the noise.
        keys: `(N,)` noise keys of the images.
        execution: how the forward passes were run.
        changed_votes: what an audit says of votes in checked low precision; None where all votes
            are those of float32.
    """

    is_decided: Bool[np.ndarray, " N"]
    is_below: Bool[np.ndarray, " N"]
    draws: Int[np.ndarray, " N"]
    counts: Int[np.ndarray, "N K"]
    lower: Float[np.ndarray, " N"]
    upper: Float[np.ndarray, " N"]
    threshold: float | Float[np.ndarray, " N"]
    sigma: float | None
    error_rate: float
    max_draws: int
    seed: int
    keys: UInt64[np.ndarray, " N"]
    execution: Execution
    changed_votes: ChangedVotes | None = None

    def __len__(self) -> int:
        return len(self.draws)


def decide(
    classifier: Any,
    images: Any,
    sigma: float | Perturbation,
    threshold: float | Float[np.ndarray, " N"],
    error_rate: float = 0.05,
    max_draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Decisions:
    """Decides whether the true W of each image is below a threshold.

    The true W is that of infinitely many draws. An image's draws end as soon as a sequential test
    decides it (see `wobbliness.statistics.sequential.boundaries`). Guarantee: for each image the
    probability of a wrong decision within `max_draws` is at most `error_rate`, whatever its W.

    >>> def left_or_right(images):
    ...     return (images[:, 0] > 0.5).astype(int)
    >>> decisions = decide(left_or_right, [[0.5], [0.9]], sigma=0.1, threshold=0.3, num_classes=2)
    >>> decisions.is_below.tolist(), decisions.draws.tolist()
    ([False, True], [15, 45])

    Args:
        classifier: as for `wobbliness.measure`.
        images: as for `wobbliness.measure`.
        sigma: standard deviation of the noise, pixel units of [0, 1].
        threshold: nats, above 0; one for all images, or `(N,)` one for each. With one for all, the
            test also tells disagreements with one class, the runner-up, from those with several
            (see `wobbliness.statistics.sequential.runner_up`): it takes a second to make, and
            decides more images.
        error_rate: in (0, 1).
        max_draws: after as many an image stays undecided.
        seed: of the noise; the draws are those of `measure` with this seed.
        keys: as for `wobbliness.measure`.
        block_size: copies classified at a time, of several images.
        workers: as for `wobbliness.measure`.
        num_classes: K; needed where the classifier gives labels only, since W depends on how many
            classes there may be.
        device: as for `wobbliness.measure`.
        precision: as for `wobbliness.measure`; `checked` pays only for many images, since copies by
            which low precision is calibrated count among no image's draws.
        progress: called with (images decided, images in all), in place of a bar on the terminal.

    Returns:
        Decisions. They do not depend on the order or company of the images, but for labels that a
        network's own rounding changes.

    Raises:
        ValueError: as for `measure`; a threshold or error rate out of range; K is not known.
    """
    plan = make_plan(
        classifier,
        images,
        [sigma],
        draws=max_draws,
        seed=seed,
        keys=keys,
        block_size=block_size,
        workers=workers,
        num_classes=num_classes,
        device=device,
        precision=precision,
    )
    require_endless(plan)
    (plan,) = plans_of(plan)
    checked = _check_rates(threshold, error_rate, plan)
    # One threshold for all images is worth the slower tables that split disagreements.
    boundaries = (
        stopping.true_boundaries if isinstance(checked, float) else stopping.plain_boundaries
    )
    return _decide(plan, boundaries, checked, error_rate, progress)


def decide_as_measured(
    classifier: Any,
    images: Any,
    sigma: float | Perturbation,
    threshold: float | Float[np.ndarray, " N"],
    error_rate: float = 0.05,
    max_draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Decisions:
    """Decides whether the W that `measure` would give is below a threshold: curtailed sampling.

    The W of all `max_draws` draws, for a detector whose threshold was calibrated at a fixed number
    of draws. Every image is decided. Guarantee: for each image, whatever its `max_draws` votes are,
    the probability over their random order of another decision than theirs is at most `error_rate`.
    That is the worst case over all sets of votes; on real ones far fewer decisions differ
    (EXPERIMENTS.md), so a larger rate than for `decide` may do.

    The arguments are those of `decide`.

    Raises:
        ValueError: as for `decide`.
    """
    plan = make_plan(
        classifier,
        images,
        [sigma],
        draws=max_draws,
        seed=seed,
        keys=keys,
        block_size=block_size,
        workers=workers,
        num_classes=num_classes,
        device=device,
        precision=precision,
    )
    require_endless(plan)
    (plan,) = plans_of(plan)
    return _decide(
        plan,
        stopping.curtailed_boundaries,
        _check_rates(threshold, error_rate, plan),
        error_rate,
        progress,
    )


def _check_rates(threshold: Any, error_rate: float, plan: Plan) -> float | Float[np.ndarray, " N"]:
    values = np.asarray(threshold, dtype=np.float64)
    # NaN fails both comparisons, so it is refused as well.
    if (
        values.shape not in ((), (len(plan.images),))
        or not ((values > 0) & (values < np.inf)).all()
    ):
        raise ValueError(
            "expected a threshold above 0 nats, one for all or one for each of "
            f"{len(plan.images)}, got {threshold}"
        )
    if not 0 < error_rate < 1:
        raise ValueError(f"expected an error rate between 0 and 1, got {error_rate}")
    return values if values.ndim else float(values)


def _decide(
    plan: Plan,
    boundaries: Callable[..., Boundaries],
    threshold: float | Float[np.ndarray, " N"],
    error_rate: float,
    progress: Progress | None,
) -> Decisions:
    def sample(prepared: Prepared) -> _Sampled:
        # Only a prepared classifier knows how many classes there are.
        rules = _rules(plan, boundaries, threshold, error_rate)
        with progress_bar("deciding", len(plan.images), report=progress) as advance:
            return _sample(plan, prepared, rules, advance)

    sampled = plan.run(sample)
    tally = sampled.tally
    # Undecided images have all their draws, which decide exactly.
    if boundaries is stopping.curtailed_boundaries:
        _decide_by_all_draws(tally, threshold, len(plan.span))
    lower, upper = _bounds(tally, error_rate)
    return Decisions(
        is_decided=tally.verdict >= 0,
        is_below=tally.verdict == 1,
        draws=tally.draws,
        counts=tally.counts,
        lower=lower,
        upper=upper,
        threshold=threshold,
        sigma=sigma_of(plan.perturbations[0]),
        error_rate=error_rate,
        max_draws=len(plan.span),
        seed=plan.seed,
        keys=plan.keys,
        execution=sampled.execution,
        changed_votes=sampled.changed_votes,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sampled:
    """Draws of all images, and how they were classified."""

    tally: Tally
    execution: Execution
    changed_votes: ChangedVotes | None = None


def _sample(plan: Plan, prepared: Prepared, rules: Rules, advance: Advance) -> _Sampled:
    """Draws in checked low precision where that is asked for, allowed and pays, else in float32."""
    if plan.precision == "float32":
        return _sample_in_float32(plan, prepared, rules, advance)
    num_copies = int(EXPECTED_SHARE * len(plan.images) * len(plan.span))
    low = open_low_precision(plan, prepared, num_copies=num_copies)
    if isinstance(low, str):
        return _sample_in_float32(plan, prepared, rules, advance, low)
    checked = CheckedGroups(prepared, low)
    tally = sample_until_decided(plan, prepared, rules, advance, checked)
    found = checked.changed_votes
    if is_contradicted(found):
        advance(-len(plan.images))
        return _sample_in_float32(plan, prepared, rules, advance, contradiction(found))
    execution = replace(prepared.execution, precision=CHECKED)
    return _Sampled(tally=tally, execution=execution, changed_votes=found)


def _sample_in_float32(
    plan: Plan, prepared: Prepared, rules: Rules, advance: Advance, reason: str | None = None
) -> _Sampled:
    tally = sample_until_decided(plan, prepared, rules, advance)
    precision = None if reason is None else FLOAT32.format(reason)
    return _Sampled(tally=tally, execution=replace(prepared.execution, precision=precision))


def _rules(
    plan: Plan,
    boundaries: Callable[..., Boundaries],
    threshold: float | Float[np.ndarray, " N"],
    error_rate: float,
) -> Rules:
    limits: dict[str, Any] = {
        "num_classes": _num_classes(plan),
        "error_rate": error_rate,
        "max_draws": len(plan.span),
        "group_size": GROUP_SIZE,
    }
    return Rules.of(lambda value: boundaries(value, **limits), threshold, len(plan.images))


def _bounds(
    tally: Tally, error_rate: float
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Computes the ends of the two confidence sequences of each image's true W."""
    limits: dict[str, Any] = {"num_classes": tally.counts.shape[1], "error_rate": error_rate}
    # The lower bound counts votes against the leading class; the upper one those against draw 1.
    against_leader = tally.draws - tally.counts.max(axis=1)
    of_first = np.take_along_axis(tally.counts, tally.first[:, None], axis=1)[:, 0]
    lower = disagreement.lower_bound(tally.draws, against_leader, **limits)
    upper = disagreement.upper_bound(tally.draws - 1, tally.draws - of_first, **limits)
    return lower, upper


def _num_classes(plan: Plan) -> int:
    if plan.classifier.num_classes is None:
        plan.classifier.classify(np.asarray(plan.images[:1], dtype=np.float32), 1)  # scores tell it
    if plan.classifier.num_classes is None:
        raise ValueError(
            "expected the number of classes (num_classes=) of a classifier that gives labels "
            "only, got none"
        )
    return plan.classifier.num_classes


def _decide_by_all_draws(
    tally: Tally, threshold: float | Float[np.ndarray, " N"], max_draws: int
) -> None:
    """Decides the images that were not decided before by the W of all their draws."""
    from wobbliness.statistics.entropy import plug_in_entropy

    # With all draws the plug-in W is known, so the decision is not a test any more.
    left = (tally.verdict < 0) & (tally.draws == max_draws)
    if left.any():
        tally.verdict[left] = (plug_in_entropy(tally.counts) < threshold)[left]
