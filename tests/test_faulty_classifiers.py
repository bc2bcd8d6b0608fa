"""Classifiers that raise, answer NaN, or change their mind: the measurement says so and gives no votes."""

import numpy as np
import pytest
import torch

import wobbliness


def measure(classifier, images, **settings):
    return wobbliness.measure(classifier, images[:4], sigma=0.2, draws=20, **settings)


class Changing:
    """Says 0, and from a call on 1."""

    def __init__(self, first_change):
        self.num_calls, self.first_change = 0, first_change

    def __call__(self, batch):
        self.num_calls += 1
        return np.full(len(batch), int(self.num_calls >= self.first_change))


def test_what_a_classifier_raises_comes_through(images):
    def fail(_batch):
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="^out of order$"):
        measure(fail, images)


@pytest.mark.parametrize("workers", [1, 2])
def test_nan_scores_are_refused(images, workers):
    def nan_sometimes(batch):
        scores = np.zeros((len(batch), 3))
        scores[np.asarray(batch).reshape(len(batch), -1)[:, 0] > 0.3, 1] = np.nan
        return scores

    with pytest.raises(ValueError, match="^expected scores that are numbers, got NaN"):
        measure(nan_sometimes, images, workers=workers)


class NanForSome(torch.nn.Module):
    """NaN where the first pixel is far below 0: for none of the images themselves, for some of the noisy ones."""

    def forward(self, batch):
        first = batch.flatten(1)[:, :1]
        return torch.cat([first, torch.sqrt(first + 0.5)], dim=1)


def test_nan_scores_of_a_compiled_module_are_refused(images):
    with pytest.raises(ValueError, match="^expected scores that are numbers, got NaN"):
        wobbliness.measure(NanForSome(), images[:4], sigma=0.3, draws=250)


@pytest.mark.parametrize("first_change", [2, 4, 5, 8])
def test_a_classifier_that_changes_its_answers_is_found_on_request(images, first_change):
    with pytest.raises(
        ValueError, match="same answers to the same images, got other votes the second time for [1-4] of 4 images"
    ):
        measure(Changing(first_change), images, check_repeatable=True)
    measure(Changing(first_change), images)


def test_dropout_left_on_is_found(images):
    dropout = torch.nn.functional.dropout

    def forgetful(batch):
        return dropout(torch.as_tensor(batch).flatten(1)[:, :10], 0.5, training=True)

    with pytest.raises(ValueError, match="other votes the second time"):
        measure(forgetful, images, check_repeatable=True)


def test_a_steady_classifier_passes_with_the_same_votes_and_twice_the_steps(images, half_space):
    calls = []
    checked = measure(half_space, images, check_repeatable=True, progress=lambda *call: calls.append(call))
    assert np.array_equal(checked.counts, measure(half_space, images).counts)
    assert calls[-1] == (8, 8)
