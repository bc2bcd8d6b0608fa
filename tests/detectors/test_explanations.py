"""Explanations of verdicts: the copies are those that voted, ranks are those of the class."""

import re

import numpy as np
import pytest

import wobbliness
from wobbliness.detectors.guards.explanations import NUM_COPIES, explain
from wobbliness.perturbations import BoxMix, Gaussian, Scale
from wobbliness.sampling.labelled_copies import labelled_copies
from wobbliness.statistics.class_ranks import class_ranks


def brightest_column(images):
    """Three classes, by the brightest of three columns."""
    return images.reshape(len(images), -1, 3).mean(axis=1).argmax(axis=1)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).random((90, 1, 6, 6))


@pytest.mark.parametrize("kind", ["box mix", "noise", "a ladder"])
def test_the_copies_are_those_that_voted(pictures, kind):
    perturbation = {
        "box mix": BoxMix(pictures[:9]),
        "noise": Gaussian(0.3),
        "a ladder": Scale(2, 3, 9),
    }[kind]
    settings = {"draws": 20, "seed": 3, "num_classes": 3}
    made = labelled_copies(brightest_column, pictures[9:19], perturbation, **settings)
    votes = wobbliness.measure(brightest_column, pictures[9:19], perturbation, **settings)
    counted = np.stack([np.bincount(row, minlength=3) for row in made.label])
    assert np.array_equal(counted, votes.counts)
    flat = made.copies.reshape(-1, 1, 6, 6)
    assert np.array_equal(brightest_column(flat), made.label.ravel())
    assert made.copies.shape == (10, votes.draws, 1, 6, 6)
    assert (counted.max(axis=1) < votes.draws).any(), "control: they disagree"
    if kind != "a ladder":
        other = labelled_copies(brightest_column, pictures[9:19], perturbation, 20, 4)
        assert not np.array_equal(other.copies, made.copies)


GUARDS = {
    "profile": (wobbliness.ProfileGuard, {"draws": 12}),
    "smoothness": (wobbliness.SmoothnessGuard, {"draws": 20, "sigmas": (0.1, 0.3)}),
}


@pytest.mark.parametrize("kind", GUARDS)
def test_an_explanation_holds_copies_of_the_perturbation_that_spoke(pictures, kind):
    of, settings = GUARDS[kind]
    settings = settings | {"false_positive_rate": 0.2, "num_classes": 3, "seed": 1}
    guard = of(brightest_column, **settings).fit(pictures[:70])
    inputs = pictures[70:]
    judged = guard.judge(inputs)
    rows = [7, 2, 11]  # in any order, suspicious or not
    for row, why in zip(rows, explain(guard, judged, inputs, rows), strict=True):
        assert (why.row, why.reasons) == (row, judged.reasons_of(row))
        assert why.effect == judged.effects[judged.spoke[row]]
        assert why.effect in why.reasons[0]
        assert len(why.copies) == len(why.label) == len(set(why.draws.tolist())) == NUM_COPIES
        assert np.array_equal(brightest_column(why.copies), why.label)
        votes = judged.votes.votes[judged.spoke[row]]
        for label in set(why.label.tolist()):
            assert votes.counts[row, label] >= (why.label == label).sum()
    alone = explain(guard, judged, inputs, [2])[0]
    assert np.array_equal(alone.copies, explain(guard, judged, inputs, rows)[1].copies)


def test_the_copies_that_tell_come_first(pictures):
    guard = wobbliness.ProfileGuard(brightest_column, draws=12, num_classes=3)
    guard.set_params(false_positive_rate=0.2).fit(pictures[:70])
    judged = guard.judge(pictures[70:])
    for why in explain(guard, judged, pictures[70:], range(20)):
        named, number = map(
            int, re.search(r"class (\d) in (\d+) of \d+ copies", why.reasons[0]).groups()
        )
        shown = why.label == named
        assert shown.sum() == min(number, NUM_COPIES)
        assert np.array_equal(shown, np.sort(shown)[::-1])


def test_ranks_are_among_the_same_class_alone():
    clean, clean_label = np.array([1.0, 2.0, 3.0, 4.0, 9.0]), np.array([0, 0, 0, 0, 1])
    ranks = class_ranks(
        np.array([0.0, 2.0, 5.0, 0.0, 0.0]), np.array([0, 0, 0, 1, 2]), clean, clean_label
    )
    np.testing.assert_array_equal(ranks.percentile, [100, 50, 0, 100, np.nan])
    assert ranks.num_clean.tolist() == [4, 4, 4, 1, 0]


def test_smooth_inputs_are_explained_by_w_of_clean_inputs_of_the_class(pictures):
    settings = {"sigmas": (0.1, 0.3), "draws": 20, "false_positive_rate": 0.2, "num_classes": 3}
    # columns of nearly one brightness: little noise changes the label
    guard = wobbliness.SmoothnessGuard(brightest_column, **settings).fit(0.45 + 0.1 * pictures)
    stubborn = np.zeros((6, 1, 6, 6))
    stubborn[..., ::3] = 1 - 0.01 * np.arange(6)[:, None, None, None]
    judged = guard.judge(stubborn)
    of_class = guard.reference_.label == judged.undisturbed_label[0]
    larger = (guard.reference_.wobbliness[:, of_class, None] > judged.wobbliness.T[:, None]).mean(
        axis=1
    )
    np.testing.assert_allclose(judged.percentile, 100 * larger.min(axis=0))
    assert judged.percentile.min() > 90
    assert (judged.spoke == 1).all(), "the most noise, under which all clean inputs wobble"
    assert judged.reasons[0].startswith("W is 0.000 nats when random noise, Gaussian of standard ")
    frame = judged.frame()
    assert [*frame.columns[-3:]] == ["reason", "spoke", "percentile"]
    assert set(frame["spoke"]) == {"gaussian-0.3"}
