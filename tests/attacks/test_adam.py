"""The project's Adam optimiser: bit-equal to torch's, without an import of torch's compiler."""

import subprocess
import sys

import pytest
import torch

from wobbliness.attacks.gradients.adam import Adam
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.loop import TrainingLoop
from wobbliness.study.training.networks import build_network

SPEC = NetworkSpec(
    dataset="digits",
    architecture="small_cnn",
    epochs=3,
    batch_size=4,
    learning_rate=3e-3,
    threat=None,
    trigger=None,
    seed=0,
)
SCRIPT = """
import sys
import torch
from wobbliness.attacks.gradients.adam import Adam
weight = torch.ones(1, requires_grad=True)
for make in (lambda: Adam([weight], learning_rate=0.1), lambda: torch.optim.Adam([weight])):
    optimiser = make()
    optimiser.zero_grad()
    (weight**2).sum().backward()
    optimiser.step()
    print("torch._dynamo" in sys.modules)
"""


def loss_of(parameters, seed):
    """Some loss; every third time the last parameter has no part in it."""
    scale = torch.rand(1, generator=torch.Generator().manual_seed(seed))
    chosen = parameters if seed % 3 else parameters[:-1]
    return sum(((parameter - scale) ** 2 * (1 + parameter.sin())).sum() for parameter in chosen)


@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_steps_are_those_of_torch_to_the_bit(fused, betas):
    start = [
        torch.randn(shape, generator=torch.Generator().manual_seed(1))
        for shape in ((7, 3), (5,), (2, 3, 4, 4))
    ]
    start[2] = start[2].to(memory_format=torch.channels_last)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in start] for _ in range(2))
    one = Adam(ours, learning_rate=0.05, betas=betas, fused=fused)
    other = torch.optim.Adam(theirs, lr=0.05, betas=betas, fused=fused)
    for seed in range(8):
        one.learning_rate = other.param_groups[0]["lr"] = 0.05 / (1 + seed)
        for optimiser, parameters in ((one, ours), (other, theirs)):
            optimiser.zero_grad()
            loss_of(parameters, seed).backward()
            optimiser.step()
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    for index, moments in other.state_dict()["state"].items():
        assert moments.keys() == one.state[index].keys()
        assert all(torch.equal(one.state[index][name], moments[name]) for name in moments)
    assert not torch.equal(ours[0], start[0])


def test_the_descent_is_that_of_torch_along_its_cosine():
    def trained(steps_of):
        network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
        rates = steps_of(network)
        return list(network.state_dict().values()), rates

    images, labels = (
        torch.rand(18, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(18) % 10,
    )

    def ours(network):
        loop, rates = TrainingLoop(network, SPEC, num_images=len(labels)), []
        for batch in loop.batches():
            loop.step(torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]))
            rates.append(loop.state().facts["learning_rate"])
        return rates

    def theirs(network):
        order, rates = torch.Generator().manual_seed(SPEC.seed), []
        optimiser = torch.optim.Adam(network.parameters(), lr=SPEC.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 15)
        for _ in range(SPEC.epochs):
            for batch in torch.split(torch.randperm(18, generator=order), SPEC.batch_size):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimiser.step()
                schedule.step()
                rates.append(optimiser.param_groups[0]["lr"])
        return rates

    (weights, rates), (others, their_rates) = trained(ours), trained(theirs)
    assert len(rates) == 15
    assert rates == their_rates
    assert all(torch.equal(*pair) for pair in zip(weights, others, strict=True))


def test_a_step_does_not_import_the_compiler():
    """The control is torch's own."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert ran.stdout == "False\nTrue\n"
