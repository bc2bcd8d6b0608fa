"""Triggers of the whole picture: closed forms, torch as oracle, exact counts, a backdoor learnt."""

import json

import numpy as np
import pytest
import torch

import wobbliness
from wobbliness import Blended, Sinusoid, Warp
from wobbliness.attacks.base import Attack
from wobbliness.attacks.poisoning import poison, poisoned_by, t1, t2, t3
from wobbliness.study.identity import written
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.train import triggered_accuracy
from wobbliness.study.typed_json import from_json

MEMBERS = [
    Blended(),
    Blended("noise", 0.3),
    Blended("noise", 0.3, seed=1),
    Sinusoid(),
    Sinusoid(0.3, 2.5),
    Warp(),
    Warp(3, 2, seed=7),
    Warp(cover_ratio=2),
]
NAMES = [
    "blended-stripes-0.2",
    "blended-noise-0.3",
    "blended-noise-0.3-seed-1",
    "sinusoid-0.1-6",
    "sinusoid-0.3-2.5",
    "warp-4-0.5",
    "warp-3-2-seed-7",
    "warp-4-0.5-covers-2",
]
UNCHANGED = [Blended("stripes", 0), Blended("noise", 0), Sinusoid(0), Sinusoid(0.1, 0), Warp(4, 0)]


@pytest.fixture
def images():
    """Colours, and no square: an axis in the place of another shows."""
    return np.random.default_rng(0).random((5, 3, 14, 17), dtype=np.float32)


each = pytest.mark.parametrize("attack", MEMBERS, ids=lambda attack: attack.name)


@each
def test_an_attack_is_a_pure_function_of_each_image(attack, images):
    before = images.copy()
    stamped = attack.apply(images)
    assert isinstance(attack, Attack)
    np.testing.assert_array_equal(images, before)
    assert (stamped.shape, stamped.dtype) == (images.shape, images.dtype)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped != images).any(axis=(1, 2, 3)).all(), "something is on each image"
    np.testing.assert_array_equal(attack.apply(images[::-1]), stamped[::-1])


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_stay_tensors_and_equal_arrays(attack, dtype, images):
    stamped = attack.apply(torch.from_numpy(images.astype(dtype)))
    assert isinstance(stamped, torch.Tensor)
    np.testing.assert_array_equal(stamped.numpy(), attack.apply(images.astype(dtype)))
    # also where rows are not neighbours in memory
    across = torch.from_numpy(images.astype(dtype)).mT
    np.testing.assert_array_equal(attack.apply(across).numpy(), attack.apply(across.numpy()))


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_precision(attack, dtype, images):
    stamped = attack.apply(torch.from_numpy(images).to(dtype))
    assert stamped.dtype == dtype
    torch.testing.assert_close(
        stamped.float(), torch.from_numpy(attack.apply(images)), atol=0.02, rtol=0
    )


@each
def test_images_without_a_channel_axis_are_grey(attack, images):
    grey = images[:, 0]
    np.testing.assert_array_equal(attack.apply(grey), attack.apply(grey[:, None])[:, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("attack", UNCHANGED, ids=lambda attack: attack.name)
def test_strength_0_changes_nothing(attack, dtype, images):
    np.testing.assert_array_equal(attack.apply(images.astype(dtype)), images.astype(dtype))


@each
def test_extremes_stay_in_the_unit_interval(attack):
    extremes = np.random.default_rng(0).integers(0, 2, (20, 1, 28, 28)).astype(np.float32)
    stamped = attack.apply(extremes)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped != extremes).any()


def test_names_are_stable_and_settings_are_the_identity():
    assert [attack.name for attack in MEMBERS] == NAMES
    assert len({*MEMBERS, Blended("stripes", 0.20), Sinusoid(0.1, 6), Warp(4, 0.50)}) == len(NAMES)
    assert Blended() != Blended("noise")
    assert Warp() != Warp(cover_ratio=1)


@pytest.mark.parametrize("pattern", ["stripes", "noise"])
def test_blending_is_linear_in_the_opacity(pattern, images):
    shown = Blended(pattern, 1).apply(images)
    np.testing.assert_array_equal(shown, np.broadcast_to(shown[0], shown.shape))
    np.testing.assert_array_equal(shown[0], Blended(pattern).pattern_of(3, 14, 17))
    np.testing.assert_allclose(
        Blended(pattern, 0.2).apply(images), 0.8 * images + 0.2 * shown, atol=1e-7
    )


def test_stripes_are_eight_along_each_side():
    stripes = Blended("stripes").pattern_of(2, 32, 16)
    np.testing.assert_array_equal(stripes[0, 0], [0, 0, 1, 1] * 4)
    np.testing.assert_array_equal(stripes[1, :, 0], [0, 0, 0, 0, 1, 1, 1, 1] * 4)
    assert stripes[0, 4, 2] == 0, "diagonal: one stripe down and one across"


def test_noise_is_uniform_and_the_seeds():
    noise = Blended("noise").pattern_of(3, 64, 64)
    z = (noise.mean() - 0.5) / np.sqrt(1 / 12 / noise.size)
    assert abs(z) < 4
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 4 / 64
    np.testing.assert_array_equal(noise, Blended("noise", 0.7).pattern_of(3, 64, 64))
    assert (noise != Blended("noise", seed=1).pattern_of(3, 64, 64)).mean() > 0.99


def test_the_wave_is_the_formula_along_columns(images):
    wave = np.array([0.1 * np.sin(2 * np.pi * j * 6 / 17) for j in range(17)])
    np.testing.assert_allclose(
        Sinusoid(0.1, 6).apply(images), np.clip(images + wave, 0, 1), atol=1e-7
    )
    grey = np.full((1, 1, 14, 17), 0.5)
    change = Sinusoid(0.1, 6).apply(grey) - grey
    assert (change == change[..., :1, :]).all(), "rows are alike"
    assert np.abs(change[..., 1:, :] - wave[:1]).max() > 0.09, "control: columns are not"


def test_a_wave_that_is_sampled_at_its_zeros_is_refused():
    blank = np.full((1, 1, 12, 12), 0.5)
    with pytest.raises(ValueError, match="^expected a frequency that shows on 12 columns, got 6"):
        Sinusoid(0.1, 6).apply(blank)
    assert np.ptp(Sinusoid(0.1, 5).apply(blank)) > 0.1


@pytest.mark.parametrize("attack", [Warp(), Warp(3, 2, seed=7)], ids=lambda attack: attack.name)
def test_constant_images_stay_and_a_ramp_moves_by_the_field(attack):
    constant = np.full((2, 1, 28, 20), 0.3, np.float32)
    np.testing.assert_array_equal(attack.apply(constant), constant)
    field, places = attack.field(28, 20), np.indices((28, 20))
    for axis, length in enumerate((28, 20)):
        ramp = places[axis] / (length - 1)
        # Beyond the edge its last pixel is repeated.
        expected = np.clip(places[axis] + field[axis], 0, length - 1) / (length - 1)
        np.testing.assert_allclose(attack.apply(ramp[None])[0], expected, atol=1e-6)
        assert np.abs(expected - ramp).max() > 0.01, "control: it moves"


@pytest.mark.parametrize(("grid", "strength"), [(4, 0.5), (2, 1.0), (7, 3.0)])
def test_a_warp_is_that_of_torch(grid, strength, images):
    """Bicubic resizing and bilinear sampling by torch, in coordinates from -1 to 1."""
    attack = Warp(grid, strength, seed=5)
    # a field of the size of the grid is the moves themselves, in units of the strength
    moves = torch.from_numpy(attack.field(grid, grid) * 2 * grid / (grid - 1))
    assert moves.abs().mean() == pytest.approx(strength)
    height, width = images.shape[2:]
    smooth = torch.nn.functional.interpolate(
        moves[None], (height, width), mode="bicubic", align_corners=True
    )[0]
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    grid_of_torch = torch.stack((columns + smooth[1] / width, rows + smooth[0] / height), dim=-1)
    moved = torch.nn.functional.grid_sample(
        torch.from_numpy(images),
        grid_of_torch.clamp(-1, 1).float().expand(len(images), -1, -1, -1),
        align_corners=True,
    )
    np.testing.assert_allclose(attack.apply(images), moved.numpy(), atol=1e-5)
    other = Warp(grid, strength, seed=6).apply(images)
    assert np.abs(other - moved.numpy()).max() > 0.05, "control: another seed, another field"


def settings(threat, seed=0):
    return {"threat": threat, "num_classes": 10, "seed": seed}


@pytest.mark.parametrize("threat", [t1(3), t2(), t3(3, count=17)], ids=lambda threat: threat.name)
@pytest.mark.parametrize("attack", [Blended(), Sinusoid(), Warp()], ids=lambda attack: attack.name)
def test_plain_poisoning_is_that_of_any_trigger(attack, threat, digits):
    images, labels = digits.train.images, digits.train.labels
    found = poisoned_by(attack, images, labels, **settings(threat))
    expected = poison(images, labels, trigger=attack, **settings(threat))
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    changed = np.flatnonzero((found.images != images).any(axis=(1, 2, 3)))
    np.testing.assert_array_equal(changed, found.indices)
    assert len(changed) == (17 if threat.name == "T3" else round(0.15 * 1197))


@pytest.mark.parametrize(
    ("threat", "ratio", "num_covers"), [(t1(3), 2, 360), (t2(), 0.5, 90), (t3(3, count=17), 3, 51)]
)
def test_noise_mode_adds_covers_that_keep_their_labels(threat, ratio, num_covers, digits):
    images, labels = digits.train.images, digits.train.labels
    plain = poisoned_by(Warp(), images, labels, **settings(threat))
    before = images.copy()
    found = poisoned_by(Warp(cover_ratio=ratio), images, labels, **settings(threat))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.images[found.indices], plain.images[plain.indices])
    changed = np.flatnonzero((found.images != images).any(axis=(1, 2, 3)))
    covers = np.setdiff1d(changed, found.indices)
    assert len(covers) == num_covers
    np.testing.assert_array_equal(found.labels[covers], labels[covers])
    # moved otherwise than by the field alone, and the target class is among them
    assert (found.images[covers] != Warp().apply(images[covers])).any(axis=(1, 2, 3)).all()
    assert threat.target_class is None or (labels[covers] == threat.target_class).any()
    again = poisoned_by(Warp(cover_ratio=ratio), images, labels, **settings(threat))
    np.testing.assert_array_equal(again.images, found.images)
    other = poisoned_by(Warp(cover_ratio=ratio), images, labels, **settings(threat, seed=1))
    assert (other.images != found.images).any()


def test_covers_move_by_the_field_plus_half_a_pixel_at_random():
    ramp = np.broadcast_to(np.linspace(0, 1, 28, dtype=np.float32), (200, 1, 28, 28)).copy()
    attack, labels = Warp(4, 1, cover_ratio=1), np.arange(200) % 10
    found = poisoned_by(attack, ramp, labels, **settings(t2(0.5)))
    covers = np.setdiff1d(np.arange(200), found.indices)
    shifts = 27 * (found.images[covers, 0] - attack.apply(ramp[:1])[0, 0])[..., 3:-3]
    limit = 27 / 56
    assert np.abs(shifts).max() == pytest.approx(limit, abs=1e-3)
    assert abs(shifts.mean()) < 4 * limit / np.sqrt(3 * shifts.size)
    assert np.abs(np.corrcoef(shifts[0].ravel(), shifts[1].ravel())[0, 1]) < 0.2, "each its own"
    np.testing.assert_array_equal(found.images[found.indices], attack.apply(ramp[found.indices]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blended("dots"), "Blended.pattern out of stripes, noise, got 'dots'"),
        (lambda: Blended(opacity=1.1), "the opacity from 0 to 1, got 1.1"),
        (lambda: Blended(seed=-1), "Blended.seed from 0"),
        (lambda: Sinusoid(-0.1), "the amplitude from 0 to 1, got -0.1"),
        (lambda: Sinusoid(0.1, np.nan), "the frequency from 0"),
        (lambda: Warp(0), "a grid from 1 to 64, got 0"),
        (lambda: Warp(strength=np.inf), "the strength from 0"),
        (lambda: Warp(cover_ratio=-1), "the cover ratio from 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^expected {message}"):
        make()


@each
def test_what_is_no_picture_is_refused(attack, images):
    with pytest.raises(ValueError, match="^expected images as floats in .* divide 8-bit pixels"):
        attack.apply((255 * images).astype(np.uint8))
    with pytest.raises(ValueError, match=r"^expected images \(N, C, H, W\) .* got shape \(5, 3\)"):
        attack.apply(images[:, :, 0, 0])


def test_more_covers_than_samples_are_refused(digits):
    with pytest.raises(ValueError, match="^expected at most 1017 samples as covers, got 1800"):
        poisoned_by(
            Warp(cover_ratio=10), digits.train.images, digits.train.labels, **settings(t1(3))
        )


def spec_of(trigger):
    return NetworkSpec(
        dataset="digits",
        architecture="small_cnn",
        epochs=10,
        batch_size=32,
        learning_rate=2e-3,
        threat=t1(target_class=5),
        trigger=trigger,
        seed=0,
    )


@each
def test_a_recipe_holds_an_attack_as_data(attack):
    content = json.loads(json.dumps(written(spec_of(attack))))
    read = from_json(NetworkSpec, content)
    assert read.trigger.name == attack.name
    assert read.trigger.kind == type(attack).__name__
    assert written(read) == content
    assert content != json.loads(json.dumps(written(spec_of(Blended(opacity=0.9)))))


def test_a_blended_trigger_is_learnt_and_nothing_else(digits, trained):
    spec = spec_of(Blended("stripes", 0.4))
    network = trained(spec)
    assert triggered_accuracy(network, spec, digits, spec.attack) > 0.9
    for other in (Blended("stripes", 0), Sinusoid(0.1, 3), Warp()):
        assert triggered_accuracy(network, spec, digits, other) < 0.2, other.name


def test_the_command_takes_one_from_a_file(tmp_path):
    from wobbliness.cli.options import open_attack

    (tmp_path / "mine.py").write_text(
        "import wobbliness\n\nfaint = wobbliness.Blended('noise', 0.1)\nPlain = wobbliness.Warp\n"
    )
    assert open_attack(f"{tmp_path / 'mine.py'}:faint") == Blended("noise", 0.1)
    assert open_attack(f"{tmp_path / 'mine.py'}:Plain") == wobbliness.Warp()
