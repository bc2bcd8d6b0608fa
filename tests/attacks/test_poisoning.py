"""Threat models: exact counts, the right classes, the right labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wobbliness
from wobbliness.attacks.poisoning import backdoor_accuracy, poison, t1, t2, t3

THREATS = {"T1": t1(3), "T2": t2(), "T3": t3(3, count=17)}


def poisoned_digits(digits, threat, seed=0):
    return poison(
        digits.train.images,
        digits.train.labels,
        trigger=wobbliness.trigger("square"),
        threat=threat,
        num_classes=10,
        seed=seed,
    )


@pytest.mark.parametrize("name", THREATS)
@given(seed=st.integers(0, 1000))
def test_exactly_the_chosen_samples_are_changed(digits, name, seed):
    threat, train = THREATS[name], digits.train
    result = poisoned_digits(digits, threat, seed)
    wanted = {"T1": round(0.15 * 1197), "T2": round(0.15 * 1197), "T3": 17}[name]
    assert len(result.indices) == len(set(result.indices)) == wanted
    untouched = np.setdiff1d(np.arange(len(train.labels)), result.indices)
    assert np.array_equal(result.images[untouched], train.images[untouched])
    assert np.array_equal(result.labels[untouched], train.labels[untouched])
    stamped = wobbliness.trigger("square").apply(train.images[result.indices])
    assert np.array_equal(result.images[result.indices], stamped)
    true = train.labels[result.indices]
    expected = (true + 1) % 10 if name == "T2" else np.full(wanted, 3)
    assert np.array_equal(result.labels[result.indices], expected)
    assert name == "T2" or not (true == 3).any()


def test_the_choice_is_the_seeds(digits):
    first, again, other = (poisoned_digits(digits, t1(0), seed).indices for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_backdoor_accuracy_leaves_the_target_class_out():
    labels = np.array([0, 1, 2, 3, 3])
    predicted = np.array([3, 3, 2, 3, 3])
    assert backdoor_accuracy(predicted, labels, threat=t1(3), num_classes=4) == pytest.approx(2 / 3)
    assert backdoor_accuracy(
        np.array([1, 2, 3, 0, 3]), labels, threat=t2(), num_classes=4
    ) == pytest.approx(4 / 5)
    with pytest.raises(ValueError, match="other classes than the target"):
        backdoor_accuracy(predicted[3:], labels[3:], threat=t1(3), num_classes=4)


@pytest.mark.parametrize(
    "threat", [t1(10), t1(0, fraction=0.99), t3(0, count=5000), t3(0, count=0)]
)
def test_impossible_poisonings_are_refused(digits, threat):
    with pytest.raises(ValueError, match="^expected "):
        poisoned_digits(digits, threat)
