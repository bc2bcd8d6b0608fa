"""Votes in checked low precision against those of float32, and all that speaks against it."""

import dataclasses

import low_precision as low
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import wobbliness
from wobbliness.perturbations import Gaussian, Scale, Uniform
from wobbliness.sampling.counting import low_precision
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.low_precision import CHECKED, FLOAT32
from wobbliness.sampling.plan import checked_precision
from wobbliness.sampling.sequential_test import decide, decide_as_measured
from wobbliness.sampling.votes import Sweep

SIGMA = 0.2
IMAGES = np.random.default_rng(1).random((24, low.NUM_VALUES)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_calls(monkeypatch):
    low.allow_small_calls(monkeypatch)


def measured(classifier, images=IMAGES, draws=100, **settings):
    return wobbliness.measure(classifier, images, SIGMA, draws=draws, **settings)


def num_changed(one, other):
    return int(np.abs(one.counts - other.counts).sum()) // 2


# --- a classifier with a known error


def test_votes_are_those_of_float32_but_for_the_stated_share():
    classifier = low.Linear(error=0.05)
    plain, checked = measured(classifier), measured(classifier, precision="checked")
    found = checked.changed_votes
    assert checked.execution.precision == CHECKED
    assert found.num_votes == plain.counts.sum() == checked.counts.sum()
    assert 0 < found.num_audited < found.num_low < found.num_votes
    assert num_changed(plain, checked) <= low_precision.MAX_CHANGED * found.num_votes
    # in float32 there is nothing to say
    assert plain.changed_votes is None
    assert plain.execution.precision is None


def test_the_twin_has_cast_most_of_the_votes(monkeypatch):
    classifier, seen = low.Linear(error=0.05), []
    answers = low.Linear.answers

    def counted(self, images, block_size):
        seen.append((self._is_twin, len(images)))
        return answers(self, images, block_size)

    monkeypatch.setattr(low.Linear, "answers", counted)
    checked = measured(classifier, draws=1000, precision="checked")
    passes = {is_twin: sum(n for other, n in seen if other == is_twin) for is_twin in (True, False)}
    # probes and blocks that are filled up are float32 passes as well
    assert passes[True] > 0.95 * checked.counts.sum()
    assert passes[False] < 0.4 * checked.counts.sum()


def test_doubtful_and_audited_votes_are_exactly_those_of_float32(monkeypatch):
    # every vote is audited, so that every vote is float32's
    monkeypatch.setattr(low_precision, "AUDIT_EVERY", 1)
    monkeypatch.setattr(low_precision, "MAX_COST", 9.0)
    classifier = low.Linear(error=0.05, cost=-9.0)
    plain, checked = measured(classifier), measured(classifier, precision="checked")
    assert checked.execution.precision == CHECKED
    assert checked.changed_votes.num_audited == checked.changed_votes.num_low > 0
    assert checked.changed_votes.upper_bound() == 0
    np.testing.assert_array_equal(checked.counts, plain.counts)


@pytest.mark.parametrize(
    "change",
    [{"workers": 1}, {"workers": 5}, {"block_size": 7}, {"block_size": 64}],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_workers_and_blocks_do_not_matter(change):
    classifier = low.Linear(error=0.1)
    one = measured(classifier, precision="checked")
    other = measured(classifier, precision="checked", **change)
    assert one.execution.precision == other.execution.precision == CHECKED
    np.testing.assert_array_equal(other.counts, one.counts)
    assert other.changed_votes == one.changed_votes


def test_the_order_of_the_images_does_not_matter():
    classifier, order = low.Linear(error=0.1), np.random.default_rng(2).permutation(len(IMAGES))
    one = measured(classifier, precision="checked")
    other = measured(classifier, IMAGES[order], precision="checked")
    assert one.execution.precision == CHECKED
    np.testing.assert_array_equal(other.counts, one.counts[order])
    assert other.changed_votes == one.changed_votes


def test_further_draws_add_up_to_those_of_one_call():
    classifier = low.Linear(error=0.1)
    parts = [
        measured(classifier, draws=stop - first, first_draw=first, precision="checked")
        for first, stop in ((0, 80), (80, 200))
    ]
    whole = measured(classifier, draws=200, precision="checked")
    assert {part.execution.precision for part in parts} == {CHECKED}
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, whole.counts)
    assert (parts[0] + parts[1]).changed_votes == whole.changed_votes


def test_votes_of_float32_added_to_checked_ones_count_as_unchanged():
    classifier = low.Linear(error=0.1)
    checked = measured(classifier, precision="checked")
    both = checked + measured(classifier, first_draw=100)
    assert both.changed_votes.num_votes == 2 * checked.changed_votes.num_votes
    assert both.changed_votes.num_low == checked.changed_votes.num_low
    assert {each.precision for each in both.executions} == {CHECKED, None}


def test_each_level_of_a_sweep_has_its_own_margin_and_audit():
    classifier = low.Linear(error=0.1)
    levels = [0.05, Uniform(0.4)]
    plain = wobbliness.sweep(classifier, IMAGES, levels, draws=300)
    checked = wobbliness.sweep(classifier, IMAGES, levels, draws=300, precision="checked")
    assert list(checked.changed_votes) == list(checked)
    for one, other in zip(plain.votes, checked.votes, strict=True):
        allowed = low_precision.MAX_CHANGED * one.counts.sum()
        assert num_changed(one, other) <= allowed, one.perturbation
        assert other.changed_votes.num_votes == one.counts.sum()
    few, many = (found.num_low for found in checked.changed_votes.values())
    assert few != many
    assert checked.precision == CHECKED
    assert plain.precision is None


def test_the_upper_bound_covers_the_truth_in_two_hundred_runs():
    # Allowing more changed votes than there are: all that is left is for the audit to find.
    classifier, covered, shares = low.Linear(error=0.3), [], []
    for seed in range(200):
        plain = measured(classifier, IMAGES[:12], seed=seed, draws=120)
        checked = measured(classifier, IMAGES[:12], seed=seed, draws=120, precision="checked")
        assert checked.execution.precision == CHECKED
        share = num_changed(plain, checked) / plain.counts.sum()
        covered.append(share <= checked.changed_votes.upper_bound())
        shares.append(share)
    assert np.mean(covered) >= 0.95
    # the bound is no empty one: votes do change
    assert np.mean(np.array(shares) > 0) > 0.2


@pytest.mark.parametrize("num_changed_votes", [0, 30, 200, 2000])
def test_the_upper_bound_covers_drawn_audits(num_changed_votes):
    rng, num_low = np.random.default_rng(3), 20_000
    bounds, left = [], []
    for _ in range(200):
        is_audited = rng.random(num_low) < 1 / 200
        changed = int(is_audited[:num_changed_votes].sum())
        found = ChangedVotes(
            num_votes=25_000,
            num_low=num_low,
            num_audited=int(is_audited.sum()),
            num_changed=changed,
        )
        bounds.append(found.upper_bound())
        left.append((num_changed_votes - changed) / 25_000)
    is_covered = np.array(left) <= bounds
    # 3 standard errors of 200 runs below the stated confidence
    assert is_covered.mean() >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)
    # a bound at a tenth of the confidence does not cover
    narrow = found.upper_bound(0.05)
    assert num_changed_votes == 0 or narrow < np.median(bounds)


# --- what speaks against it


def require_float32(checked, plain, reason):
    assert checked.execution.precision == FLOAT32.format(reason)
    assert checked.changed_votes is None
    np.testing.assert_array_equal(checked.counts, plain.counts)


def test_without_dot_products_votes_are_those_of_float32_and_it_is_said(monkeypatch):
    low.has_dot_products(monkeypatch, is_there=False)
    classifier = low.Linear(error=0.05)
    checked = measured(classifier, precision="checked")
    require_float32(checked, measured(classifier), low_precision.NO_DOT_PRODUCTS)


def test_a_twin_that_is_spoilt_is_found_by_the_audit(monkeypatch):
    low.spoil_after_calibration(monkeypatch, 0.2)
    classifier = low.Linear(error=0.05)
    checked, plain = measured(classifier, precision="checked"), measured(classifier)
    assert checked.execution.precision.startswith("float32: of ")
    assert "that were audited the quantised network changed" in checked.execution.precision
    assert checked.changed_votes is None
    np.testing.assert_array_equal(checked.counts, plain.counts)


def test_a_twin_that_is_not_spoilt_is_not_found(monkeypatch):
    low.spoil_after_calibration(monkeypatch, 0.0)
    assert measured(low.Linear(error=0.05), precision="checked").execution.precision == CHECKED


def test_progress_ends_at_the_number_of_images_after_a_contradiction(monkeypatch):
    low.spoil_after_calibration(monkeypatch, 0.2)
    seen = []
    measured(low.Linear(error=0.05), precision="checked", progress=lambda *done: seen.append(done))
    assert seen[-1] == (len(IMAGES), len(IMAGES))
    assert max(done for done, _ in seen) == len(IMAGES)


def test_scores_as_close_as_the_error_leave_no_margin():
    classifier = low.Linear(error=0.5, closeness=0.01)
    checked = measured(classifier, precision="checked")
    assert checked.execution.precision.startswith("float32: no margin of the quantised network")
    np.testing.assert_array_equal(checked.counts, measured(classifier).counts)


def test_a_level_without_a_margin_is_float32_while_another_is_checked():
    # Around inputs far from all boundaries little noise decides, and much does not.
    images = np.eye(low.NUM_VALUES, dtype=np.float32)[[2, 3, 5]]
    classifier = low.Linear(error=0.2, cost=0.7)
    levels = (0.01, 0.5)
    checked = wobbliness.sweep(classifier, images, levels, draws=2000, precision="checked")
    plain = wobbliness.sweep(classifier, images, levels, draws=2000)
    assert checked[0.01].execution.precision == CHECKED
    assert checked[0.5].execution.precision.startswith("float32: no margin")
    assert checked[0.01].changed_votes is not None
    assert checked[0.5].changed_votes is None
    np.testing.assert_array_equal(checked[0.5].counts, plain[0.5].counts)


def test_few_copies_are_not_worth_a_calibration():
    classifier = low.Linear(error=0.05)
    checked = measured(classifier, draws=9, precision="checked")
    reason = low_precision.TOO_FEW.format(24 * 9, 240)
    require_float32(checked, measured(classifier, draws=9), reason)


def test_a_twin_that_is_not_faster_is_not_used():
    classifier = low.Linear(error=0.05, cost=1.25)
    checked = measured(classifier, precision="checked")
    require_float32(checked, measured(classifier), low_precision.TOO_SLOW)


def test_kept_scores_are_those_of_float32():
    classifier = low.Linear(error=0.05)
    checked = measured(classifier, precision="checked", scores="logits")
    plain = measured(classifier, scores="logits")
    require_float32(checked, plain, low_precision.SCORES_KEPT)
    np.testing.assert_array_equal(checked.scores.entropies, plain.scores.entropies)


def test_a_fixed_number_of_draws_is_float32():
    classifier, scale = low.Linear(error=0.05), Scale(1, 2, 3)
    checked = wobbliness.measure(classifier, IMAGES, scale, precision="checked")
    plain = wobbliness.measure(classifier, IMAGES, scale)
    require_float32(checked, plain, low_precision.FIXED_DRAWS)


def test_what_has_no_graph_is_float32():
    labels = (IMAGES[:, 0] > 0.5).astype(int)
    fitted = LogisticRegression().fit(IMAGES, labels)
    for classifier in (lambda images: (images[:, 0] > 0.5).astype(int), fitted):
        checked = measured(classifier, precision="checked")
        require_float32(checked, measured(classifier), low_precision.NO_GRAPH)


def test_labels_have_no_margins(monkeypatch):
    classifier = low.Linear(error=0.05)
    answers = low.Linear.answers
    monkeypatch.setattr(
        low.Linear, "answers", lambda *given: answers(*given).argmax(axis=1).astype(np.int64)
    )
    checked = measured(classifier, precision="checked")
    require_float32(checked, measured(classifier), low_precision.LABELS_ONLY)


def test_a_module_that_runs_eagerly_is_float32():
    module = torch.nn.Linear(low.NUM_VALUES, 3).double()
    checked = measured(module, precision="checked")
    require_float32(checked, measured(module), low_precision.NO_GRAPH)


def test_repeating_and_other_precisions_are_refused():
    classifier = low.Linear(error=0.05)
    with pytest.raises(ValueError, match="expected float32 where votes are to be repeated"):
        measured(classifier, precision="checked", check_repeatable=True)
    with pytest.raises(ValueError, match="expected a precision of float32 or checked, got 'int8'"):
        checked_precision("int8")


# --- decisions


@pytest.mark.parametrize("question", [decide, decide_as_measured])
def test_decisions_are_those_of_float32(question):
    classifier = low.Linear(error=0.05)
    settings = {"sigma": SIGMA, "threshold": 0.3, "max_draws": 250}
    plain = question(classifier, IMAGES, **settings)
    checked = question(classifier, IMAGES, precision="checked", **settings)
    assert checked.execution.precision == CHECKED
    assert plain.changed_votes is None
    assert checked.changed_votes.num_votes == checked.draws.sum()
    assert 0 < checked.changed_votes.num_low <= checked.draws.sum()
    np.testing.assert_array_equal(checked.is_below, plain.is_below)
    again = question(classifier, IMAGES[::-1], precision="checked", workers=1, **settings)
    np.testing.assert_array_equal(again.counts[::-1], checked.counts)


def test_decisions_of_a_spoilt_twin_are_made_again(monkeypatch):
    low.spoil_after_calibration(monkeypatch, 0.5)
    classifier = low.Linear(error=0.05)
    settings = {"sigma": SIGMA, "threshold": 0.3, "max_draws": 250}
    plain = decide(classifier, IMAGES, **settings)
    checked = decide(classifier, IMAGES, precision="checked", **settings)
    assert "that were audited" in checked.execution.precision
    np.testing.assert_array_equal(checked.counts, plain.counts)


def test_copies_of_an_image_have_its_votes():
    images = np.concatenate([IMAGES, IMAGES])
    checked = measured(low.Linear(error=0.1), images, precision="checked")
    assert checked.execution.precision == CHECKED
    np.testing.assert_array_equal(checked.counts[: len(IMAGES)], checked.counts[len(IMAGES) :])


def test_copies_of_one_image_do_not_calibrate_for_many():
    # Thirty copies have the same draws: ten of them are no three hundred independent votes.
    few, many = np.repeat(IMAGES[:1], 30, axis=0), np.resize(IMAGES, (30, low.NUM_VALUES))
    asked = [
        measured(low.Linear(error=0.1), images, draws=60, precision="checked")
        for images in (few, many)
    ]
    needed = low_precision.values_needed(low_precision.MAX_CHANGED, low_precision.CONFIDENCE)
    assert asked[0].execution.precision == FLOAT32.format(
        low_precision.TOO_FEW.format(30 * 60, needed)
    )
    assert asked[1].execution.precision == CHECKED


def test_other_images_of_one_key_have_their_own_votes():
    keys = np.arange(len(IMAGES)) // 2
    plain = measured(low.Linear(error=0.1), keys=keys)
    checked = measured(low.Linear(error=0.1), keys=keys, precision="checked")
    assert checked.execution.precision == CHECKED
    assert num_changed(plain, checked) <= low_precision.MAX_CHANGED * plain.counts.sum()
    assert (checked.counts[::2] != checked.counts[1::2]).any()


def test_a_sweep_says_each_precision_once():
    votes = measured(low.Linear(error=0.1), precision="checked")
    other = dataclasses.replace(
        votes, executions=(dataclasses.replace(votes.execution, precision="float32: x"),)
    )
    assert Sweep((votes, other, votes)).precision == f"{CHECKED}; float32: x"


def test_gaussian_by_its_name_is_gaussian():
    classifier = low.Linear(error=0.1)
    one = measured(classifier, precision="checked")
    other = wobbliness.measure(classifier, IMAGES, Gaussian(SIGMA), draws=100, precision="checked")
    np.testing.assert_array_equal(one.counts, other.counts)
