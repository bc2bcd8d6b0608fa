"""Neural Cleanse: records, shrinking masks, a planted backdoor and a clean network."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from wobbliness.attacks.gradients.frozen_network import NoGradients
from wobbliness.attacks.universal_perturbation import craft_universal_perturbation
from wobbliness.detectors.reverse_engineering.candidates import Candidates, anomaly_index
from wobbliness.detectors.reverse_engineering.cost_schedule import CostSchedule
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.recipes import digits as digits_recipe

THRESHOLD, TARGET = 0.99, 5
SHORT = {"num_classes": 10, "restarts": 1, "max_steps": 12, "progress": ignore_progress}


class Constant(nn.Module):
    """Class 0, whatever the image; the scores move a little, but never as far as another class."""

    def forward(self, images):
        return images.new_tensor([1.0, 0.0, 0.0]) + 1e-3 * images.flatten(1)[:, :3]


class Contiguous(nn.Module):
    """Flattens by `view`, which features in channels-last cannot do."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.logits = nn.Linear(4 * 6 * 6, 3)

    def forward(self, images):
        features = self.features(images)
        return self.logits(features.view(len(images), -1))


# as published, in one piece
def scalar_schedule(success_rates, norms, *, initial_cost, threshold, patience):  # noqa: C901
    """The published rule (`visualizer.py`) for one candidate: costs by step, and the last step."""
    cost, best, early_best = 0.0, math.inf, math.inf
    set_counter = up_counter = down_counter = early_counter = 0
    went_up = went_down = False
    costs = []
    for step, (rate, norm) in enumerate(zip(success_rates, norms, strict=True)):
        if rate >= threshold and norm < best:
            best = norm
        if best < math.inf:
            early_counter = early_counter + 1 if best >= 0.99 * early_best else 0
        early_best = min(best, early_best)
        if went_down and went_up and early_counter >= 5 * patience:
            return costs, step
        if cost == 0 and rate >= threshold:
            set_counter += 1
            if set_counter >= patience:
                cost, up_counter, down_counter, went_up, went_down = (
                    initial_cost,
                    0,
                    0,
                    False,
                    False,
                )
        else:
            set_counter = 0
        if rate >= threshold:
            up_counter, down_counter = up_counter + 1, 0
        else:
            up_counter, down_counter = 0, down_counter + 1
        if up_counter >= patience:
            up_counter, cost, went_up = 0, cost * 2, True
        elif down_counter >= patience:
            down_counter, cost, went_down = 0, cost / 2**1.5, True
        costs.append(cost)
    return costs, None


@pytest.fixture(scope="module")
def clean_images(digits):
    return digits.train.images[:256]


@pytest.fixture(scope="module")
def backdoored(trained):
    return trained(digits_recipe().effect_networks[0])


@pytest.fixture(scope="module")
def found(backdoored, clean_images):
    return craft_candidates(
        backdoored, clean_images, num_classes=10, restarts=2, max_steps=50, progress=ignore_progress
    )


@pytest.fixture(scope="module")
def found_on_clean(trained, clean_images):
    network = trained(digits_recipe().parameter_networks[0])
    return craft_candidates(
        network, clean_images, num_classes=10, restarts=2, max_steps=50, progress=ignore_progress
    )


def pairs(candidates):
    return [
        pair
        for pair in zip(candidates.first, candidates.smallest, strict=True)
        if pair[0] is not None
    ]


def all_of(candidates):
    return [candidate for pair in pairs(candidates) for candidate in pair]


def test_recorded_success_is_that_of_the_trigger_in_float32(backdoored, found, clean_images):
    assert len(pairs(found)) == 10
    for candidate in all_of(found):
        with torch.inference_mode():
            named = (
                backdoored(torch.from_numpy(candidate.trigger().apply(clean_images)))
                .argmax(dim=1)
                .numpy()
            )
        assert candidate.success_rate == (named == candidate.target_class).mean() >= THRESHOLD


def test_triggers_are_images_of_their_own_class(found):
    for target, pair in enumerate(zip(found.first, found.smallest, strict=True)):
        for candidate in pair:
            assert candidate.target_class == target
            assert candidate.trigger().name == f"candidate {target}"
            for values in (candidate.mask, candidate.pattern):
                assert values.dtype == np.float32
                assert values.min() >= 0
                assert values.max() <= 1
            assert candidate.mask_l1 == pytest.approx(candidate.mask.sum(), rel=1e-5)


def test_masks_shrink(found):
    for first, smallest in pairs(found):
        assert smallest.mask_l1 < first.mask_l1 / 2
        assert smallest.num_steps > first.num_steps


def test_the_planted_target_has_the_smallest_mask(found):
    norms = np.array([candidate.mask_l1 for candidate in found.smallest])
    assert norms.argmin() == TARGET
    assert norms[TARGET] < 0.8 * np.delete(norms, TARGET).min()


def test_a_clean_network_has_no_such_mask(found_on_clean):
    norms = np.array([candidate.mask_l1 for candidate in found_on_clean.smallest])
    assert norms[TARGET] > 0.8 * np.delete(norms, TARGET).min()
    assert found_on_clean.flagged == ()


@pytest.mark.parametrize("share_above", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_schedule_is_the_published_one(share_above, patience):
    rng = np.random.default_rng(0)
    num_candidates, num_steps = 20, 200
    runs = rng.random((num_steps // 5, num_candidates)) < share_above
    rates = np.where(
        np.repeat(runs, 5, axis=0) ^ (rng.random((num_steps, num_candidates)) < 0.05), 1.0, 0.9
    )
    norms = 50 * np.exp(-np.arange(num_steps)[:, None] / 30) + rng.random(
        (num_steps, num_candidates)
    )
    schedule = CostSchedule(
        num_candidates, initial_cost=1e-3, success_threshold=THRESHOLD, patience=patience
    )
    costs, stopped = [], []
    for step in range(num_steps):
        was_stopped = schedule.stopped
        hits = schedule.update(rates[step], norms[step])
        np.testing.assert_array_equal(hits, (rates[step] >= THRESHOLD) & ~was_stopped)
        costs.append(schedule.costs)
        stopped.append(schedule.stopped)
    for number in range(num_candidates):
        expected, end = scalar_schedule(
            rates[:, number],
            norms[:, number],
            initial_cost=1e-3,
            threshold=THRESHOLD,
            patience=patience,
        )
        np.testing.assert_allclose(np.array(costs)[: len(expected), number], expected, rtol=1e-12)
        ends = np.flatnonzero(np.array(stopped)[:, number])
        assert (ends[0] if len(ends) else None) == end


def test_cost_leaves_zero_and_rises_after_success_alone():
    schedule = CostSchedule(2, initial_cost=1e-3, success_threshold=THRESHOLD, patience=5)
    for _ in range(14):
        schedule.update(np.array([1.0, 0.5]), np.array([10.0, 10.0]))
    np.testing.assert_allclose(schedule.costs, [4e-3, 0])


def test_what_is_never_reached_is_a_failure(clean_images):
    found = craft_candidates(
        Constant(), clean_images, num_classes=3, restarts=2, max_steps=30, progress=ignore_progress
    )
    assert found.failures == (1, 2)
    assert found.first[1:] == found.smallest[1:] == (None, None)
    assert found.smallest[0].success_rate == 1
    assert np.isnan(found.anomaly_index).all()
    assert found.flagged == ()


class Stopped(nn.Module):
    """A linear network; what comes after it decides whether gradients go through."""

    def __init__(self, stop):
        super().__init__()
        self.linear, self.stop = nn.Linear(64, 3), stop

    def forward(self, images):
        return self.stop(self.linear(images.flatten(1)))


def without_gradients(network):
    network.forward = torch.no_grad()(network.forward)
    return network


NO_GRADIENTS = {
    "no_grad": lambda: without_gradients(Stopped(nn.Identity())),
    "detached": lambda: Stopped(lambda scores: scores.detach()),
    "through numpy": lambda: Stopped(lambda scores: torch.from_numpy(scores.detach().numpy())),
    "numpy in earnest": lambda: Stopped(lambda scores: torch.from_numpy(scores.numpy())),
    "rounded": lambda: Stopped(lambda scores: (255 * scores).round() / 255),
    "saturated": lambda: Stopped(lambda scores: (1000 * (scores + 10)).sigmoid()),
    "constant": lambda: Stopped(
        lambda scores: scores.new_tensor([1.0, 0.0, 0.0]).expand(len(scores), 3)
    ),
    "not a number": lambda: Stopped(lambda scores: (scores * 0).sqrt() * 0 + 1),
}


@pytest.mark.parametrize("name", NO_GRADIENTS)
def test_a_network_without_gradients_is_refused(name, clean_images):
    """Not reported as one in which nothing was found."""
    for craft in (
        lambda network: craft_candidates(network, clean_images, **SHORT | {"num_classes": 3}),
        lambda network: craft_universal_perturbation(
            network, clean_images, norm=math.inf, bound=0.1, progress=ignore_progress
        ),
    ):
        with pytest.raises(
            NoGradients,
            match=r"^expected a network with gradients for its images, got one without: ",
        ):
            craft(NO_GRADIENTS[name]())


def test_gradients_for_some_images_or_classes_are_enough(clean_images):
    """Control of the test above: straight through for bright corners alone, or for one class."""
    bright = Stopped(lambda scores: torch.where(scores >= scores.max(), scores, scores.detach()))
    assert craft_candidates(bright, clean_images, **SHORT | {"num_classes": 3}).classes == (0, 1, 2)


NOT_FINITE = {
    "root of 0": lambda scores: scores + (scores * 0).sqrt(),
    "root of 0 for some images": lambda scores: scores + (scores - scores.amax()).abs().sqrt(),
    "infinite": lambda scores: scores + (scores - scores.detach()).sqrt(),
    "NaN scores": lambda scores: torch.where(scores == scores.amax(), torch.nan, scores),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_gradients_that_are_not_finite_are_named(name, clean_images):
    network = Stopped(NOT_FINITE[name])
    with pytest.raises(
        NoGradients,
        match=r"got one without: some are not finite \(NaN or infinite\); nothing can be crafted$",
    ):
        craft_candidates(network, clean_images, **SHORT | {"num_classes": 3})
    with pytest.raises(ValueError, match=r"not finite|expected scores that are numbers, got NaN"):
        craft_universal_perturbation(
            network, clean_images, norm=math.inf, bound=0.1, progress=ignore_progress
        )


class Breaking(nn.Module):
    """A linear network with NaN scores where anything is added to a first pixel that is black."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, images):
        scores = self.linear(images.flatten(1))
        return torch.where(images[:, 0, 0, :1].abs() > 1e-3, torch.nan, scores)


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_a_nan_among_scores_fools_no_image(norm, clean_images):
    """Torch's argmax picks NaN: a perturbation that breaks the network would change every label."""
    images = clean_images * (np.arange(64, dtype=np.float32).reshape(8, 8) > 0)
    with pytest.raises(
        ValueError, match=r"^expected scores that are numbers, got NaN$|some are not finite"
    ):
        craft_universal_perturbation(
            Breaking(), images, norm=norm, bound=3.0, progress=ignore_progress
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_crafted_on_in_float32(backdoored, clean_images, dtype):
    """As the same weights in float32 are; the network itself keeps its precision."""
    other = copy.deepcopy(backdoored).to(dtype)
    settings = SHORT | {"classes": [TARGET]}
    found = craft_candidates(other, clean_images, **settings).smallest[TARGET]
    expected = craft_candidates(copy.deepcopy(other).float(), clean_images, **settings).smallest[
        TARGET
    ]
    assert np.array_equal(found.mask, expected.mask)
    assert {parameter.dtype for parameter in other.parameters()} == {dtype}
    crafted = craft_universal_perturbation(
        other, clean_images[:20], norm=math.inf, bound=0.3, max_passes=1, progress=ignore_progress
    )
    assert crafted.num_images == 20


def test_classes_apart_give_what_they_give_together(backdoored, clean_images):
    together = craft_candidates(backdoored, clean_images, **SHORT, seed=3)
    alone = craft_candidates(backdoored, clean_images, **SHORT, seed=3, classes=[TARGET])
    assert alone.classes == (TARGET,)
    assert alone.failures == ()
    assert alone.smallest[0] is None
    assert alone.smallest[TARGET].mask_l1 == pytest.approx(
        together.smallest[TARGET].mask_l1, rel=0.02
    )


def test_same_seed_same_bytes_and_another_seed_others(backdoored, clean_images):
    state = torch.get_rng_state()
    runs = [
        craft_candidates(backdoored, clean_images, **SHORT, classes=[1, TARGET], seed=seed)
        for seed in (4, 4, 5)
    ]
    one, again, other = (
        [(c.mask.tobytes(), c.pattern.tobytes()) for c in all_of(run)] for run in runs
    )
    assert len(one) == 4
    assert one == again
    assert not set(one) & set(other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_network_is_left_as_it_was(backdoored, clean_images):
    parameters = list(backdoored.parameters())
    before = {name: tensor.clone() for name, tensor in backdoored.state_dict().items()}
    backdoored.train()
    parameters[0].requires_grad_(False)
    try:
        craft_candidates(backdoored, clean_images, **{**SHORT, "max_steps": 2})
        assert all(part.training for part in backdoored.modules())
        assert [parameter.requires_grad for parameter in parameters] == [False] + [True] * (
            len(parameters) - 1
        )
        assert all(
            torch.equal(before[name], tensor) for name, tensor in backdoored.state_dict().items()
        )
    finally:
        backdoored.eval()
        parameters[0].requires_grad_(True)


def test_weights_get_no_gradients(clean_images):
    network = Contiguous()
    craft_candidates(network, clean_images, num_classes=3, max_steps=2, progress=ignore_progress)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_progress_ends_at_all_steps(clean_images):
    calls = []
    craft_candidates(
        Constant(),
        clean_images,
        num_classes=3,
        max_steps=7,
        progress=lambda *call: calls.append(call),
    )
    assert calls[-1] == (7, 7)


def test_anomaly_index_in_closed_form():
    np.testing.assert_allclose(
        anomaly_index(np.array([1.0, 2, 3, 4, 5])), np.array([2, 1, 0, 1, 2]) / 1.4826
    )
    np.testing.assert_allclose(
        anomaly_index(np.array([1.0, np.nan, 2, 6])), np.array([1, np.nan, 0, 4]) / 1.4826
    )
    np.testing.assert_array_equal(anomaly_index(np.array([7.0, 7, 7, 7, 1])), [0, 0, 0, 0, np.inf])
    assert np.isnan(anomaly_index(np.array([1.0, np.nan, 2]))).all()


def test_only_masks_below_the_median_are_flagged(found):
    def with_norms(*norms):
        smallest = tuple(
            norm and dataclasses.replace(found.smallest[0], mask_l1=norm) for norm in norms
        )
        return Candidates(first=smallest, smallest=smallest, classes=tuple(range(len(norms))))

    assert with_norms(10.0, 11.0, 12.0, 13.0, 2.0, 40.0, None).flagged == (4,)
    assert with_norms(10.0, 11.0, 12.0, 13.0, 9.0, 40.0, None).flagged == ()
    assert with_norms(10.0, None, 12.0, None).failures == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes of at least 1"),
        ({"num_classes": 4}, "logits"),
        ({"restarts": 0}, "restarts of at least 1"),
        ({"max_steps": 0}, "max_steps of at least 1"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"batches_per_step": 0}, "batches_per_step of at least 1"),
        ({"patience": 0}, "patience of at least 1"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"initial_cost": -1.0}, "initial cost"),
        ({"success_threshold": 1.5}, "success threshold"),
        ({"classes": []}, "targets of at least 1"),
        ({"classes": [3]}, "different classes in 0 to 2"),
        ({"classes": [1, 1]}, "different classes"),
        ({"seed": -1}, "seed of at least 0"),
    ],
)
def test_bad_arguments_are_refused(clean_images, changes, message):
    with pytest.raises(ValueError, match=f"expected.*{message}"):
        craft_candidates(
            Constant(), clean_images, **{"num_classes": 3, "progress": ignore_progress, **changes}
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], "at least one"),
        (lambda x: 2 * x, "in \\[0, 1\\]"),
        (lambda x: x * np.nan, "in \\[0, 1\\]"),
    ],
)
def test_bad_images_are_refused(clean_images, change, message):
    with pytest.raises(ValueError, match=f"expected.*{message}"):
        craft_candidates(Constant(), change(clean_images), num_classes=3)


def test_images_that_the_network_refuses_are_named(clean_images):
    with pytest.raises(
        ValueError, match="expected images that the network accepts, got \\(1, 4, 4\\)"
    ):
        craft_candidates(Contiguous(), clean_images[:, :, :4, :4].copy(), num_classes=3)
