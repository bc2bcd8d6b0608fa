"""Votes of classifiers that are trained on flipped labels: their draws, sums, and bad input."""

import itertools

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats
from sklearn.naive_bayes import GaussianNB

from wobbliness.perturbations import Gaussian, LabelFlip
from wobbliness.perturbations.base import Scratch, Stream
from wobbliness.sampling.plan import perturbation_of
from wobbliness.sampling.trainings import measure_trainings

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 4
FEATURES = (RNG.random((40, 6)) * 0.5 + 0.125 * LABELS[:, None]).astype(np.float32)
IMAGES = RNG.random((9, 6), dtype=np.float32)
Z = 4.0


def nearest_mean(labels):
    """The class with the nearest mean of the features; K = 4."""
    means = np.stack([FEATURES[labels == k].mean(axis=0) for k in range(4)])
    return lambda images: ((images[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)


def flips(perturbation, labels, draws, *, num_classes, seed=0, first_draw=0, pages=None):
    stream = Stream(seed, 5, first_draw=first_draw, scratch=Scratch())
    made = []
    for size in pages or [draws]:
        made.append(perturbation.training_labels(stream, labels, size, num_classes))
        stream.turn(size)
    return np.concatenate(made)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_labels_become_each_other_class_equally_often(share, num_classes):
    labels, draws = np.arange(num_classes), 4000
    made = flips(LabelFlip(share), labels, draws, num_classes=num_classes)
    assert made.shape == (draws, num_classes)
    for own, to in itertools.product(range(num_classes), repeat=2):
        expected = 1 - share if own == to else share / (num_classes - 1)
        error = Z * np.sqrt(expected * (1 - expected) / draws)
        assert abs((made[:, own] == to).mean() - expected) <= error + 1e-9


def test_without_a_share_no_label_changes_and_labels_are_flipped_independently():
    labels = np.zeros(2, dtype=int)
    assert not flips(LabelFlip(0.0), labels, 500, num_classes=3).any()
    both = flips(LabelFlip(0.3), labels, 4000, num_classes=2).all(axis=1).mean()
    assert abs(both - 0.09) < Z * np.sqrt(0.09 * 0.91 / 4000)


def test_copies_depend_on_seed_key_and_draw_alone():
    whole = flips(LabelFlip(0.3), LABELS, 9, num_classes=4)
    pages = flips(LabelFlip(0.3), LABELS, 9, num_classes=4, pages=[2, 1, 6])
    assert np.array_equal(pages, whole)
    later = flips(LabelFlip(0.3), LABELS, 8, num_classes=4, first_draw=1)
    assert np.array_equal(later, whole[1:])
    assert not np.array_equal(flips(LabelFlip(0.3), LABELS, 9, num_classes=4, seed=1), whole)


def measured(draws=40, **settings):
    given = {"train": nearest_mean, "labels": LABELS, "images": IMAGES} | settings
    return measure_trainings(
        perturbation=LabelFlip(0.4), draws=draws, **{"num_classes": 4, **given}
    )


def test_votes_do_not_depend_on_order_company_workers_or_parts():
    votes = measured()
    assert votes.counts.shape == (9, 4)
    assert (votes.counts.sum(axis=1) == 40).all()
    assert votes.perturbation == "label-flip-0.4"
    assert votes.wobbliness.max() > 0.1
    others = [
        measured(images=IMAGES[::-1]).counts[::-1],
        np.concatenate([measured(images=IMAGES[i : i + 1]).counts for i in range(9)]),
        measured(workers=3).counts,
        (measured(15) + measured(25, first_draw=15)).counts,
        measured(images=torch.from_numpy(IMAGES), train=as_tensors).counts,
    ]
    for counts in others:
        assert np.array_equal(counts, votes.counts)
    assert not np.array_equal(measured(seed=1).counts, votes.counts)
    assert not np.array_equal(measured(key=7).counts, votes.counts)


def as_tensors(labels):
    classify = nearest_mean(labels)
    return lambda images: torch.from_numpy(classify(images.numpy()))


def test_each_classifier_is_asked_once_for_all_images():
    asked = []

    def train(labels):
        classify = nearest_mean(labels)
        return lambda images: asked.append(len(images)) or classify(images)

    measured(5, train=train)
    assert asked == [9] * 5


def test_modules_and_estimators_vote_as_callables_do():
    def module(labels):
        made = torch.nn.Linear(6, 4)
        means = np.stack([FEATURES[labels == k].mean(axis=0) for k in range(4)])
        with torch.no_grad():  # |x - mean|^2 without |x|^2
            made.weight.copy_(torch.from_numpy(2 * means))
            made.bias.copy_(torch.from_numpy(-(means**2).sum(axis=1)))
        return made

    assert np.array_equal(measured(train=module).counts, measured().counts)

    def bayes(labels):
        return GaussianNB(var_smoothing=1e-3).fit(FEATURES, labels)

    one = measured(train=bayes)
    other = measured(train=lambda labels: bayes(labels).predict)
    assert np.array_equal(one.counts, other.counts)
    assert one.wobbliness.max() > 0


def test_a_majority_of_flipped_labels_is_binomial():
    """All labels are 1; class 1 wins where at most half of 2 k + 1 labels are flipped."""
    votes = measure_trainings(
        lambda labels: lambda images: np.full(len(images), int(labels.mean() > 0.5)),
        np.ones(7, dtype=int),
        IMAGES[:2],
        LabelFlip(0.3),
        draws=4000,
    )
    expected = stats.binom.cdf(3, 7, 0.3)
    error = Z * np.sqrt(expected * (1 - expected) / 4000)
    assert (np.abs(votes.probabilities[:, 1] - expected) < error).all()


def test_votes_of_other_labels_or_images_or_draws_twice_do_not_add():
    votes = measured()
    for other in (
        measured(labels=(LABELS + 1) % 4, first_draw=40),
        measured(images=IMAGES[::-1], first_draw=40),
    ):
        with pytest.raises(ValueError, match="expected votes of the same images"):
            votes + other
    with pytest.raises(ValueError, match="draws that were not counted before"):
        votes + measured(first_draw=39)


BAD = {
    "no labels": ({"labels": []}, "integer labels .m,., at least one, got float64"),
    "labels of two axes": ({"labels": [[0, 1]]}, "got int64 of shape .1, 2."),
    "scores": ({"labels": [0.5, 1.0]}, "expected integer labels"),
    "a label too high": ({"labels": [0, 4]}, "expected labels from 0 to 3, got 0 to 4"),
    "a negative label": ({"labels": [-1, 2]}, "expected labels from 0 to 3, got -1 to 2"),
    "one class": ({"num_classes": 1}, "a number of classes as an integer of at least 2, got 1"),
    "no draws": ({"draws": 0}, "expected draws as an integer of at least 1, got 0"),
    "a negative key": ({"key": -1}, "expected a key as an integer of at least 0, got -1"),
    "images out of range": ({"images": IMAGES + 1}, "expected images in .0, 1."),
    "no classifier": ({"train": lambda _: 3}, "a torch module, a scikit-learn classifier"),
    "another class": (
        {"train": lambda _: lambda images: np.full(len(images), 4)},
        "expected labels from 0 to 3, got 4 to 4",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(case):
    change, message = BAD[case]
    given = {
        **{"train": nearest_mean, "labels": LABELS, "images": IMAGES, "num_classes": 4},
        **{"perturbation": LabelFlip(0.1), "draws": 3},
    }
    with pytest.raises(ValueError, match=message) as raised:
        measure_trainings(**given | change)
    assert "\n" not in str(raised.value)


def test_training_sets_are_not_perturbed_as_inputs_are():
    with pytest.raises(
        (ValueError, TypeCheckError), match=r"of training sets, as LabelFlip|TrainingPerturbation"
    ):
        measure_trainings(nearest_mean, LABELS, IMAGES, Gaussian(0.1), 3)


def test_inputs_are_not_measured_under_flipped_labels():
    with pytest.raises(ValueError, match=r"of inputs, got label-flip-0.1.*measure_trainings$"):
        perturbation_of(LabelFlip(0.1))
    assert perturbation_of(Gaussian(0.1)) == Gaussian(0.1), "control"
