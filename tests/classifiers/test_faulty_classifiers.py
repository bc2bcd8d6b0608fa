"""Classifiers that raise, return NaN or are not repeatable: an error and no votes."""

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
    """NaN where the first pixel is far below 0: for some noisy copies, for no image itself."""

    def forward(self, batch):
        first = batch.flatten(1)[:, :1]
        return torch.cat([first, torch.sqrt(first + 0.5)], dim=1)


def test_nan_scores_of_a_compiled_module_are_refused(images):
    with pytest.raises(ValueError, match="^expected scores that are numbers, got NaN"):
        wobbliness.measure(NanForSome(), images[:4], sigma=0.3, draws=250)


@pytest.mark.parametrize("first_change", [2, 4, 5, 7])
def test_a_classifier_that_changes_its_answers_at_once_is_refused(images, first_change):
    with pytest.raises(
        ValueError,
        match="gives the same answer to the same images, got other labels the second time; put the",
    ):
        measure(Changing(first_change), images)


@pytest.mark.parametrize("first_change", [13, 14, 20])
def test_a_classifier_that_changes_its_answers_is_found_on_request(images, first_change):
    with pytest.raises(
        ValueError,
        match="same answers? to the same images, got other "
        "(votes the second time for [1-4] of 4 images|labels the second time)",
    ):
        measure(Changing(first_change), images, check_repeatable=True)
    measure(Changing(first_change), images)


def test_dropout_left_on_is_found(images):
    dropout = torch.nn.functional.dropout

    def forgetful(batch):
        return dropout(torch.as_tensor(batch).flatten(1)[:, :10], 0.5, training=True)

    with pytest.raises(
        ValueError,
        match="gives the same answer to the same images, got scores that differ by up to",
    ):
        measure(forgetful, images)


class Counting:
    """The sign of a sum, but wrong for each image whose number is a multiple of another one."""

    def __init__(self, every):
        self.every, self.num_images = every, 0

    def __call__(self, batch):
        numbers = self.num_images + np.arange(len(batch))
        self.num_images += len(batch)
        return (batch.reshape(len(batch), -1).sum(axis=1) > 20) ^ (
            numbers % self.every == self.every - 1
        )


@pytest.mark.parametrize("every", [97, 301])
def test_a_count_of_images_is_found_on_request(images, every):
    settings = {"sigma": 0.2, "draws": 100, "num_classes": 2}
    wobbliness.measure(Counting(every), images, **settings)
    with pytest.raises(
        ValueError, match="expected a classifier that gives the same answer.* second time"
    ):
        wobbliness.measure(Counting(every), images, check_repeatable=True, **settings)


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_model_that_is_rarely_random_is_found_on_request(images, share):
    rng = np.random.default_rng(0)

    def rarely(batch):
        return (batch.reshape(len(batch), -1).sum(axis=1) > 20) ^ (rng.random(len(batch)) < share)

    with pytest.raises(ValueError, match="expected a classifier that gives the same answer"):
        wobbliness.measure(
            rarely, images, sigma=0.2, draws=250, num_classes=2, check_repeatable=True
        )


class Rounding:
    """Scores (or labels) whose last digits depend on the block size, as real networks' do."""

    def __init__(self, size, *, as_labels):
        self.size, self.as_labels = size, as_labels

    def __call__(self, batch):
        margin = batch.reshape(len(batch), -1).sum(axis=1) - 20 + self.size * len(batch)
        return (
            (margin > 0).astype(int)
            if self.as_labels
            else np.stack([np.zeros_like(margin), margin], axis=1)
        )


@pytest.mark.parametrize("as_labels", [False, True])
def test_rounding_of_few_labels_passes(images, as_labels):
    settings = {"sigma": 0.2, "draws": 250, "num_classes": 2}
    classifier = Rounding(4e-7, as_labels=as_labels)
    votes = wobbliness.measure(classifier, images, check_repeatable=True, **settings)
    assert votes.execution.block_size == 250
    assert (
        np.abs(
            votes.counts - wobbliness.measure(classifier, images, block_size=10, **settings).counts
        ).sum()
        / 2
        <= 1
    )


def test_labels_that_depend_on_the_size_of_a_block_are_found_on_request(images):
    settings = {"sigma": 0.2, "draws": 250, "num_classes": 2}
    with pytest.raises(ValueError, match=r"it depends on the size of a block \(250 and 125\)$"):
        wobbliness.measure(
            Rounding(5e-5, as_labels=True), images, check_repeatable=True, **settings
        )


def test_a_steady_classifier_passes_with_the_same_votes_and_twice_the_steps(images, half_space):
    calls = []
    checked = measure(
        half_space, images, check_repeatable=True, progress=lambda *call: calls.append(call)
    )
    assert np.array_equal(checked.counts, measure(half_space, images).counts)
    assert calls[-1] == (8, 8)
