"""Under families of few draws images share blocks, and their votes do not show it."""

import numpy as np
import pytest
import torch

import wobbliness
from wobbliness.perturbations import Amplify, Corrupt, Gaussian, Scale, Superpose
from wobbliness.perturbations.base import Scratch, Stream, image_keys
from wobbliness.perturbations.pictures.corrupt import KINDS
from wobbliness.sampling.counting.group_counting import GroupCounter
from wobbliness.study.training.networks import build_network

FACTORS = (0.25, 0.5, 2, 3, 4)


@pytest.fixture(scope="module")
def network():
    return build_network("small_cnn", (1, 8, 8), 10, seed=3).eval()


@pytest.fixture
def groups(monkeypatch):
    """Numbers of groups that were counted."""
    counted = []
    call = GroupCounter.__call__
    monkeypatch.setattr(
        GroupCounter, "__call__", lambda own, group: (counted.append(group), call(own, group))[1]
    )
    return counted


def slow_counts(network, images, perturbation):
    """One copy at a time through the module itself."""
    counts = np.zeros((len(images), 10), np.int64)
    for index, (image, key) in enumerate(zip(images, image_keys(images), strict=True)):
        for draw in range(perturbation.num_draws):
            copy = np.empty((1, *image.shape), np.float32)
            stream = Stream(0, int(key), first_draw=draw, scratch=Scratch())
            perturbation.copies(stream, image, 1, copy)
            with torch.inference_mode():
                counts[index, int(network(torch.from_numpy(copy)).argmax())] += 1
    return counts


def test_votes_are_those_of_a_slow_loop(network, images, groups):
    votes = wobbliness.measure(network, images, Scale(*FACTORS))
    assert groups, "control: images share blocks"
    assert votes.execution.block_size > len(FACTORS)
    assert np.array_equal(votes.counts, slow_counts(network, images, Scale(*FACTORS)))
    assert votes.wobbliness.max() > 0, "control: the factor matters"


def test_votes_do_not_depend_on_order_company_or_workers(network, images, groups):
    measure = wobbliness.measure
    votes = measure(network, images, Scale(*FACTORS)).counts
    assert np.array_equal(measure(network, images[::-1], Scale(*FACTORS)).counts[::-1], votes)
    for index in (0, 17, 39):
        alone = measure(network, images[index : index + 1], Scale(*FACTORS)).counts
        assert np.array_equal(alone[0], votes[index])
    for workers in (1, 3, 40):
        assert np.array_equal(
            measure(network, images, Scale(*FACTORS), workers=workers).counts, votes
        )
    assert len(set(groups)) > 1
    parts = [
        measure(network, images, Scale(*FACTORS), draws, first_draw=first)
        for first, draws in ((0, 2), (2, 9))
    ]
    assert np.array_equal((parts[0] + parts[1]).counts, votes)
    # Blocks of an image's own, as one asks for them.
    num_groups = len(groups)
    own = measure(network, images, Scale(*FACTORS), block_size=2)
    assert np.array_equal(own.counts, votes)
    assert len(groups) == num_groups


def test_a_sweep_gives_what_each_gives_alone(network, images, groups):
    perturbations = [Corrupt(kind, (severity,)) for kind in KINDS for severity in (1, 5)]
    perturbations += [Scale(*FACTORS), Superpose(images[:7])]
    done = []
    sweep = wobbliness.sweep(
        network, images, perturbations, keep_clean=True, progress=lambda *at: done.append(at)
    )
    assert groups
    assert done[-1] == (len(images), len(images))
    with torch.inference_mode():
        clean = network(torch.from_numpy(images)).argmax(1).numpy()
    for made in perturbations:
        alone = wobbliness.measure(network, images, made)
        assert np.array_equal(sweep[made.name].counts, alone.counts), made.name
        assert sweep[made.name].draws == made.num_draws
        assert np.array_equal(sweep[made.name].clean_label, clean)


def test_sums_of_scores_are_those_of_blocks_of_an_images_own(network, images, groups):
    made = Superpose(images[:7])
    votes = wobbliness.measure(network, images, made, scores="logits")
    assert groups
    own = wobbliness.measure(network, images, made, scores="logits", block_size=3)
    assert np.array_equal(votes.counts, own.counts)
    for name in ("probabilities", "squares", "entropies", "clean"):
        found, expected = getattr(votes.scores, name), getattr(own.scores, name)
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("perturbations", "settings"),
    [([Gaussian(0.1), Scale(*FACTORS)], {}), ([Scale(*FACTORS)], {"block_size": 5})],
)
def test_others_have_blocks_of_their_own(network, images, groups, perturbations, settings):
    wobbliness.sweep(network, images, perturbations, 30, **settings)
    assert not groups


def test_a_callable_is_asked_for_each_copy_once(images, groups):
    asked = []

    def bright(batch):
        asked.append(len(batch))
        return (batch.mean(axis=(1, 2, 3)) > 0.3).astype(np.int64)

    wobbliness.measure(bright, images, Scale(*FACTORS), num_classes=2)
    assert not groups
    assert asked.count(len(FACTORS)) >= len(images)


def test_members_of_a_network_share_blocks_too(groups):
    network = build_network("resnet18_width16", (3, 8, 8), 10, seed=0).eval()
    pictures = np.random.default_rng(0).random((9, 3, 8, 8), dtype=np.float32)
    votes = wobbliness.measure(network, pictures, Amplify(2))
    assert groups
    own = wobbliness.measure(network, pictures, Amplify(2), block_size=1)
    assert np.array_equal(votes.counts, own.counts)
