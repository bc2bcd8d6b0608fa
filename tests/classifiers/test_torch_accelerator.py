"""The accelerator's path, on the CPU where there is no GPU: noise, counting, blocks, memory."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from small_study import small

import wobbliness
from wobbliness.attacks.universal_perturbation import craft_universal_perturbation
from wobbliness.classifiers.probing import SMALL_BLOCK
from wobbliness.classifiers.torch_accelerator import (
    AcceleratedClassifier,
    device_block_size,
)
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.counting.device_draws import StandardNormal
from wobbliness.study import recipes
from wobbliness.study.records.record import read_record
from wobbliness.study.running.runner import run_study
from wobbliness.study.training.device import Place
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.train import train_network

CPU = torch.device("cpu")
ABSENT = "mps" if torch.cuda.is_available() else "cuda"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class HalfSpaceModule(torch.nn.Module):
    """Logits (0, w . x - b); may run out of memory above a batch size."""

    def __init__(self, half_space, most=10**9):
        super().__init__()
        self.register_buffer("normal", torch.tensor(half_space.normal, dtype=torch.float32))
        self.offset, self.most, self.batches = float(half_space.offset), most, []

    def forward(self, images):
        self.batches.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        margin = images.flatten(1) @ self.normal - self.offset
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def accelerated(module, **options):
    return AcceleratedClassifier(module, device=CPU, **options)


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_closed_form(half_space, sigma):
    images = np.random.default_rng(1).uniform(size=(300, 1, 8, 8)).astype(np.float32)
    votes = wobbliness.measure(accelerated(HalfSpaceModule(half_space)), images, sigma)
    p, wrong = half_space.probability(images, sigma), half_space.probability(images, 2 * sigma)
    exact, other = (special.entr(np.stack([q, 1 - q])).sum(axis=0) for q in (p, wrong))
    assert (np.abs(votes.wobbliness - exact) <= 5 * votes.standard_error).all()
    assert (np.abs(votes.wobbliness - other) > 5 * votes.standard_error).any(), "control"
    assert (votes.counts.sum(axis=1) == 250).all()
    assert votes.execution.backend == "torch"


def test_invariances(half_space, images):
    classifier = accelerated(HalfSpaceModule(half_space))
    whole = wobbliness.measure(classifier, images, 0.3, draws=300)
    backwards = wobbliness.measure(classifier, images[::-1].copy(), 0.3, draws=300)
    some = wobbliness.measure(classifier, images[5:8], 0.3, draws=300)
    parts = wobbliness.measure(classifier, images, 0.3, draws=100) + wobbliness.measure(
        classifier, images, 0.3, draws=200, first_draw=100
    )
    sweep = wobbliness.sweep(classifier, images, [0.1, 0.3], draws=300)
    for name, counts in {
        "order": backwards.counts[::-1],
        "parts": parts.counts,
        "sweep": sweep[0.3].counts,
    }.items():
        assert np.abs(counts - whole.counts).sum() / 2 <= 1, name
    assert np.abs(some.counts - whole.counts[5:8]).sum() == 0
    assert not np.array_equal(
        wobbliness.measure(classifier, images, 0.3, draws=300, seed=1).counts, whole.counts
    )


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000, 100_000])
def test_blocks_have_one_shape_and_change_nothing(half_space, images, block_size):
    module = HalfSpaceModule(half_space)
    reference = wobbliness.measure(accelerated(HalfSpaceModule(half_space)), images, 0.3, draws=50)
    votes = wobbliness.measure(accelerated(module), images, 0.3, draws=50, block_size=block_size)
    assert np.abs(votes.counts - reference.counts).sum() / 2 <= 1
    measured = module.batches[6:]  # the first calls prepare and probe
    if block_size > SMALL_BLOCK:
        assert measured.pop(1) == SMALL_BLOCK, "the first block is compared with a small one"
    assert set(measured) == {block_size}
    assert votes.execution.block_size == block_size


def test_noise_is_normal_and_independent(images):
    shape, device = images.shape[1:], torch.device("cpu")

    def noise(key, page, seed=0):
        return StandardNormal(seed, shape, device).page(key, page).numpy().ravel()

    sample = noise(0, 0)
    assert stats.kstest(sample, "norm").pvalue > 0.001
    assert stats.kstest(sample * 1.1, "norm").pvalue < 0.001, "control"
    for other in (
        noise(1, 0),
        noise(0, 1),
        noise(0, 0, seed=1),
        np.roll(sample, 64),
        np.roll(sample, 1),
    ):
        assert abs(np.corrcoef(sample, other)[0, 1]) < 5 / np.sqrt(sample.size)
    assert np.array_equal(sample, noise(0, 0))


def test_running_out_of_memory_halves_the_block(half_space, images):
    module = HalfSpaceModule(half_space, most=100)
    votes = wobbliness.measure(accelerated(module), images, 0.3, draws=50, block_size=1000)
    reference = wobbliness.measure(accelerated(HalfSpaceModule(half_space)), images, 0.3, draws=50)
    assert np.abs(votes.counts - reference.counts).sum() / 2 <= 1
    assert module.batches[-1] == 62
    with pytest.raises(torch.OutOfMemoryError):
        wobbliness.measure(accelerated(HalfSpaceModule(half_space, most=0)), images, 0.3, draws=5)


def test_lower_precision_reports_what_it_changes(digits):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    # every block is filled up to its size, and bfloat16 is slow on a processor that lacks it
    settings = {"sigma": 0.3, "draws": 100, "block_size": 100}
    votes = wobbliness.measure(
        accelerated(network, autocast=True), digits.test.images[:10], **settings
    )
    assert 0 <= votes.execution.changed_labels < 0.2
    votes = wobbliness.measure(accelerated(network), digits.test.images[:10], **settings)
    assert votes.execution.changed_labels is None


def test_padding_does_not_dilute_the_share_of_changed_labels(images):
    class Rounded(torch.nn.Module):
        """Names another class in bfloat16."""

        def forward(self, batch):
            lower = (
                torch.nn.functional.linear(batch.flatten(1), torch.ones(2, 64)).dtype
                == torch.bfloat16
            )
            noisy = (batch * 16 % 1 != 0).flatten(1).any(dim=1)  # the digits are sixteenths
            return torch.stack([torch.full((len(batch),), 0.5), (noisy & lower).float()], dim=1)

    votes = wobbliness.measure(
        accelerated(Rounded(), autocast=True), images[:1], 0.3, draws=30, block_size=100
    )
    assert votes.execution.changed_labels == 1


def test_decisions_run_there_too(half_space, images):
    decisions = wobbliness.decide(accelerated(HalfSpaceModule(half_space)), images, 0.3, 0.3)
    p = half_space.probability(images, 0.3)
    exact = special.entr(np.stack([p, 1 - p])).sum(axis=0)
    clear = decisions.is_decided & (np.abs(exact - 0.3) > 0.15)
    assert clear.sum() > 10
    assert (decisions.is_below == (exact < 0.3))[clear].all()


def test_decisions_there_see_the_draws_of_a_measurement_there(half_space, images):
    """Agrees with `measure` at a tiny error rate, also when memory runs out."""
    module = HalfSpaceModule(half_space, most=100)
    votes = wobbliness.measure(
        accelerated(HalfSpaceModule(half_space)), images, 0.3, draws=60, seed=3
    )
    found = wobbliness.decide_as_measured(
        accelerated(module), images, 0.3, 0.4, error_rate=1e-9, max_draws=60, seed=3
    )
    assert found.is_decided.all()
    assert np.array_equal(found.is_below, votes.wobbliness < 0.4)
    assert 0 < found.is_below.mean() < 1
    whole = found.draws == 60
    assert np.array_equal(found.counts[whole], votes.counts[whole])
    assert (found.counts.sum(axis=1) == found.draws).all()
    assert max(module.batches) > 100 > module.batches[-1], "the block was halved"


def test_a_guard_there_settles_inputs_early(half_space, images):
    guard = wobbliness.SmoothnessGuard(
        accelerated(HalfSpaceModule(half_space)),
        sigmas=(0.1, 0.3),
        draws=60,
        false_positive_rate=0.2,
        error_rate=1e-6,
    ).fit(images[:24])
    quick = guard.judge_quickly(images[24:])
    assert np.array_equal(quick.is_suspicious, guard.judge(images[24:]).is_suspicious)
    assert quick.draws.mean() < quick.most_draws


def test_bad_scores_are_refused(images):
    class Broken(torch.nn.Module):
        def forward(self, batch):
            return torch.full((len(batch), 3), float("nan"))

    class Flat(torch.nn.Module):
        def forward(self, batch):
            return batch.flatten(1)[:, 0]

    with pytest.raises(ValueError, match="NaN"):
        wobbliness.measure(accelerated(Broken()), images, 0.3, draws=5)
    with pytest.raises(ValueError, match="^expected the module to give logits"):
        wobbliness.measure(accelerated(Flat()), images, 0.3, draws=5)
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    with pytest.raises(ValueError, match="^expected scores of 5 classes"):
        wobbliness.measure(accelerated(network, num_classes=5), images, 0.3, draws=5)


def test_devices_that_cannot_be_used_are_refused(half_space, images):
    module = HalfSpaceModule(half_space)
    for device in (ABSENT, "nonsense", "meta"):
        with pytest.raises(ValueError, match="^expected a device"):
            wobbliness.measure(module, images, 0.3, draws=5, device=device)
    with pytest.raises(ValueError, match="^expected a torch module"):
        wobbliness.measure(half_space, images, 0.3, draws=5, device="cuda")
    with pytest.raises(ValueError, match="^expected an accelerator"):
        wobbliness.open_classifier(module, autocast=True)
    with pytest.raises(
        ValueError, match="^expected a torch module to run on cuda, got nothing.onnx"
    ):
        wobbliness.measure("nothing.onnx", images, 0.3, draws=5, device="cuda")
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    assert (
        wobbliness.measure(network, images, 0.3, draws=5, device="cpu").execution.backend
        == "onnxruntime"
    )


def test_a_module_is_left_as_it_was_and_runs_in_its_own_type(images):
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(64, 3, dtype=torch.float64)
    ).train()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    flags = (
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    one, two = (wobbliness.measure(accelerated(module), images, 0.3, draws=20) for _ in range(2))
    assert np.array_equal(one.counts, two.counts), "evaluation mode: no dropout"
    assert all(part.training for part in module.modules())
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert flags == (
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )


def test_the_block_rule_of_a_device():
    assert device_block_size(CPU, 10**9) == 250
    assert device_block_size(CPU, 1) == 2**16
    assert 250 < device_block_size(CPU, 10**6) < 2**16


@needs_cuda
def test_a_card_agrees_with_the_processor(digits):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    images = digits.test.images[:40]
    keys = wobbliness.image_keys(images)
    card = wobbliness.measure(network, images, 0.3, device="cuda")
    assert card.execution.device == "cuda"
    assert next(network.parameters()).device.type == "cpu"
    noisy = np.concatenate(
        [
            images + 0.3 * np.random.default_rng(int(key)).normal(size=images.shape)
            for key in keys[:20]
        ]
    )
    moved = wobbliness.open_classifier(network, device="cuda")
    here = wobbliness.open_classifier(network)
    batch = noisy.astype(np.float32)
    with moved.session(batch[:4]), here.session(batch[:4]):
        assert (moved.classify(batch, 250) != here.classify(batch, 25)).mean() <= 1e-3


@needs_cuda
def test_a_card_reports_what_lower_precision_changes(digits):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    classifier = wobbliness.open_classifier(network, device="cuda", autocast=True)
    assert (
        0
        <= wobbliness.measure(classifier, digits.test.images[:40], 0.3).execution.changed_labels
        < 0.2
    )


def records_of(out):
    return [read_record(out / "records", path.stem) for path in (out / "records").glob("*.json")]


@needs_cuda
def test_a_study_runs_on_a_card(tmp_path):
    run_study(
        small(),
        tmp_path,
        only=["C3"],
        workers=1,
        place=Place(device="cuda", autocast=True),
        progress=ignore_progress,
    )
    records = records_of(tmp_path)
    assert all(record.provenance["device"].startswith("cuda (") for record in records)
    executions = [
        execution for record in records for execution in record.results.get("executions", ())
    ]
    assert executions
    assert all(
        execution["device"] == "cuda" and execution["changed_labels"] < 0.2
        for execution in executions
    )


@needs_cuda
def test_crafting_runs_on_a_card(digits):
    spec = recipes.digits().parameter_networks[0]
    card, here = (
        train_network(spec, digits, device=torch.device(name), progress=ignore_progress)
        for name in ("cuda", "cpu")
    )
    assert next(card.network.parameters()).device.type == "cuda"
    assert abs(card.clean_accuracy - here.clean_accuracy) < 0.1
    images = digits.test.images[:64]
    found = craft_candidates(
        card.network, images, num_classes=10, restarts=1, max_steps=40, progress=ignore_progress
    )
    assert any(
        candidate is not None and candidate.success_rate >= 0.99 for candidate in found.smallest
    )
    universal = craft_universal_perturbation(
        card.network, images, norm=2.0, bound=2.0, progress=ignore_progress
    )
    assert universal.fooling_rate > 0.3


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (Place(device=ABSENT), f"expected a device that this machine has, got '{ABSENT}'"),
        (Place(device="nonsense"), "expected a device such as cpu, cuda or mps, got 'nonsense'"),
        (Place(autocast=True), "expected an accelerator for autocast, got the cpu"),
    ],
)
def test_a_study_needs_the_device_it_is_told(tmp_path, place, problem):
    with pytest.raises(ValueError, match=f"^{problem}$"):
        run_study(small(), tmp_path / "study", place=place)
    assert not (tmp_path / "study").exists()


def test_a_record_says_where_it_was_made(tmp_path):
    run_study(
        small(),
        tmp_path,
        only=["C3"],
        workers=1,
        place=Place(device="cpu"),
        progress=ignore_progress,
    )
    records = records_of(tmp_path)
    assert {record.provenance["device"] for record in records} == {"cpu"}
