"""`measure` and `sweep`: closed forms, invariance, controls, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import wobbliness
from wobbliness.study.training.networks import build_network


def entropy(probabilities):
    return special.entr(probabilities).sum(axis=-1)


def bands(images):
    """Four classes: the first feature is in (-inf, 0.25), [0.25, 0.5), [0.5, 0.75), [0.75, inf)."""
    return np.digitize(images.reshape(len(images), -1)[:, 0], [0.25, 0.5, 0.75])


def band_probabilities(first, sigma):
    cuts = special.ndtr((np.array([0.25, 0.5, 0.75]) - first[:, None]) / sigma)
    return np.diff(
        np.concatenate([np.zeros((len(first), 1)), cuts, np.ones((len(first), 1))], axis=1)
    )


@pytest.mark.parametrize("sigma", [0.05, 0.15, 0.5])
def test_half_space_agrees_with_closed_form(half_space, sigma):
    images = np.random.default_rng(1).uniform(size=(300, 1, 8, 8)).astype(np.float32)
    votes = wobbliness.measure(half_space, images, sigma=sigma)
    p = half_space.probability(images, sigma)
    exact = entropy(np.stack([p, 1 - p], axis=1))
    assert (np.abs(votes.wobbliness - exact) <= 5 * votes.standard_error).all()
    assert exact.std() > 0.01


@pytest.mark.parametrize("sigma", [0.05, 0.15, 0.5])
def test_four_classes_agree_with_closed_form(sigma):
    images = np.random.default_rng(2).uniform(size=(400, 3)).astype(np.float32)
    votes = wobbliness.measure(bands, images, sigma=sigma, num_classes=4)
    exact = entropy(band_probabilities(images[:, 0].astype(np.float64), sigma))
    assert (np.abs(votes.wobbliness - exact) <= 5 * votes.standard_error).all()


def test_a_wrong_sigma_is_seen(half_space):
    """Control: the closed-form check would notice noise of another size."""
    images = np.random.default_rng(1).uniform(size=(300, 1, 8, 8)).astype(np.float32)
    p = half_space.probability(images, 0.3)
    votes = wobbliness.measure(half_space, images, sigma=0.15)
    exact = entropy(np.stack([p, 1 - p], axis=1))
    assert (np.abs(votes.wobbliness - exact) > 5 * votes.standard_error).any()


def test_constant_classifier_is_smooth(images):
    votes = wobbliness.measure(
        lambda batch: np.zeros(len(batch), np.int64), images, sigma=1.0, draws=50, num_classes=10
    )
    assert (votes.wobbliness == 0).all()
    assert (votes.standard_error > 0).all()
    assert (votes.label == 0).all()


def test_noise_is_gaussian_of_the_stated_size_and_not_clipped():
    seen = []

    def record(batch):
        seen.append(batch.copy())
        return np.zeros(len(batch), np.int64)

    wobbliness.measure(record, np.ones((1, 1, 8, 8)), sigma=0.3, draws=400)
    noise = (np.concatenate(seen)[-400:] - 1).ravel() / 0.3  # the first ones are a probe's
    assert noise.size == 400 * 64
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)
    assert noise.max() > 3


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
def test_block_size_never_changes_a_vote_of_a_rowwise_classifier(half_space, images, block_size):
    reference = wobbliness.measure(half_space, images, sigma=0.2)
    assert np.array_equal(
        wobbliness.measure(half_space, images, sigma=0.2, block_size=block_size).counts,
        reference.counts,
    )


@given(order=st.permutations(range(12)), keep=st.integers(1, 12), seed=st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_votes_do_not_depend_on_order_or_company(half_space, digits, order, keep, seed):
    images = digits.test.images[:12]
    together = wobbliness.measure(half_space, images, sigma=0.2, draws=70, seed=seed, num_classes=2)
    chosen = np.array(order[:keep])
    apart = wobbliness.measure(
        half_space, images[chosen], sigma=0.2, draws=70, seed=seed, num_classes=2
    )
    assert np.array_equal(apart.counts, together.counts[chosen])


ARCHITECTURES = [
    "small_cnn",
    pytest.param("large_cnn", marks=pytest.mark.scale),
    pytest.param("resnet18_width16", marks=pytest.mark.scale),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_networks_give_equal_counts_for_any_workers_order_and_company(digits, architecture):
    network = build_network(architecture, (1, 8, 8), 10, seed=0)
    images = digits.test.images[:6]
    one = wobbliness.measure(network, images, sigma=0.3, draws=100, workers=1)
    two = wobbliness.measure(network, images, sigma=0.3, draws=100, workers=2)
    backwards = wobbliness.measure(network, images[::-1].copy(), sigma=0.3, draws=100)
    alone = wobbliness.measure(network, images[3:4], sigma=0.3, draws=100)
    assert np.array_equal(one.counts, two.counts)
    assert np.array_equal(one.counts, backwards.counts[::-1])
    assert np.array_equal(one.counts[3:4], alone.counts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_block_size_changes_few_labels_of_networks(digits, architecture, block_size):
    network = build_network(architecture, (1, 8, 8), 10, seed=0)
    images = digits.test.images[:40]
    reference = wobbliness.measure(network, images, sigma=0.3, block_size=64)
    other = wobbliness.measure(network, images, sigma=0.3, block_size=block_size)
    assert np.abs(reference.counts - other.counts).sum() / 2 <= reference.counts.sum() / 10_000


def test_sweep_equals_measure_at_each_sigma(half_space, images):
    sweep = wobbliness.sweep(half_space, images, sigmas=[0.2, 0.05], draws=100, seed=3)
    assert list(sweep) == [0.2, 0.05]
    for sigma in sweep:
        assert np.array_equal(
            sweep[sigma].counts,
            wobbliness.measure(half_space, images, sigma, draws=100, seed=3).counts,
        )
    with pytest.raises(KeyError, match="measured sigmas"):
        sweep[0.1]


def test_sweep_uses_the_same_draws_at_every_sigma():
    seen = []

    def record(batch):
        seen.append(batch.copy())
        return np.zeros(len(batch), np.int64)

    wobbliness.sweep(record, np.full((1, 5), 0.5), sigmas=[0.5, 1.0], draws=10)
    seen = [batch for batch in seen if len(batch) == 10]  # the others are those of the probe
    np.testing.assert_allclose(seen[-1] - 0.5, 2 * (seen[-2] - 0.5), atol=1e-6)


def test_seed_decides_the_noise(half_space, images):
    first = wobbliness.measure(half_space, images, sigma=0.2, seed=0)
    assert np.array_equal(
        first.counts, wobbliness.measure(half_space, images, sigma=0.2, seed=0).counts
    )
    assert not np.array_equal(
        first.counts, wobbliness.measure(half_space, images, sigma=0.2, seed=1).counts
    )


def test_keys_give_two_arrays_the_same_draws(half_space, images):
    keys = wobbliness.image_keys(images)
    stamped = wobbliness.trigger("square").apply(images)
    both = []

    def record(batch):
        both.append(batch.copy())
        return half_space(batch)

    wobbliness.measure(record, images[:1], sigma=0.1, draws=5, keys=keys[:1])
    plain = both[-1]
    wobbliness.measure(record, stamped[:1], sigma=0.1, draws=5, keys=keys[:1])
    np.testing.assert_allclose(both[-1] - stamped[:1], plain - images[:1], atol=1e-6)
    assert not np.array_equal(wobbliness.image_keys(stamped), keys)


def test_further_draws_add_up(half_space, images):
    whole = wobbliness.measure(half_space, images, sigma=0.2, draws=230)
    parts = wobbliness.measure(half_space, images, 0.2, 100) + wobbliness.measure(
        half_space, images, 0.2, 130, first_draw=100
    )
    assert np.array_equal(whole.counts, parts.counts)
    assert parts.spans == whole.spans
    assert (parts.draws, parts.seed) == (230, 0)


def test_a_callable_gets_what_the_images_were(images):
    kinds = []

    def note(batch):
        kinds.append(type(batch))
        return batch.reshape(len(batch), -1)[:, :3]

    array = wobbliness.measure(note, images, sigma=0.1, draws=5)
    tensor = wobbliness.measure(note, torch.from_numpy(images), sigma=0.1, draws=5)
    assert set(kinds) == {np.ndarray, torch.Tensor}
    assert np.array_equal(array.counts, tensor.counts)


def test_scores_tell_the_number_of_classes(images):
    """Also of classes that no copy was ever named, on which the uncertainty depends."""
    scores = np.array([5.0, 0, 0, 0, 0, 0])
    votes = wobbliness.measure(
        lambda batch: np.tile(scores, (len(batch), 1)), images[:2], sigma=0.1, draws=20
    )
    assert votes.counts.tolist() == [[20, 0, 0, 0, 0, 0]] * 2
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    assert wobbliness.measure(network, images[:2], sigma=0.1, draws=20).counts.shape == (2, 10)
    halves = wobbliness.measure(
        lambda batch: batch.reshape(len(batch), -1)[:, 9] > 0.5, images, sigma=0.1, draws=20
    )
    assert halves.counts.shape == (40, 2)


class Flattener(torch.nn.Module):
    """Wants contiguous features, as many tutorials' networks do."""

    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(3 * 8 * 8, 4)

    def forward(self, images):
        return self.dense(images.view(images.size(0), -1))


def test_colour_images_may_be_flattened_by_view():
    images = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    torch.manual_seed(0)
    network = Flattener()
    one, two = (
        wobbliness.measure(network, images, sigma=0.5, draws=100, workers=workers)
        for workers in (1, 2)
    )
    assert np.array_equal(one.counts, two.counts)
    by_call = wobbliness.measure(
        lambda batch: network(batch), torch.from_numpy(images), sigma=0.5, draws=100
    )
    assert np.abs(one.counts - by_call.counts).sum() <= 2


def test_an_opened_classifier_takes_a_declared_number_of_classes(images):
    sevens = wobbliness.open_classifier(lambda batch: np.full(len(batch), 7))
    with pytest.raises(ValueError, match="^expected labels from 0 to 4, got 7"):
        wobbliness.measure(sevens, images, sigma=0.1, draws=4, num_classes=5)
    for wrong in (-3, 0, 1):
        with pytest.raises(ValueError, match="^expected a number of classes"):
            wobbliness.measure(
                lambda batch: np.zeros(len(batch), np.int64),
                images,
                sigma=0.1,
                draws=4,
                num_classes=wrong,
            )


def test_a_module_is_left_as_it_was(images):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0).train()
    threads = torch.get_num_threads()
    wobbliness.measure(network, images[:2], sigma=0.1, draws=5)
    assert network.training
    assert torch.get_num_threads() == threads


def test_labels_scores_and_modules_agree(images):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0).eval()
    module = wobbliness.measure(network, images, sigma=0.2, draws=50)
    scores = wobbliness.measure(network, torch.from_numpy(images), sigma=0.2, draws=50)
    labels = wobbliness.measure(
        lambda batch: network(batch).argmax(dim=1), torch.from_numpy(images), sigma=0.2, draws=50
    )
    assert np.array_equal(module.counts, scores.counts)
    assert (
        np.abs(
            module.counts.sum(axis=0)
            - np.bincount(
                np.repeat(np.arange(labels.counts.shape[1]), labels.counts.sum(axis=0)),
                minlength=10,
            )
        ).sum()
        <= 1
    )


def test_peak_memory_does_not_grow_with_images_times_draws(half_space):
    import tracemalloc

    def peak(num_images, draws):
        images = np.zeros((num_images, 64), np.float32)
        tracemalloc.start()
        wobbliness.measure(half_space, images, sigma=0.1, draws=draws, num_classes=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2, 6400)
    assert peak(2, 64_000) < peak(2, 6400) + 200_000
    assert peak(200, 6400) < peak(2, 6400) + 200_000
    assert 2 * 64_000 * 64 * 4 > 30_000_000, "what all copies at once would take"


BAD_IMAGES = {
    "empty": np.zeros((0, 1, 8, 8)),
    "empty picture": np.zeros((2, 1, 0, 8)),
    "one axis": np.zeros(5),
    "integers": np.zeros((2, 1, 8, 8), np.uint8),
    "NaN": np.full((2, 1, 8, 8), np.nan),
    "infinite": np.full((2, 1, 8, 8), np.inf),
    "negative": np.full((2, 1, 8, 8), -0.1),
    "above 1": np.full((2, 1, 8, 8), 1.1),
    "channels last": np.zeros((2, 8, 8, 3)),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused(half_space, name):
    with pytest.raises(ValueError, match="^expected .*, got "):
        wobbliness.measure(half_space, BAD_IMAGES[name], sigma=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": -0.1},
        {"sigma": float("nan")},
        {"sigma": float("inf")},
        {"draws": 0},
        {"seed": -1},
        {"keys": [1]},
        {"keys": [-1] * 40},
        {"keys": [0.5] * 40},
        {"block_size": 0},
        {"first_draw": -1},
    ],
)
def test_bad_arguments_are_refused(half_space, images, wrong):
    with pytest.raises(ValueError, match="^expected .*, got "):
        wobbliness.measure(half_space, images, **{"sigma": 0.1, **wrong})


def test_repeated_sigmas_are_refused(half_space, images):
    for sigmas in ([0.1, 0.1], []):
        with pytest.raises(ValueError, match="distinct sigmas"):
            wobbliness.sweep(half_space, images, sigmas)


BAD_CLASSIFIERS = {
    "too few rows": lambda batch: np.zeros(len(batch) - 1, np.int64),
    "three axes": lambda batch: np.zeros((len(batch), 2, 2)),
    "NaN scores": lambda batch: np.full((len(batch), 3), np.nan),
    "one score": lambda batch: np.zeros((len(batch), 1)),
    "float labels": lambda batch: np.zeros(len(batch)),
    "negative labels": lambda batch: np.full(len(batch), -1),
    "labels out of range": lambda batch: np.full(len(batch), 10),
    "other number of scores": lambda batch: np.zeros((len(batch), 9)),
}


@pytest.mark.parametrize("name", BAD_CLASSIFIERS)
def test_bad_answers_are_refused(images, name):
    with pytest.raises(ValueError, match="^expected "):
        wobbliness.measure(BAD_CLASSIFIERS[name], images, sigma=0.1, draws=4, num_classes=10)


def test_module_that_refuses_the_images_is_one_line(images):
    network = build_network("small_cnn", (3, 8, 8), 10, seed=0)
    with pytest.raises(ValueError, match="^expected images of 3 channels, got 1"):
        wobbliness.measure(network, images, sigma=0.1, draws=4)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    with pytest.raises(
        ValueError, match=r"^expected images that the module accepts, got \(1, 8, 8\) each"
    ):
        wobbliness.measure(linear, images, sigma=0.1, draws=4)


@pytest.mark.parametrize(
    "source", [3, "model.h5", "missing.onnx", "no_such_module:f", "wobbliness:nothing"]
)
def test_what_is_no_classifier_is_refused(source):
    with pytest.raises(ValueError, match="^expected "):
        wobbliness.open_classifier(source)


@pytest.mark.parametrize("name", ["draws", "first_draw", "block_size", "workers"])
def test_numbers_beyond_all_measure_are_refused(half_space, images, name):
    with pytest.raises(
        ValueError,
        match=r"^expected .* as an integer of at most 1099511627776, got 99999999999999999999$",
    ):
        wobbliness.measure(half_space, images[:2], 0.1, **{"draws": 5, name: 99999999999999999999})
    if name != "draws":
        wobbliness.measure(half_space, images[:2], 0.1, **{"draws": 5, name: 2**40}), "control"
