"""Networks that are trained on the digits, quantised by ONNX Runtime, against float32."""

import low_precision as low
import numpy as np
import pytest
import torch
from digits_networks import planted_and_clean
from model_files import save_onnx

import wobbliness
from wobbliness.attacks.patch import trigger
from wobbliness.attacks.poisoning import t1
from wobbliness.classifiers.compile import quantised
from wobbliness.perturbations import Uniform
from wobbliness.sampling.counting import low_precision
from wobbliness.sampling.counting.low_precision import CHECKED, FLOAT32

LEVELS, TARGET, BY_SIZES = (0.1, 0.2), 1, quantised.relative_cost


def num_changed(one, other):
    return int(np.abs(one.counts - other.counts).sum()) // 2


@pytest.fixture(scope="module")
def networks(trained):
    return [network.eval() for network in planted_and_clean(trained, t1(TARGET), "dot")]


@pytest.fixture(autouse=True)
def int8_pays(monkeypatch):
    """A processor with dot products, and the small network counted among those it pays for."""
    low.has_dot_products(monkeypatch)
    monkeypatch.setattr(quantised, "relative_cost", lambda _: 0.3)


@pytest.mark.parametrize("has_trigger", [False, True], ids=["clean", "trigger"])
@pytest.mark.parametrize("index", [0, 1], ids=["planted", "unplanted"])
def test_votes_of_trained_networks_hardly_change(networks, digits, index, has_trigger):
    images = digits.test.images
    images = trigger("dot").apply(images) if has_trigger else images
    plain = wobbliness.sweep(networks[index], images, LEVELS, draws=120)
    checked = wobbliness.sweep(networks[index], images, LEVELS, draws=120, precision="checked")
    assert checked.precision == CHECKED
    for sigma in LEVELS:
        one, other = plain[sigma], checked[sigma]
        num_votes = int(one.counts.sum())
        assert num_changed(one, other) <= 1e-4 * num_votes
        assert np.abs(one.wobbliness - other.wobbliness).mean() <= 0.001
        # of all copies but those that low precision was calibrated by
        assert other.changed_votes.num_low > 0.6 * (num_votes - 46_200)


def test_an_onnx_file_under_uniform_noise(networks, digits, tmp_path):
    images = digits.test.images
    path = save_onnx(networks[1], tmp_path / "network.onnx", torch.from_numpy(images[:2]))
    classifier = wobbliness.open_classifier(path)
    plain = wobbliness.measure(classifier, images, Uniform(0.1), draws=120)
    checked = wobbliness.measure(classifier, images, Uniform(0.1), draws=120, precision="checked")
    assert checked.execution.precision == CHECKED
    assert num_changed(plain, checked) <= 1e-4 * plain.counts.sum()
    order = np.random.default_rng(0).permutation(len(images))
    other = wobbliness.measure(
        classifier, images[order], Uniform(0.1), draws=120, workers=1, precision="checked"
    )
    np.testing.assert_array_equal(other.counts, checked.counts[order])


def test_a_network_of_close_scores_gives_up(digits):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    with torch.no_grad():
        # all classes alike, but for a thousandth
        module[1].weight[:] = module[1].weight[0] + 1e-3 * module[1].weight
        module[1].bias.zero_()
    images = digits.test.images
    checked = wobbliness.measure(module, images, 0.1, draws=120, precision="checked")
    plain = wobbliness.measure(module, images, 0.1, draws=120)
    assert checked.execution.precision.startswith("float32: no margin of the quantised network")
    np.testing.assert_array_equal(checked.counts, plain.counts)


def test_a_small_network_does_not_pay_by_the_sizes_of_its_steps(networks, digits, monkeypatch):
    monkeypatch.setattr(quantised, "relative_cost", BY_SIZES)
    images = digits.test.images
    checked = wobbliness.measure(networks[1], images, 0.1, draws=80, precision="checked")
    plain = wobbliness.measure(networks[1], images, 0.1, draws=80)
    assert checked.execution.precision == FLOAT32.format(low_precision.TOO_SLOW)
    np.testing.assert_array_equal(checked.counts, plain.counts)
