"""Perturbations on a device, on the CPU where there is no card: their draws, copies and votes."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from test_families import EXAMPLES, OVERLAYS, SHAPE, copies, inputs

import wobbliness
import wobbliness.perturbations as families
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations.base import (
    DeviceDraws,
    LoweredPerturbation,
    Scratch,
    Stream,
    num_draws_of,
)
from wobbliness.perturbations.noise.gaussian import standard_normal
from wobbliness.sampling.counting.device_draws import (
    PAGE,
    BlockDraws,
    RandomWords,
    ShardDraws,
)

CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda"),
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ),
]
Z = 5.0  # standard errors that a frequency or a mean may be off by
# Their copies are the host's, up to rounding: what a few words decide is drawn there.
LIKE_THE_HOST = (
    *("Affine", "Blur", "BoxMix", "CellMix", "Contrast"),
    *("KeepBox", "Occlude", "Scale", "Superpose"),
)
# Their noise is drawn on the device.
OF_THE_DEVICE = (
    *("BoxNoise", "EdgeFlip", "Elastic", "Flow", "Gaussian"),
    *("KeepFeature", "Laplace", "SaltAndPepper", "Uniform"),
)
LOWERED = sorted((*LIKE_THE_HOST, *OF_THE_DEVICE))
ON_THE_HOST = ("Columns", "Corrupt", "Custom", "TokenDrop")
on_each_device = pytest.mark.parametrize("device", DEVICES, ids=str)


class Projections(torch.nn.Module):
    """Four classes by random projections; keeps the batches that it has seen."""

    def __init__(self, shape=SHAPE, most=10**9):
        super().__init__()
        weights = np.random.default_rng(1).normal(size=(4, int(np.prod(shape))))
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.most, self.batches = most, []

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(images.clone())
        return (images.flatten(1) - 0.5) @ self.weights.T

    def seen(self, block_size, num_rows):
        """The first copies of the blocks of a measurement, on the host."""
        blocks = [batch for batch in self.batches if len(batch) == block_size]
        return torch.cat(blocks)[:num_rows].cpu().numpy()


def opened(module=None, device=CPU, shape=SHAPE):
    return AcceleratedClassifier((module or Projections(shape)).to(device), device=device)


class HostDraws:
    """The draws of one image, those of the host also where a device would draw its own."""

    def __init__(self, draws, shape, *, seed=0):
        self._draws, self._shape = draws, shape
        self._stream = Stream(seed, 5, scratch=Scratch())

    def numbers(self):
        return torch.arange(self._draws)

    def normal(self):
        return torch.tensor(standard_normal(self._stream, self._shape, self._draws))

    def words(self, purpose, shape):
        words = self._stream.words(purpose, int(np.prod(shape)), self._draws)
        return torch.tensor(words.astype(np.int64)).reshape(self._draws, *shape)

    def from_host(self, parameters):
        return torch.tensor(parameters(self._stream, self._draws))

    def constant(self, name, make):
        assert name
        return torch.tensor(make())


def lowered(made, image, draws, *, seed=0):
    """Copies of an image by `lower`, from the draws of the host."""
    rows = torch.from_numpy(np.stack([image] * draws))
    before = rows.clone()
    found = made.lower(rows, HostDraws(draws, image.shape, seed=seed))
    assert torch.equal(rows, before), "the images are left as they are"
    assert found.dtype == torch.float32
    return found.numpy()


def shard(device, *, draws=range(10_000), keys=(5,), seed=0, shape=SHAPE):
    return ShardDraws(
        seed=seed,
        keys=np.array(keys, np.uint64),
        draws=draws,
        shape=shape,
        device=device,
        constants={},
    )


def noise_of(made, image, draws, device):
    """What a perturbation adds to copies of an image, by the draws of a device."""
    rows = torch.from_numpy(np.stack([image] * draws)).to(device)
    block = BlockDraws(shard(device, draws=range(draws), shape=image.shape), 0, draws)
    assert isinstance(block, DeviceDraws)
    return (made.lower(rows, block) - rows).cpu().numpy()


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((7, *SHAPE), dtype=np.float32)


def test_which_families_run_on_a_device():
    for name in LOWERED:
        assert isinstance(EXAMPLES[name], LoweredPerturbation), name
    for name in ON_THE_HOST:
        assert not isinstance(EXAMPLES[name], LoweredPerturbation), name


def test_loading_the_families_needs_no_torch():
    code = (
        "import sys\n"
        "from wobbliness.perturbations.find import perturbation_classes\n"
        "assert hasattr(perturbation_classes()['BoxMix'], 'lower')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gaussian_noise_there_is_as_it_is_defined(pictures):
    """Draw j is row j % PAGE of a page whose generator a digest of seed, key and page seeds."""
    module, draws, block, pictures = Projections(), 300, 128, pictures[:5]
    votes = wobbliness.measure(opened(module), pictures, 0.3, draws, seed=4, block_size=block)
    expected, generator = [], torch.Generator()
    for image, key in zip(pictures, wobbliness.image_keys(pictures), strict=True):
        pages = []
        for page in range(-(-draws // PAGE)):
            digest = hashlib.blake2b(f"4 {key} {page}".encode(), digest_size=8).digest()
            generator.manual_seed(int.from_bytes(digest, "little") >> 1)
            pages.append(torch.randn((PAGE, *SHAPE), generator=generator))
        normal = torch.cat(pages)[:draws]
        expected.append(torch.add(torch.from_numpy(image), normal, alpha=0.3).numpy())
    seen = module.seen(block, draws * len(pictures))
    assert np.array_equal(seen, np.concatenate(expected)), "bit for bit"
    labels = Projections()(torch.from_numpy(seen)).argmax(dim=1).reshape(len(pictures), draws)
    counts = np.stack([np.bincount(row, minlength=4) for row in labels.numpy()])
    assert np.array_equal(votes.counts, counts)


@pytest.mark.parametrize("name", LOWERED)
def test_from_the_same_draws_copies_are_those_of_the_host(name, pictures):
    made, image = EXAMPLES[name], inputs(name, pictures)[0]
    draws = num_draws_of(made) or 40
    expected = copies(made, image, draws)
    np.testing.assert_allclose(lowered(made, image, draws), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - image).max() > 0.01
    if num_draws_of(made) is None:
        other = lowered(made, image, draws, seed=1)
        assert np.abs(other - expected).max() > 0.01, "control"


@pytest.mark.parametrize(
    "made",
    [
        families.Affine(shift=1, rotation=180, zoom=0.9),
        families.Blur(0, 4, 40),
        families.BoxMix(OVERLAYS[:, :, :5], 0, 1),
        families.CellMix(OVERLAYS[:, :, :5], share=1, cells=3),
        families.Elastic(20, width=0.5),
        families.KeepFeature(0, levels=2),
        families.Occlude(1, value=0),
        families.SaltAndPepper(1),
        families.Superpose(OVERLAYS[:, :, :5], mix="sum"),
    ],
    ids=lambda made: type(made).__name__,
)
def test_so_they_are_at_the_ends_of_the_range_and_on_other_shapes(made, pictures):
    image = pictures[0, :, :5]
    draws = num_draws_of(made) or 40
    expected = copies(made, image, draws)
    np.testing.assert_allclose(lowered(made, image, draws), expected, rtol=0, atol=2e-6)


@on_each_device
@pytest.mark.parametrize("name", LIKE_THE_HOST)
def test_a_measurement_there_sees_the_copies_of_the_host(name, device, pictures):
    made, module, block = EXAMPLES[name], Projections(), 100
    draws = num_draws_of(made) or PAGE + 10
    wobbliness.measure(
        opened(module, device), pictures[:4], made, draws, keys=[3, 5, 2, 5], block_size=block
    )
    seen = module.seen(block, 4 * draws).reshape(4, draws, *SHAPE)
    for row in (1, 3):
        expected = copies(made, pictures[row], draws)
        np.testing.assert_allclose(seen[row], expected, rtol=0, atol=1e-6)
    assert np.abs(seen[2] - copies(made, pictures[1], draws)).max() > 0.01, "control"


@on_each_device
def test_words_are_uniform_and_independent(device):
    def words(key, page, *, seed=0, purpose="one"):
        pages = RandomWords(seed, SHAPE, device, purpose)
        return pages.page(key, page).cpu().numpy().ravel()

    sample = words(0, 0)
    assert (sample.min() >= 0) & (sample.max() < 2**32)
    assert stats.kstest(sample / 2**32, "uniform").pvalue > 0.001
    assert stats.kstest(sample / 2**32 * 0.97, "uniform").pvalue < 0.001, "control"
    bits = (sample[:, None] >> np.arange(32)) & 1
    assert (np.abs(bits.mean(axis=0) - 0.5) < Z * 0.5 / math.sqrt(sample.size)).all()
    others = (
        *(words(1, 0), words(0, 1), words(0, 0, seed=1), words(0, 0, purpose="two")),
        *(np.roll(sample, 1), np.roll(sample, int(np.prod(SHAPE)))),
    )
    for other in others:
        assert abs(np.corrcoef(sample, other)[0, 1]) < Z / math.sqrt(sample.size)
    assert np.array_equal(sample, words(0, 0))


@on_each_device
def test_draws_depend_on_seed_key_and_draw_alone(device):
    """However blocks divide the copies, and whichever images are beside."""

    def drawn(own, row, draw, *, size=7):
        block = BlockDraws(own, row, size)
        parameters = block.from_host(lambda stream, draws: stream.words("box", 2, draws))
        found = (block.normal(), block.words("one", (3,)), parameters, block.numbers())
        return [values[draw].cpu().numpy() for values in found]

    many = shard(device, draws=range(200, 600), keys=(9, 5, 7))
    for draw in (200, PAGE - 1, PAGE, 599):
        alone = shard(device, draws=range(draw, draw + 1))
        expected = drawn(alone, 0, 0, size=1)
        row = 400 + draw - 200
        for start in (row, row - 3, row - 6):
            found = drawn(many, start, row - start)
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one, other)
    other = drawn(shard(device, draws=range(200, 201), keys=(6,)), 0, 0, size=1)
    expected = drawn(shard(device, draws=range(200, 201)), 0, 0, size=1)
    for one, own in zip(other[:3], expected[:3], strict=True):
        assert not np.array_equal(one, own), "control"


@on_each_device
def test_rows_that_fill_up_a_block_have_no_noise(device):
    block = BlockDraws(shard(device, draws=range(3)), 0, 5)
    for values in (block.normal(), block.words("one", (3,))):
        assert (values[:3] != 0).any(dim=1).all()
        assert (values[3:] == 0).all()
    assert block.numbers().tolist() == [0, 1, 2, 2, 2]
    ones = block.from_host(lambda _, draws: np.ones((draws, 2)))
    assert ones.sum(dim=1).tolist() == [2, 2, 2, 0, 0]


@on_each_device
@pytest.mark.parametrize("x", [0.2, 0.45, 0.5, 0.6])
def test_a_threshold_under_noise_has_the_probability_of_the_distribution(x, device):
    std, draws, image = 0.15, 4000, np.full((1, 1), x, np.float32)
    width, margin = math.sqrt(3) * std, 0.5 - x
    for made, expected in (
        (families.Uniform(std), np.clip((width - margin) / (2 * width), 0, 1)),
        (families.Laplace(std), stats.laplace.sf(margin, scale=std / math.sqrt(2))),
        (families.Gaussian(std), stats.norm.sf(margin / std)),
    ):
        share = (noise_of(made, image, draws, device) > margin).mean()
        error = math.sqrt(expected * (1 - expected) / draws)
        assert abs(share - expected) <= Z * error + 1e-12, made.name
        assert abs(share - (expected + 0.1)) > Z * error, "control"


@on_each_device
def test_noise_has_the_stated_moments(device, pictures):
    draws, image = 4000, pictures[0]
    for family in (families.Uniform, families.Laplace, families.Gaussian):
        noise = noise_of(family(0.1), image, draws, device)
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=Z * 0.1 / math.sqrt(draws))
        assert abs(noise.std() - 0.1) < 1e-3
        off = np.corrcoef(noise.reshape(draws, -1)[:, :20].T)[np.triu_indices(20, 1)]
        assert np.abs(off).max() < Z / math.sqrt(draws)
    flows = noise_of(families.Flow(0.05), image, draws, device)
    np.testing.assert_allclose(flows.sum(axis=(2, 3)), 0, atol=1e-4)
    rows = np.array([1, *[2] * 6, 1])
    expected = np.stack([(rows[:, None] + rows) * 0.05**2] * 3)
    np.testing.assert_allclose(flows.var(axis=0), expected, rtol=0.2)


@on_each_device
def test_values_are_replaced_with_the_stated_probabilities(device, pictures):
    draws = 2000
    made = noise_of(families.SaltAndPepper(0.3), pictures[0], draws, device) + pictures[0]
    for value in (0, 1):
        is_value = np.isclose(made, value, atol=1e-6)
        assert (is_value == is_value[:, :1]).all(), "all channels of a pixel"
        error = math.sqrt(0.15 * 0.85 / (draws * 64))
        assert abs(is_value[:, 0].mean() - 0.15) < Z * error
    levels = np.array([[0.0, 1 / 3, 2 / 3, 1.0]], np.float32)
    made = noise_of(families.KeepFeature(0.7, levels=4), levels, draws, device) + levels
    index = np.rint(3 * made).astype(int)[:, 0]
    for own in range(4):
        expected = np.where(np.arange(4) == own, 0.7, 0.1)
        error = np.sqrt(expected * (1 - expected) / draws)
        assert (
            np.abs(np.bincount(index[:, own], minlength=4) / draws - expected) < Z * error
        ).all()
    graph = inputs("EdgeFlip", pictures)[0]
    is_flipped = noise_of(families.EdgeFlip(0.2), graph, draws, device) != 0
    assert np.array_equal(is_flipped, is_flipped.swapaxes(1, 2))
    shares = is_flipped.mean(axis=0)[np.triu_indices(8, 1)]
    assert (np.abs(shares - 0.2) < Z * math.sqrt(0.16 / draws)).all()


@on_each_device
def test_noise_in_a_box_stays_in_the_box_of_the_host(device, pictures):
    noise = noise_of(families.BoxNoise(0.2), pictures[0], 500, device)
    is_inside = (copies(families.BoxMix(OVERLAYS), pictures[0], 500) != pictures[0]).any(axis=1)
    is_inside = np.broadcast_to(is_inside[:, None], noise.shape)
    assert (noise[~is_inside] == 0).all()
    assert noise[is_inside].std() == pytest.approx(0.2, rel=0.02)


def changed(one, other):
    """Number of labels that differ at least; rounding may move one."""
    return np.abs(one - other).sum() / 2


@on_each_device
@pytest.mark.parametrize("name", LOWERED)
def test_votes_there_do_not_depend_on_order_company_block_size_or_parts(name, device, pictures):
    made, pictures = EXAMPLES[name], inputs(name, pictures)
    draws = num_draws_of(made) or 60
    shape = pictures.shape[1:]

    def counts(images, num=draws, **options):
        classifier, options = opened(device=device, shape=shape), {"block_size": 64} | options
        return wobbliness.measure(classifier, images, made, num, **options)

    whole = counts(pictures)
    assert (whole.counts.sum(axis=1) == draws).all()
    parts = counts(pictures, 2) + counts(pictures, draws - 2, first_draw=2)
    for other in (
        counts(pictures[::-1]).counts[::-1],
        np.concatenate([counts(pictures[i : i + 1]).counts for i in range(len(pictures))]),
        counts(pictures, block_size=1).counts,
        counts(pictures, block_size=13).counts,
        parts.counts,
    ):
        assert changed(other, whole.counts) <= 1
    if num_draws_of(made) is None:
        assert changed(counts(pictures, seed=1).counts, whole.counts) > 1, "control"


@on_each_device
def test_a_sweep_there_gives_what_each_gives_alone(device, pictures):
    """Families of few draws have votes of those alone, also beside others."""
    every = [EXAMPLES[name] for name in LOWERED if name != "EdgeFlip"]
    sweep = wobbliness.sweep(opened(device=device), pictures, every, 40, block_size=64)
    for made in every:
        alone = wobbliness.measure(opened(device=device), pictures, made, 40, block_size=50)
        found = sweep[made.name]
        assert changed(found.counts, alone.counts) <= 1, made.name
        assert found.spans == alone.spans
        assert (found.counts.sum(axis=1) == min(40, num_draws_of(made) or 40)).all()


def test_draws_beyond_those_of_a_family_of_few_are_left_out(pictures):
    few, many = families.Scale(1, 2, 3), families.Uniform(0.2)
    module = Projections()
    sweep = wobbliness.sweep(opened(module), pictures, [few, many], 10, first_draw=2, block_size=9)
    assert (sweep[few.name].counts.sum(axis=1) == 1).all()
    assert (sweep[many.name].counts.sum(axis=1) == 10).all()
    blocks = [batch for batch in module.batches if len(batch) == 9]
    assert len(blocks) == 1 + -(-7 * 10 // 9), "one block holds draw 2 of all images"
    votes = wobbliness.measure(opened(), pictures, few, 10, first_draw=2)
    assert np.array_equal(votes.counts, sweep[few.name].counts)


def test_running_out_of_memory_halves_the_block(pictures):
    for made in (families.BoxMix(OVERLAYS), families.Laplace(0.2)):
        module = Projections(most=50)
        votes = wobbliness.measure(opened(module), pictures, made, 60, block_size=200)
        reference = wobbliness.measure(opened(), pictures, made, 60, block_size=64)
        assert changed(votes.counts, reference.counts) <= 1
        assert len(module.batches[-1]) == 50


def on_the_host(images):
    with torch.no_grad():
        return Projections()(torch.from_numpy(images)).numpy()


def test_beside_a_family_of_the_host_all_run_on_the_host(pictures):
    noise, corrupt = families.Gaussian(0.3), EXAMPLES["Corrupt"]
    sweep = wobbliness.sweep(opened(), pictures, [noise, corrupt], 60)
    host = wobbliness.sweep(on_the_host, pictures, [noise, corrupt], 60)
    for made in (noise, corrupt):
        assert changed(sweep[made.name].counts, host[made.name].counts) <= 1, made.name
    alone = wobbliness.measure(opened(), pictures, noise, 60)
    assert changed(alone.counts, host[noise.name].counts) > 1, "control: the device's own draws"


def test_scores_are_summed_on_the_host_and_clean_labels_kept_on_either(pictures):
    made, clean = families.BoxMix(OVERLAYS), on_the_host(pictures).argmax(axis=1)
    with_scores = wobbliness.measure(opened(), pictures, made, 60, scores="logits")
    host = wobbliness.measure(on_the_host, pictures, made, 60)
    there = wobbliness.measure(opened(), pictures, made, 60, keep_clean=True)
    assert with_scores.scores is not None
    for votes in (with_scores, there):
        assert changed(votes.counts, host.counts) <= 1
        assert np.array_equal(votes.clean_label, clean)


@pytest.mark.parametrize("name", ["Affine", "BoxMix", "KeepFeature", "Laplace"])
def test_decisions_there_see_the_draws_of_a_measurement_there(name, pictures):
    made, settings = EXAMPLES[name], {"error_rate": 1e-9, "max_draws": 60, "block_size": 64}
    votes = wobbliness.measure(opened(), pictures, made, 60, block_size=64)
    threshold = float(np.median(votes.wobbliness)) + 1e-3
    found = wobbliness.decide_as_measured(opened(), pictures, made, threshold, **settings)
    assert found.is_decided.all()
    assert np.array_equal(found.is_below, votes.wobbliness < threshold)
    assert 0 < found.is_below.mean() < 1
