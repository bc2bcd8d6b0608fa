"""Classifiers of scikit-learn: the class is what `predict` says, count for count."""

import numpy as np
import pytest

import wobbliness
from wobbliness.perturbations.base import image_keys
from wobbliness.perturbations.noise.gaussian import NormalStream

pytest.importorskip("sklearn")

from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, OneClassSVM

SIGMA, DRAWS = 0.25, 12


@pytest.fixture(scope="module")
def rows(digits):
    return digits.train.images[:120].reshape(120, -1)


@pytest.fixture(scope="module")
def labels(digits):
    return digits.train.labels[:120]


@pytest.fixture(scope="module")
def images(digits):
    return digits.test.images[:8]


def logistic():
    return LogisticRegression(max_iter=200)


def check_votes(estimator, images, handed=lambda copy: copy.reshape(1, -1), **options):
    """Votes equal those of `predict`, asked for one noisy copy at a time."""
    classes = list(estimator.classes_)
    counts = np.zeros((len(images), len(classes)), np.int64)
    for row, (image, key) in enumerate(zip(images, image_keys(images), strict=True)):
        for noise in NormalStream(0, int(key), image.shape).take(DRAWS).copy():
            counts[
                row,
                classes.index(
                    np.ravel(estimator.predict(handed(image + noise * np.float32(SIGMA))))[0]
                ),
            ] += 1
    votes = wobbliness.measure(
        wobbliness.open_classifier(estimator, **options), images, SIGMA, draws=DRAWS
    )
    assert np.array_equal(votes.counts, counts)
    assert votes.execution.company is None
    assert votes.wobbliness.max() > 0.1, "control: there is something to agree on"


ESTIMATORS = {
    "support vectors with probabilities": lambda: SVC(probability=True, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), logistic()),
    "grid search": lambda: GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=2),
    "calibrated": lambda: CalibratedClassifierCV(logistic(), cv=2),
    "voting": lambda: VotingClassifier(
        [("a", logistic()), ("b", RandomForestClassifier(5, random_state=0))]
    ),
    "one against the rest": lambda: OneVsRestClassifier(logistic()),
    "neighbours": lambda: KNeighborsClassifier(3),
    "ridge": RidgeClassifier,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_class_is_what_predict_says(name, rows, labels, images):
    check_votes(ESTIMATORS[name]().fit(rows, labels), images)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_probabilities_would_say_something_else(rows, labels, images):
    """Control: for one of these, `predict` is not the arg-max of `predict_proba`."""
    estimator = SVC(probability=True, random_state=0).fit(rows, labels)
    flat = np.repeat(images.reshape(len(images), -1), 20, axis=0)
    noisy = flat + np.random.default_rng(0).normal(0, SIGMA, flat.shape)
    assert not np.array_equal(
        estimator.predict(noisy), estimator.predict_proba(noisy).argmax(axis=1)
    )


@pytest.mark.parametrize(
    "wrap",
    [lambda model: FixedThresholdClassifier(model, threshold=0.2), TunedThresholdClassifierCV],
)
def test_thresholds_of_two_classes(wrap, rows, labels, images):
    estimator = wrap(logistic()).fit(rows, labels >= 5)
    check_votes(estimator, images)


@pytest.mark.parametrize("classes", [["no", "yes"], [-1, 1], [3, 100_001], [2.0, 7.0]])
def test_classes_of_any_kind(classes, rows, labels, images):
    check_votes(logistic().fit(rows, np.array(classes)[(labels >= 5).astype(int)]), images)


def reversed_classes(estimator):
    """An estimator whose classes are not in order, as in libraries other than scikit-learn."""
    estimator.classes_ = estimator.classes_[::-1].copy()
    estimator.coef_, estimator.intercept_ = (
        estimator.coef_[::-1].copy(),
        estimator.intercept_[::-1].copy(),
    )
    return estimator


def test_classes_in_any_order(rows, labels, images):
    check_votes(reversed_classes(logistic().fit(rows, labels)), images)


def test_pixels_of_another_range(rows, labels, images):
    estimator = logistic().fit(rows * 16, labels)
    check_votes(
        estimator, images, lambda copy: copy.reshape(1, -1) * np.float32(16), input_range=(0, 16)
    )
    estimator = logistic().fit((rows - 0.3) / 0.2, labels)
    scaled = lambda copy: (copy.reshape(1, -1) - np.float32(0.3)) / np.float32(0.2)  # noqa: E731
    check_votes(estimator, images, scaled, mean=0.3, std=0.2)


@pytest.fixture(scope="module")
def coloured():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = np.clip(
        0.3 + 0.05 * np.eye(3)[labels][:, :, None, None] + rng.normal(0, 0.3, (90, 3, 4, 5)), 0, 1
    )
    return images.astype(np.float32), labels


def test_rows_of_pictures_with_channels_last(coloured):
    images, labels = coloured
    estimator = logistic().fit(images.transpose(0, 2, 3, 1).reshape(90, -1), labels)
    last = lambda copy: copy.transpose(1, 2, 0).reshape(1, -1)  # noqa: E731
    check_votes(estimator, images[:9], last, layout="nhwc")
    check_votes(logistic().fit(images.reshape(90, -1), labels), images[:9], layout="nchw")


def of_pictures(features):
    return make_pipeline(FunctionTransformer(features), logistic())


def means_of_channels_first(pictures):
    return np.asarray(pictures).mean(axis=(2, 3))


def means_of_channels_last(pictures):
    return np.asarray(pictures).mean(axis=(1, 2))


def columns_of_grey(pictures):
    assert pictures.ndim == 3
    return pictures.mean(axis=1)


def test_estimators_of_pictures_get_pictures(coloured, digits):
    images, labels = coloured
    check_votes(
        of_pictures(means_of_channels_first).fit(images, labels),
        images[:9],
        lambda copy: copy[None],
    )
    last = images.transpose(0, 2, 3, 1)
    estimator = of_pictures(means_of_channels_last).fit(last, labels)
    check_votes(estimator, images[:9], lambda copy: copy.transpose(1, 2, 0)[None])
    check_votes(estimator, images[:9], lambda copy: copy.transpose(1, 2, 0)[None], layout="nhwc")
    grey = digits.train.images[:120, 0]
    estimator = of_pictures(columns_of_grey).fit(grey, digits.train.labels[:120])
    check_votes(estimator, digits.test.images[:9], lambda copy: copy)


def several(labels):
    return np.stack([labels >= 5, labels % 2 == 0], axis=1).astype(int)


REFUSED = {
    "unfitted": (lambda *_: logistic(), "expected a fitted classifier, got LogisticRegression"),
    "an unfitted pipeline": (
        lambda *_: make_pipeline(StandardScaler(), logistic()),
        "expected a fitted classifier",
    ),
    "a search without a best one": (
        lambda rows, labels: GridSearchCV(logistic(), {"C": [1.0]}, cv=2, refit=False).fit(
            rows, labels
        ),
        "expected a",
    ),
    "clusters": (
        lambda rows, _: KMeans(2, n_init=1, random_state=0).fit(rows),
        "expected a classifier that names one class",
    ),
    "outliers by a forest": (
        lambda rows, _: IsolationForest(n_estimators=5).fit(rows),
        "got the outlier detector IsolationForest",
    ),
    "outliers by a boundary": (
        lambda rows, _: OneClassSVM().fit(rows),
        "got the outlier detector OneClassSVM",
    ),
    "several outputs": (
        lambda rows, labels: MultiOutputClassifier(logistic()).fit(rows, several(labels)),
        "one class for each",
    ),
    "several labels of trees": (
        lambda rows, labels: RandomForestClassifier(3).fit(rows, several(labels)),
        "one class for each",
    ),
    "several labels of neighbours": (
        lambda rows, labels: KNeighborsClassifier(3).fit(rows, several(labels)),
        "one class for each",
    ),
    "several labels of one against the rest": (
        lambda rows, labels: OneVsRestClassifier(logistic()).fit(rows, several(labels)),
        "one class for each",
    ),
    "several labels of a network": (
        lambda rows, labels: MLPClassifier(4, max_iter=300, tol=0.1, random_state=0).fit(
            rows, several(labels)
        ),
        "one class for each",
    ),
    "several labels of a ridge": (
        lambda rows, labels: RidgeClassifier().fit(rows, several(labels)),
        "one class for each",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_names_no_one_class_is_refused(case, rows, labels, images):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refusal:
        wobbliness.measure(make(rows, labels), images, SIGMA, draws=2)
    assert "\n" not in str(refusal.value)


def test_options_without_effect_are_refused(rows, labels):
    estimator = logistic().fit(rows, labels)
    for options in ({"threshold": 0.5}, {"output": "label"}, {"factory": "a:b"}):
        with pytest.raises(ValueError, match="expected"):
            wobbliness.open_classifier(estimator, **options)
