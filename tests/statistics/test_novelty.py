"""Novelty among clean points: of single points, with the sign that theory gives, whatever class."""

import numpy as np
import pytest

from wobbliness.statistics.novelty import NUM_NEIGHBOURS, SMALL_DISTANCE, Cloud

NUM_CLASSES = 3


def cloud_of(num_points=200, *, evidence=(0, 1), seed=0):
    """Points about another centre for each class."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, NUM_CLASSES, num_points)
    points = rng.normal(size=(num_points, 2)) * [1.0, 5.0] + 10 * label[:, None]
    return points, label, Cloud.of(points, label, NUM_CLASSES, np.array(evidence))


def test_a_far_point_is_novel_and_clean_ones_are_not():
    _, _, cloud = cloud_of()
    rng = np.random.default_rng(1)
    clean = cloud.scores(cloud.placed(rng.normal(size=(500, 2)) * [1, 5], np.zeros(500, int)))
    far = cloud.scores(cloud.placed(np.array([[0.0, 60.0]]), np.array([0])))
    assert far[0] > clean.max()
    assert abs(np.median(clean)) < 0.5


def test_classes_are_centred():
    """A point of one class is novel as another one's."""
    _, _, cloud = cloud_of(num_points=2000)
    point = np.array([[20.0, 20.0]])
    own, other = (cloud.scores(cloud.placed(point, np.array([label])))[0] for label in (2, 0))
    assert own < 0.5 < other


def test_only_a_high_value_of_a_one_sided_reading_is_evidence():
    both_ways = np.array([[0.0, 30.0], [0.0, -30.0]])
    for evidence, wanted in (((0, 1), True), ((0, 0), False)):
        points, label, _ = cloud_of()
        mirrored = np.concatenate([points - 10 * label[:, None], -(points - 10 * label[:, None])])
        cloud = Cloud.of(mirrored, np.zeros(400, int), 1, np.array(evidence))
        high, low = cloud.scores(cloud.placed(both_ways, np.zeros(2, int)))
        assert (high > low + 0.1) == wanted


def test_each_kind_of_evidence_counts_as_much():
    """However many readings say the same: high where one of two kinds is, as where the other."""
    points = np.random.default_rng(0).normal(size=(500, 5))
    cloud = Cloud.of(points, np.zeros(500, int), 1, np.array([1, 1, 1, 1, 2]))
    many, one = np.diag([1.0] * 5)[[0, 4]] * 40
    scores = cloud.scores(np.stack([many, one]))
    assert scores[0] < scores[1] < 1.5 * scores[0], "a kind of one reading varies less"
    silent = Cloud.of(points, np.zeros(500, int), 1, np.zeros(5, int))
    assert np.ptp(silent.scores(np.stack([many, one, -one]))) < 0.01


def test_distances_are_those_of_a_slow_loop():
    _, _, cloud = cloud_of(evidence=(0, 0))

    def compressed(points):
        return np.sign(points) * np.log(1 + np.abs(points))

    spread = compressed(cloud.points).std(axis=0)
    clean = compressed(cloud.points) / spread
    placed = np.random.default_rng(2).normal(size=(20, 2)) * 3
    far = np.linalg.norm(compressed(placed)[:, None] / spread - clean, axis=2)
    mean = np.sort(far, axis=1)[:, :NUM_NEIGHBOURS].mean(axis=1)
    own = np.linalg.norm(clean[:, None] - clean, axis=2)
    # without the point itself, which is its own nearest one
    usual = np.log(np.sort(own, axis=1)[:, 1 : NUM_NEIGHBOURS + 1].mean(axis=1) + SMALL_DISTANCE)
    expected = (np.log(mean + SMALL_DISTANCE) - usual.mean()) / usual.std() / 2
    np.testing.assert_allclose(cloud.scores(placed), expected, rtol=1e-12)


def test_several_high_readings_tell_more_than_a_very_high_one():
    points = np.random.default_rng(0).normal(size=(500, 4))
    cloud = Cloud.of(points, np.zeros(500, int), 1, np.ones(4, int))
    several, single = cloud.scores(np.array([[3.0] * 4, [6, 0, 0, 0]]))
    assert several > single > cloud.scores(points).mean() + 2
    assert np.linalg.norm([3.0] * 4) == np.linalg.norm([6, 0, 0, 0])


def test_a_point_is_judged_alone_as_in_company():
    _, _, cloud = cloud_of()
    placed = np.random.default_rng(2).normal(size=(50, 2)) * 3
    together = cloud.scores(placed)
    assert np.array_equal([cloud.scores(placed[[row]])[0] for row in range(50)], together)


def test_a_class_of_one_point_keeps_close_to_the_mean_of_all():
    points = np.concatenate([np.zeros((100, 1)), [[11.0]]])
    label = np.r_[np.zeros(100, int), 1]
    cloud = Cloud.of(points, label, 2, np.array([0]))
    mean = 11 / 101
    assert cloud.centres[1, 0] == pytest.approx((11 + 10 * mean) / 11)
    unseen = cloud.placed(np.array([[cloud.centres.mean()]]), np.array([5]))
    assert unseen == pytest.approx(0)
