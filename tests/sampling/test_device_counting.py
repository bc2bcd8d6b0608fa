"""Perturbations on a device, on the CPU where there is no card: their draws, copies and votes."""

import hashlib

import numpy as np
import pytest
import torch

import wobbliness
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations import Gaussian
from wobbliness.sampling.device_counting import PAGE

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


class Projections(torch.nn.Module):
    """Four classes by two random projections; keeps the batches that it has seen."""

    def __init__(self):
        super().__init__()
        weights = np.random.default_rng(1).normal(size=(4, int(np.prod(SHAPE))))
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.batches = []

    def forward(self, images):
        self.batches.append(images.clone())
        return (images.flatten(1) - 0.5) @ self.weights.T


def opened(module=None, device=CPU):
    return AcceleratedClassifier(module or Projections(), device=device)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((7, *SHAPE), dtype=np.float32)


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
        expected.append(torch.add(torch.from_numpy(image), normal, alpha=0.3))
    blocks = [batch for batch in module.batches if len(batch) == block]
    seen = torch.cat(blocks)[: draws * len(pictures)]
    assert torch.equal(seen, torch.cat(expected)), "bit for bit"
    labels = (Projections()(seen)).argmax(dim=1).reshape(len(pictures), draws)
    counts = np.stack([np.bincount(row, minlength=4) for row in labels.numpy()])
    assert np.array_equal(votes.counts, counts)
    assert votes.perturbation == Gaussian(0.3).name
