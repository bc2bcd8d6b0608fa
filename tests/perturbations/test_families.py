"""Every family of the folder: invariances of its draws, names, and what bad settings get."""

import dataclasses
import functools
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from residual_networks import residual_network

import wobbliness
import wobbliness.perturbations as families
from wobbliness.detectors.guards.files.kept_perturbations import (
    keep_perturbations,
    read_perturbations,
)
from wobbliness.perturbations.base import (
    Perturbation,
    Scratch,
    Stream,
    TrainingPerturbation,
    effect_of,
    num_draws_of,
)
from wobbliness.perturbations.find import (
    perturbation_classes,
    perturbation_from_text,
    training_classes,
)
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.perturbations.network.gated_nodes import NetworkPerturbation
from wobbliness.perturbations.pictures.corrupt import KINDS
from wobbliness.runtime.field_limits import kind_of
from wobbliness.sampling.plan import NOISE_VALUES

SHAPE, BLOCK = (3, 8, 8), 40
OVERLAYS = np.random.default_rng(9).random((6, *SHAPE), dtype=np.float32)


def add_normal(image, rng):
    return image + rng.normal(0, 0.1, image.shape)


# One of each family, at a level that changes some answers.
EXAMPLES = {
    "Amplify": families.Amplify(2, members=3, factor=3),
    "Affine": families.Affine(shift=0.2, rotation=20, zoom=0.2),
    "Blur": families.Blur(0.5, 1, 2),
    "BoxMix": families.BoxMix(OVERLAYS),
    "BoxNoise": families.BoxNoise(0.3),
    "CellMix": families.CellMix(OVERLAYS, cells=4),
    "Columns": families.Columns(0.5, scale=4.0, integers={1: (0, 12)}, categories={2: 4}),
    "Contrast": families.Contrast(0.5, 0.3, 0.2),
    "Corrupt": families.Corrupt("speckle-noise"),
    "Custom": families.Custom(add_normal, name="normal-0.1"),
    "Dropout": families.Dropout(0.3),
    "EdgeFlip": families.EdgeFlip(0.2),
    "Elastic": families.Elastic(4, width=2),
    "Flow": families.Flow(0.1),
    "Gaussian": families.Gaussian(0.2),
    "KeepBox": families.KeepBox(OVERLAYS),
    "KeepFeature": families.KeepFeature(0.8),
    "Laplace": families.Laplace(0.2),
    "Occlude": families.Occlude(0.4, places=3),
    "SaltAndPepper": families.SaltAndPepper(0.2),
    "Scale": families.Scale(3, 5, 7),
    "Superpose": families.Superpose(OVERLAYS),
    "TokenDrop": families.TokenDrop(0.3, token=0, keep=(1,)),
    "Uniform": families.Uniform(0.2),
}
# Likewise of training sets; `test_trainings.py` has their draws.
OF_TRAININGS = {"LabelFlip": families.LabelFlip(0.2)}
# Inputs of another domain than pictures, made of pictures; and what changes nothing there.
DOMAINS = {
    "Columns": lambda pictures: as_table(pictures),
    "EdgeFlip": lambda pictures: as_graphs(pictures),
    "TokenDrop": lambda pictures: (4 * pictures[:, 0]).astype(np.int64).reshape(len(pictures), -1),
}
NOTHING = {
    "Columns": families.Columns(0, categories={2: 4}, share=0),
    "TokenDrop": families.TokenDrop(0, token=0),
}
RANDOM = sorted(name for name, made in EXAMPLES.items() if num_draws_of(made) is None)
OF_NETWORK = {name for name, made in EXAMPLES.items() if isinstance(made, NetworkPerturbation)}
each = pytest.mark.parametrize("name", sorted(perturbation_classes()))


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((7, *SHAPE), dtype=np.float32)


def direction(images):
    """Four classes by the signs of two random projections of the picture about its middle."""
    flat = images.reshape(len(images), -1) - 0.5
    signs = flat @ np.random.default_rng(1).normal(size=(2, flat.shape[1])).T > 0
    return signs[:, 0] + 2 * signs[:, 1].astype(np.int64)


def inputs(name, pictures):
    """Pictures, or inputs of the family's own domain."""
    return DOMAINS[name](pictures) if name in DOMAINS else pictures


def as_table(pictures):
    """Numbers up to 12, with integers in column 1 and categories in column 2."""
    rows = 12 * pictures.reshape(len(pictures), -1)
    rows[:, 1], rows[:, 2] = rows[:, 1].round(), rows[:, 2].round() % 4
    return rows


def as_graphs(pictures):
    """Adjacency matrices, symmetric and without loops."""
    upper = np.triu(pictures[:, 0] > 0.5, k=1)
    return (upper | upper.swapaxes(1, 2)).astype(np.float32)


@functools.cache
def network():
    return residual_network()


def measure(images, perturbation, *arguments, **settings):
    """Measures the signs of the projections, or a network under a family of networks."""
    is_of_network = isinstance(perturbation, NetworkPerturbation)
    classifier = network() if is_of_network else direction
    return wobbliness.measure(
        classifier, images, perturbation, *arguments, num_classes=4, **settings
    )


def copies(perturbation, image, draws, *, seed=0, first_draw=0, pages=None):
    """Copies of an image, the draws in pages of given sizes."""
    stream = Stream(seed, 5, first_draw=first_draw, scratch=Scratch())
    made = []
    for size in pages or [draws]:
        out = np.full((size, *image.shape), np.nan, np.float32)
        perturbation.copies(stream, image, size, out)
        made.append(out.copy())
        stream.turn(size)
    return np.concatenate(made)


def test_every_family_of_the_folder_has_an_example_here():
    assert sorted(EXAMPLES) == sorted(perturbation_classes())
    assert sorted(OF_TRAININGS) == sorted(training_classes())
    assert {*perturbation_classes(), *training_classes()} <= set(dir(families))
    with pytest.raises(AttributeError, match="has no attribute 'Rain'"):
        families.Rain  # noqa: B018


@pytest.mark.parametrize("name", sorted({**perturbation_classes(), **training_classes()}))
def test_it_is_a_frozen_dataclass_with_a_name_of_its_own(name):
    made = {**EXAMPLES, **OF_TRAININGS}[name]
    assert isinstance(made, Perturbation) == (name in EXAMPLES)
    assert isinstance(made, TrainingPerturbation) == (name in OF_TRAININGS)
    assert dataclasses.is_dataclass(made)
    assert made.name.startswith(kind_of(type(made))) or name == "Custom"
    again = pickle.loads(pickle.dumps(made))
    assert (again, again.name, hash(again)) == (made, made.name, hash(made))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, 0.3)


@each
def test_copies_depend_on_seed_key_and_draw_alone(name, pictures):
    # Of a network the gates are perturbed, which are 1.
    pictures = np.ones((7, 4), np.float32) if name in OF_NETWORK else inputs(name, pictures)
    pictures = pictures.astype(np.float32)
    made, image = EXAMPLES[name], pictures[0].copy()
    draws = min(num_draws_of(made) or 9, 9)
    whole = copies(made, image, draws)
    assert np.isfinite(whole).all()
    assert np.array_equal(image, pictures[0]), "the image is left as it is"
    assert np.array_equal(copies(made, image, draws, pages=[2, *[1] * (draws - 2)]), whole)
    assert np.array_equal(copies(made, image, draws - 1, first_draw=1), whole[1:])
    if name in RANDOM:
        assert not np.array_equal(copies(made, image, draws, seed=1), whole)


@each
def test_votes_do_not_depend_on_order_company_workers_block_size_or_pages(name, pictures):
    made, pictures = EXAMPLES[name], inputs(name, pictures)
    votes = measure(pictures, made, 60)
    assert votes.draws == min(60, num_draws_of(made) or 60)
    assert votes.perturbation == made.name
    others = [
        measure(pictures[::-1], made, 60).counts[::-1],
        np.concatenate([measure(pictures[i : i + 1], made, 60).counts for i in range(7)]),
        measure(pictures, made, 60, workers=1, block_size=7).counts,
        measure(pictures, made, 60, workers=3, block_size=1).counts,
    ]
    for counts in others:
        assert np.array_equal(counts, votes.counts)
    parts = [measure(pictures, made, 2), measure(pictures, made, 58, first_draw=2)]
    assert np.array_equal((parts[0] + parts[1]).counts, votes.counts)


def test_a_sweep_of_all_families_gives_what_each_gives_alone(pictures):
    """They share pages of draws, and some have fewer than others."""
    every = [made for name, made in EXAMPLES.items() if name not in {*DOMAINS, *OF_NETWORK}]
    sweep = wobbliness.sweep(direction, pictures, every, 40, num_classes=4, block_size=7)
    for made in every:
        alone = measure(pictures, made, 40)
        found = sweep[made.name]
        assert np.array_equal(found.counts, alone.counts), made.name
        assert found.spans == alone.spans


def of_shape(made, shape):
    """The same perturbation for inputs of another shape."""
    if not hasattr(made, "overlays"):
        return made
    overlays = np.random.default_rng(9).random((6, *shape), dtype=np.float32)
    return dataclasses.replace(made, overlays=overlays)


@each
def test_memory_grows_neither_with_images_nor_with_draws(name):
    pictures = np.random.default_rng(0).random((32, 3, 32, 32), dtype=np.float32)
    made = of_shape(EXAMPLES[name], pictures.shape[1:])
    given = inputs(name, pictures)
    measure(given[:16], made, 1)  # a graph that is made once does not count

    def peak(num_images, draws):
        tracemalloc.start()
        measure(given[:num_images], made, draws, workers=1, block_size=BLOCK)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # Whole pages of draws, and from 16 images on, of which the probe takes as many.
    page = BLOCK * (NOISE_VALUES // (given[0].size * BLOCK))
    peak(16, page)  # nor does what is loaded or compiled once
    few = peak(16, page)
    assert peak(32, page) < few + 200_000
    assert peak(16, 3 * page) < few + 200_000


@pytest.mark.parametrize("name", RANDOM)
def test_some_answers_change_and_with_nothing_changed_none(name, pictures):
    """Control: without it, each image has its own label in all copies."""
    pictures = inputs(name, pictures)
    assert measure(pictures, EXAMPLES[name], 60).wobbliness.max() > 0
    assert measure(pictures, NOTHING.get(name, 0.0), 60).wobbliness.max() == 0


def test_first_draws_beyond_the_last_are_refused(pictures):
    with pytest.raises(ValueError, match="below 3, the number of draws of scale-3-5-7, got 3"):
        measure(pictures, families.Scale(3, 5, 7), 5, first_draw=3)


BAD = {
    "a level below 0": (lambda: families.Uniform(-0.1), "of at least 0, got -0.1"),
    "no number": (lambda: families.Laplace("much"), "a standard deviation as a number, got 'much'"),
    "NaN": (lambda: families.Flow(float("nan")), "of at least 0, got nan"),
    "infinite": (lambda: families.BoxNoise(float("inf")), "of at least 0, got inf"),
    "more flips than labels": (lambda: families.LabelFlip(1.1), "a share from 0 to 1, got 1.1"),
    "a share above 1": (lambda: families.SaltAndPepper(1.1), "a share from 0 to 1, got 1.1"),
    "one level": (lambda: families.KeepFeature(0.5, levels=1), "levels from 2 to 65536, got 1"),
    "no factor": (lambda: families.Scale(), "distinct values of a factor, at least one"),
    "equal factors": (lambda: families.Contrast(1, 1), "distinct values of a factor"),
    "one overlay": (lambda: families.Superpose(OVERLAYS[:1]), "at least 2 overlays as floats"),
    "overlays of bytes": (
        lambda: families.BoxMix((OVERLAYS * 255).astype(np.uint8)),
        "as floats .M, ...., got uint8",
    ),
    "overlays out of range": (lambda: families.CellMix(OVERLAYS * 2), "overlays in .0, 1., got"),
    "another mix": (lambda: families.Superpose(OVERLAYS, mix="max"), "mean or sum, got 'max'"),
    "sides in no order": (lambda: families.KeepBox(OVERLAYS, 0.9, 0.1), "up to the largest one"),
    "no places": (lambda: families.Occlude(0.1, places=0), "places from 1 to 32, got 0"),
    "another corruption": (lambda: families.Corrupt("rain"), "gaussian-noise, .*got 'rain'"),
    "another severity": (lambda: families.Corrupt("contrast", (0,)), "severities from 1 to 5"),
    "a rotation beyond half a turn": (lambda: families.Affine(rotation=181), "from 0 to 180"),
    "a rate above 1": (lambda: families.Dropout(1.5), "a rate from 0 to 1, got 1.5"),
    "no layers": (lambda: families.Amplify(0), "layers from 1 to 10000, got 0"),
    "half a layer": (lambda: families.Amplify(1.5), "layers as a whole number, got 1.5"),
    "no members": (lambda: families.Amplify(1, members=0), "members from 1 to 1000, got 0"),
    "a negative factor": (lambda: families.Amplify(1, factor=-1), "a factor from 0 to .*, got -1"),
    "no function": (lambda: families.Custom(3, name="three"), "a function with a name"),
    "a token that is no integer": (lambda: families.TokenDrop(0.1, token=0.5), "integers .* 0.5"),
    "a negative token": (lambda: families.TokenDrop(0.1, 0, keep=-1), "from 0 to 16777215, got -1"),
    "a token beyond float32": (lambda: families.TokenDrop(0.1, 2**24), "got 16777216"),
    "a column twice": (
        lambda: families.Columns(1, integers=[1], categories={1: 3}),
        r"each column declared once, got .1, 1.",
    ),
    "a column by name": (
        lambda: families.Columns(1, categories={"age": 3}),
        "of a column, .*'age'",
    ),
    "a negative column": (lambda: families.Columns(1, integers=[-1]), "of a column, .* got -1"),
    "one category": (lambda: families.Columns(1, categories={0: 1}), "at least 2 distinct categor"),
    "equal categories": (
        lambda: families.Columns(1, categories={0: (1, 1)}),
        "at least 2 distinct",
    ),
    "categories of text": (
        lambda: families.Columns(1, categories={0: "ab"}),
        "numbers for column 0",
    ),
    "categories that float32 rounds": (
        lambda: families.Columns(1, categories={0: (0.1, 0.2)}),
        "that float32 holds exactly",
    ),
    "no range": (lambda: families.Columns(1, integers={0: (3, 1)}), "lowest and highest integer"),
    "a range of fractions": (
        lambda: families.Columns(1, integers={0: (0, 1.5)}),
        "lowest and high",
    ),
    "integers alone": (lambda: families.Columns(1, integers=3), "integers by column"),
    "a negative scale": (
        lambda: families.Columns(1, scale=[1, -1]),
        "a scale of at least 0, got -1",
    ),
    "a scale of two axes": (lambda: families.Columns(1, scale=np.ones((2, 2))), "scale .d,., got"),
    "no name": (lambda: families.Custom(add_normal, name=""), "a function with a name"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_out_of_range_get_one_line(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=f"^expected .*{message}") as raised:
        make()
    assert "\n" not in str(raised.value)


def test_overlays_of_another_shape_are_refused(pictures):
    for name in ("BoxMix", "CellMix", "KeepBox", "Superpose"):
        with pytest.raises(ValueError, match="expected overlays of the shape of the inputs"):
            measure(pictures[:, :1], EXAMPLES[name], 20)


TEXTS = {
    "token-drop:0.3,token=1": families.TokenDrop(0.3, token=1),
    "columns:0.3,scale=2": families.Columns(0.3, scale=2.0),
    "amplify:3": families.Amplify(3),
    "amplify:3,factor=2": families.Amplify(3, factor=2),
    "dropout:0.2": families.Dropout(0.2),
    "gaussian:0.1": families.Gaussian(0.1),
    "scale:3,5,7": families.Scale(3, 5, 7),
    "keep-feature:0.9,levels=2": families.KeepFeature(0.9, levels=2),
    "affine:rotation=10": families.Affine(rotation=10),
    "superpose:clean.npy,mix=sum": families.Superpose(OVERLAYS, mix="sum"),
    "corrupt:zoom-blur": families.Corrupt("zoom-blur"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_the_command_line(text):
    read = {"clean.npy": OVERLAYS}
    assert perturbation_from_text(text, read.__getitem__) == TEXTS[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain:3", "expected a perturbation out of affine, .*, uniform, got 'rain'"),
        ("gaussian:0.1,0.2", "expected gaussian with settings"),
        ("gaussian:std=0.1", "expected gaussian with settings"),
        ("uniform:much", "a standard deviation as a number"),
        ("box-mix:", "expected box-mix with settings"),
        ("label-flip:0.1", "a perturbation of inputs, got label-flip, .*measure_trainings"),
    ],
)
def test_wrong_texts_get_one_line(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        perturbation_from_text(text, read_images=list)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_stay_in_range_and_grow_with_severity(kind, pictures):
    smooth = np.linspace(0.1, 0.8, 64, dtype=np.float32).reshape(1, 8, 8) ** 2 * np.ones(SHAPE[0])[
        :, None, None
    ].astype(np.float32)
    image = (smooth + 0.15 * pictures[0]).astype(np.float32)
    made = copies(families.Corrupt(kind), image, 5)
    assert made.min() >= 0
    assert made.max() <= 1
    steps = made * 255
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3, err_msg="8 bits")
    distances = np.abs(made - image).mean(axis=(1, 2, 3))
    assert distances[-1] > distances[0] > 0


def test_decisions_need_a_family_without_an_end(pictures):
    settings = {"threshold": 0.3, "num_classes": 4}
    decided = wobbliness.decide(direction, pictures, families.Uniform(0.2), **settings)
    assert decided.is_decided.all()
    for decide in (wobbliness.decide, wobbliness.decide_as_measured):
        with pytest.raises(ValueError, match="any number of draws, got scale-3-5 with 2"):
            decide(direction, pictures, families.Scale(3, 5), **settings)


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"Custom", "Gaussian"}))
def test_what_a_file_keeps_of_it_is_all_of_it(name):
    made = EXAMPLES[name]
    kept = keep_perturbations([0.1, made])
    overlays = {key: Overlays(array) for key, array in kept.arrays.items()}
    described = json.loads(json.dumps(kept.described, allow_nan=False))
    assert read_perturbations(described, overlays) == (None, made)


@each
def test_what_it_does_to_an_input_is_said_in_plain_words(name):
    effect = effect_of(EXAMPLES[name])
    assert 10 < len(effect) < 100
    assert effect[0].islower() or effect[0].isdigit()
    assert not effect.endswith(".")
    # by its name only where it has no words of its own
    assert (EXAMPLES[name].name in effect) == (name == "Custom")


def test_the_words_hold_the_levels():
    def said(of, *values, **settings):
        return effect_of(of(*values, **settings))

    covers = "a rectangle of another image covers {} of it"
    assert said(families.BoxMix, OVERLAYS) == covers.format("13 to 67 %")
    assert said(families.BoxMix, OVERLAYS, 0.5, 0.5) == covers.format("25 %")
    assert said(families.BoxMix, OVERLAYS, 0.05, 0.1) == covers.format("0.3 to 1 %")
    assert "another image is added" in said(families.Superpose, OVERLAYS, mix="sum")
    assert said(families.KeepFeature, 0.7) == "30 % of its values are replaced at random"
    assert said(families.Scale, 3, 5, 7) == "its brightness is multiplied by 3 to 7"
    assert said(families.Affine, rotation=9) == "it is turned by 9 degrees, at most"
    assert said(families.Affine) == "it is left as it is"
