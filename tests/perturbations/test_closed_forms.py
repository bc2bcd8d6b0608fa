"""What each family does, by a closed form, a theorem or an independent computation."""

import colorsys
import math

import numpy as np
import pytest
from scipy import ndimage, stats
from test_families import OVERLAYS, SHAPE, copies, direction

import wobbliness
import wobbliness.perturbations as families
from wobbliness.perturbations.noise.laplace_transform import fill_laplace
from wobbliness.perturbations.pictures.poisson import quantiles

DRAWS = 4000
Z = 4.0  # standard errors that a frequency may be off by


@pytest.fixture
def image():
    return np.random.default_rng(3).random(SHAPE, dtype=np.float32)


def assert_frequency(found, expected, draws=DRAWS):
    """Compares a share of draws with its probability, by the binomial standard error."""
    error = Z * np.sqrt(np.asarray(expected) * (1 - np.asarray(expected)) / draws)
    assert (np.abs(found - expected) <= error + 1e-12).all(), (found, expected)


def share_above(perturbation, x, threshold=0.5):
    """Share of the copies of a number that are above a threshold."""
    votes = wobbliness.measure(
        lambda rows: (rows.sum(axis=1) > threshold).astype(int),
        np.full((1, 1), x, np.float32),
        perturbation,
        DRAWS,
        num_classes=2,
    )
    return votes.probabilities[0, 1]


@pytest.mark.parametrize("x", [0.2, 0.45, 0.5, 0.6])
def test_a_threshold_under_noise_has_the_probability_of_the_distribution(x):
    std, margin = 0.15, 0.5 - x
    width = math.sqrt(3) * std
    uniform = np.clip((width - margin) / (2 * width), 0, 1)
    assert_frequency(share_above(families.Uniform(std), x), uniform)
    laplace = stats.laplace.sf(margin, scale=std / math.sqrt(2))
    assert_frequency(share_above(families.Laplace(std), x), laplace)
    assert_frequency(share_above(families.Gaussian(std), x), stats.norm.sf(margin / std))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_half_space_under_uniform_noise_is_irwin_halls(size):
    """The sum of d uniform values on [0, 1] is below s with probability F_d(s)."""
    std, x = 0.1, np.linspace(0.4, 0.55, size, dtype=np.float32)[None]
    width, border = math.sqrt(3) * std, size / 2
    votes = wobbliness.measure(
        lambda rows: (rows.sum(axis=1) > border).astype(int),
        x,
        families.Uniform(std),
        DRAWS,
        num_classes=2,
    )
    s = (border - float(x.sum()) + size * width) / (2 * width)
    below = sum(
        (-1) ** k * math.comb(size, k) * (s - k) ** size for k in range(math.floor(s) + 1)
    ) / math.factorial(size)
    assert_frequency(votes.probabilities[0, 0], below)


def test_noise_has_the_stated_standard_deviation(image):
    for family in (families.Uniform, families.Laplace, families.Gaussian):
        noise = copies(family(0.1), image, DRAWS) - image
        np.testing.assert_allclose(noise.std(axis=0), 0.1, rtol=0.1)
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=Z * 0.1 / math.sqrt(DRAWS))
        assert abs(noise.std() - 0.1) < 1e-3


def test_values_of_one_copy_are_independent(image):
    for family in (families.Uniform, families.Laplace):
        noise = (copies(family(0.1), image, DRAWS) - image).reshape(DRAWS, -1)[:, :20]
        off = np.corrcoef(noise.T)[np.triu_indices(20, 1)]
        assert np.abs(off).max() < 5 / math.sqrt(DRAWS)


def test_salt_and_pepper_replace_their_share_by_black_and_white(image):
    made = copies(families.SaltAndPepper(0.3), image, DRAWS)
    for value in (0, 1):
        is_value = made == value
        assert (is_value == is_value[:, :1]).all(), "all channels of a pixel"
        assert_frequency(is_value[:, 0].mean(axis=0).mean(), 0.15, DRAWS * 64)
    assert np.array_equal(copies(families.SaltAndPepper(0), image, 3), np.stack([image] * 3))
    assert np.isin(copies(families.SaltAndPepper(1), image, 3), [0, 1]).all()


def test_a_feature_is_kept_or_one_of_the_others():
    levels = np.array([[0.0, 1 / 3, 2 / 3, 1.0]], np.float32)
    made = copies(families.KeepFeature(0.7, levels=4), levels, DRAWS)
    index = np.rint(3 * made).astype(int)[:, 0]
    for own in range(4):
        shares = np.bincount(index[:, own], minlength=4) / DRAWS
        expected = np.where(np.arange(4) == own, 0.7, 0.1)
        assert_frequency(shares, expected)
    assert np.array_equal(copies(families.KeepFeature(1.0), levels, 5), np.stack([levels] * 5))
    assert (copies(families.KeepFeature(0.0, levels=2), levels[:, [0, 3]], 5) == [[1, 0]]).all()


def test_flows_keep_the_sum_and_have_the_variance_of_their_neighbours(image):
    noise = copies(families.Flow(0.05), image, DRAWS) - image
    np.testing.assert_allclose(noise.sum(axis=(2, 3)), 0, atol=1e-4)
    rows = np.array([1, 2, 2, 2, 2, 2, 2, 1])
    neighbours = rows[:, None] + rows
    variance = noise.var(axis=0)
    np.testing.assert_allclose(variance, np.stack([neighbours * 0.05**2] * 3), rtol=0.2)


def box_probability(size, sides):
    """Probability that each place of a row is inside of a box, by enumeration."""
    inside = np.zeros(size)
    for side in sides:
        for start in range(size - side + 1):
            inside[start : start + side] += 1 / (size - side + 1) / len(sides)
    return inside


def test_boxes_have_their_place_and_sides_uniformly(image):
    sides = range(round(0.36 * 8), round(0.82 * 8) + 1)
    along = box_probability(8, sides)
    made = copies(families.BoxMix(OVERLAYS), image, DRAWS)
    is_replaced = (made != image).any(axis=1)
    assert_frequency(is_replaced.mean(axis=0), np.outer(along, along))
    kept = copies(families.KeepBox(OVERLAYS), image, DRAWS)
    assert np.array_equal((kept == image).all(axis=1), is_replaced), "the complement"
    noisy = copies(families.BoxNoise(0.2), image, DRAWS)
    everywhere = copies(families.Gaussian(0.2), image, DRAWS)
    inside = np.broadcast_to(is_replaced[:, None], noisy.shape)
    np.testing.assert_allclose(noisy[inside], everywhere[inside], atol=1e-6)
    assert np.array_equal(noisy[~inside], np.broadcast_to(image, noisy.shape)[~inside])


def test_each_overlay_is_as_likely_and_comes_whole(image):
    made = copies(families.KeepBox(OVERLAYS, 0, 0), image, DRAWS)
    equal = (made[:, None] == OVERLAYS[None]).all(axis=(2, 3, 4))
    assert (equal.sum(axis=1) == 1).all()
    assert_frequency(equal.mean(axis=0), np.full(6, 1 / 6))
    assert (copies(families.BoxMix(OVERLAYS, 0, 0), image, 5) == image).all()
    assert np.isin(copies(families.BoxMix(OVERLAYS, 1, 1), image, 5), OVERLAYS).all()


def test_cells_are_replaced_with_the_stated_probability(image):
    made = copies(families.CellMix(OVERLAYS, share=0.7, cells=4), image, DRAWS)
    cells = (made != image).any(axis=1).reshape(DRAWS, 4, 2, 4, 2)
    whole = cells.all(axis=(2, 4))
    assert np.array_equal(whole, cells.any(axis=(2, 4)))
    assert_frequency(whole.mean(axis=0), np.full((4, 4), 0.7))


def test_edges_are_flipped_with_the_stated_probability_and_stay_symmetric():
    graph = np.triu(np.random.default_rng(2).random((6, 6)) > 0.5, k=1)
    graph = (graph | graph.T).astype(np.float32)
    made = copies(families.EdgeFlip(0.2), graph, DRAWS)
    assert np.array_equal(made, made.swapaxes(1, 2))
    is_flipped = made != graph
    assert not np.diagonal(is_flipped, axis1=1, axis2=2).any()
    assert_frequency(is_flipped.mean(axis=0), 0.2 * (1 - np.eye(6)))
    pairs = is_flipped[:, *np.triu_indices(6, k=1)]
    off = np.corrcoef(pairs.T)[np.triu_indices(15, 1)]
    assert np.abs(off).max() < 5 / math.sqrt(DRAWS), "independent"
    assert np.array_equal(copies(families.EdgeFlip(1), graph, 1)[0], 1 - graph - np.eye(6))


def test_the_patch_slides_from_corner_to_corner(image):
    made = copies(families.Occlude(0.5, places=3, value=0.25), image, 9)
    for number, (top, left) in enumerate(
        (row, column) for row in (0, 2, 4) for column in (0, 2, 4)
    ):
        expected = image.copy()
        expected[:, top : top + 4, left : left + 4] = 0.25
        assert np.array_equal(made[number], expected)


def test_what_changes_nothing(image):
    black = np.zeros((2, *SHAPE), np.float32)
    for made in (
        families.Scale(1),
        families.Superpose(black, mix="sum"),
        families.Affine(),
        families.Uniform(0),
        families.Laplace(0),
        families.Flow(0),
        families.CellMix(OVERLAYS, share=0.0),
        families.BoxNoise(0),
        families.Occlude(0),
        families.Blur(0),
    ):
        found = copies(made, image, 1)
        assert np.array_equal(found[0], image), made.name
    for made in (families.Elastic(0), families.Contrast(1)):
        np.testing.assert_allclose(copies(made, image, 1)[0], image, atol=1e-6)


def test_strip_by_labels_is_the_entropy_of_the_labels_of_the_sums():
    pictures = np.random.default_rng(4).random((5, *SHAPE), dtype=np.float32)
    for mix in ("sum", "mean"):
        votes = wobbliness.measure(
            direction, pictures, families.Superpose(OVERLAYS, mix=mix), num_classes=4
        )
        assert votes.draws == 6
        for picture, counts, w in zip(pictures, votes.counts, votes.wobbliness, strict=True):
            mixed = np.clip(picture + OVERLAYS, 0, 1) if mix == "sum" else (picture + OVERLAYS) / 2
            expected = np.bincount(direction(mixed), minlength=4)
            assert np.array_equal(counts, expected)
            assert w == pytest.approx(stats.entropy(expected))


def test_factors_multiply_and_clip(image):
    made = copies(families.Scale(3, 0.5), image, 2)
    np.testing.assert_allclose(
        made, np.clip(np.float32([3, 0.5])[:, None, None, None] * image, 0, 1)
    )
    flat = copies(families.Contrast(0), image, 1)[0]
    np.testing.assert_allclose(flat, image.mean(axis=(1, 2), keepdims=True) + 0 * image, rtol=1e-6)


def test_a_blur_is_a_convolution_with_the_gaussian_kernel():
    point = np.zeros((1, 21, 21), np.float32)
    point[0, 10, 10] = 1
    made = copies(families.Blur(1.5), point, 1)[0, 0]
    axis = np.arange(21) - 10
    kernel = np.exp(-(axis**2) / (2 * 1.5**2)) * (np.abs(axis) <= 6)
    np.testing.assert_allclose(made, np.outer(kernel, kernel) / kernel.sum() ** 2, atol=1e-6)


def test_affine_copies_are_those_of_their_own_matrix():
    """A picture that is linear in its coordinates shows shift, rotation and zoom exactly."""
    rows, columns = np.indices((41, 41), dtype=np.float32)
    for value in (rows, columns):
        ramp = ((value - 20) / 80 + 0.5)[None].astype(np.float32)
        made = copies(families.Affine(rotation=30, zoom=0.3), ramp, 50)[:, 0]
        assert np.allclose(made[:, 20, 20], 0.5, atol=1e-5), "the centre stays"
        down, right = (made[:, 21, 20] - 0.5) * 80, (made[:, 20, 21] - 0.5) * 80
        factor = np.hypot(down, right)
        assert 1 / 1.3 - 1e-3 <= factor.min() < factor.max() <= 1 / 0.7 + 1e-3
        angle = np.degrees(np.arctan2(right, down) if value is rows else np.arctan2(down, right))
        assert 20 < np.abs(angle).max() <= 30 + 1e-2
        shifted = copies(families.Affine(shift=0.1), ramp, 50)[:, 0, 20, 20]
        assert 3 < (np.abs(shifted - 0.5) * 80).max() <= 4.1 + 1e-3


def test_a_smooth_displacement_moves_a_ramp_by_its_own_amount():
    rows = ((np.indices((41, 41))[0] - 20) / 80 + 0.5)[None].astype(np.float32)
    made = copies(families.Elastic(6, width=4), rows, 30)[:, 0]
    moved = (made - rows)[:, 8:-8, 8:-8] * 80
    assert 0.2 < np.abs(moved).max() < 6
    np.testing.assert_allclose(np.diff(moved, axis=2), 0, atol=0.5, err_msg="smooth")


def test_a_function_of_the_users_own_gets_a_generator_for_each_copy(image):
    seen = []

    def brighten(own, rng):
        seen.append(rng.random())
        return own + np.float32(0.25)

    made = copies(families.Custom(brighten, name="brighter"), image, 4)
    assert np.array_equal(made, np.stack([image + np.float32(0.25)] * 4))
    assert len(set(seen)) == 4
    wrong = families.Custom(lambda own, _: own[:1], name="smaller")
    with pytest.raises(ValueError, match=r"expected smaller to return a copy of shape \(3, 8, 8\)"):
        copies(wrong, image, 1)


def test_laplace_draws_are_the_quantiles_of_their_words():
    """Also in the far tails and next to the middle, where a float keeps few digits of 1 - 2 |v|."""
    edges = [0, 1, 2**9, 2**31 - 1, 2**31, 2**31 + 2**9, 2**32 - 1]
    words = np.random.default_rng(0).integers(0, 2**32, 1000, dtype=np.uint32)
    words = np.concatenate([np.array(edges, np.uint32), words])[None]
    made = np.empty(words.shape, np.float32)
    fill_laplace(words, made)
    v = (words >> 9).astype(np.float64) * 2.0**-23 + 2.0**-24 - 0.5
    expected = -np.sign(v) * np.log1p(-2 * np.abs(v))
    np.testing.assert_allclose(made, expected, rtol=4e-7, atol=1e-7)


def test_poisson_quantiles_are_those_of_scipy():
    rng = np.random.default_rng(0)
    means = np.concatenate([[0.0, 1e-12, 500.0, 500.0], 500 * rng.random(2000) ** 3])
    chances = np.concatenate([[1 - 2.0**-24, 0.5, 2.0**-24, 1 - 2.0**-24], rng.random(2000)])
    counts = np.empty_like(means)
    quantiles(means, chances, counts)
    # ppf of mean 0 is 0, and scipy counts from -1 where the chance is 0
    np.testing.assert_array_equal(counts, np.maximum(stats.poisson.ppf(chances, means), 0))


def severity(kind, image, number, **settings):
    """The copy at one severity."""
    return copies(families.Corrupt(kind, (number,)), image, 1, **settings)[0]


def test_corruptions_are_their_formulas(image):
    def eight_bits(values):
        return np.floor(np.clip(values, 0, 1) * 255) / 255

    mean = image.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        severity("contrast", image, 3), eight_bits((image - mean) * 0.4 + mean), atol=1 / 254
    )
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(3, -1).T.astype(float)]
    brighter = [colorsys.hsv_to_rgb(h, s, min(v + 0.3, 1)) for h, s, v in hsv]
    np.testing.assert_allclose(
        severity("brightness", image, 5).reshape(3, -1).T,
        eight_bits(np.array(brighter)),
        atol=1 / 254,
    )
    blurred = np.stack([ndimage.gaussian_filter(part, 0.7, mode="nearest") for part in image])
    np.testing.assert_allclose(
        severity("gaussian-blur", image, 3), eight_bits(blurred), atol=1 / 254
    )
    constant = np.full(SHAPE, 0.5, np.float32)
    for kind in ("defocus-blur", "zoom-blur", "pixelate", "gaussian-blur", "contrast"):
        np.testing.assert_allclose(severity(kind, constant, 5), 127 / 255, atol=1e-6, err_msg=kind)


def test_corruptions_by_chance_have_their_mean_and_variance():
    constant = np.full((1, 60, 60), 0.4, np.float32)
    expected = {
        "gaussian-noise": 0.08**2,
        "speckle-noise": (0.12 * 0.4) ** 2,
        "shot-noise": 0.4 / 100,
    }
    for kind, variance in expected.items():
        made = severity(kind, constant, 3)
        assert made.mean() == pytest.approx(0.4 - 0.5 / 255, abs=0.006), kind
        assert made.var() == pytest.approx(variance, rel=0.12), kind
    impulses = severity("impulse-noise", constant, 5)
    assert_frequency(np.mean(impulses == 1), 0.035, 3600)
    assert_frequency(np.mean(impulses == 0), 0.035, 3600)
    dark = severity("shot-noise", np.zeros((1, 8, 8), np.float32), 5)
    assert dark.max() == 0
