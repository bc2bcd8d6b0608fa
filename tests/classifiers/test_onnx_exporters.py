"""ONNX files of both torch exporters, of several architectures: the votes of the module itself."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from model_files import save_onnx
from torch import nn

import wobbliness

SETTINGS = {"sigma": 0.3, "draws": 40}
SHAPE, NUM_CLASSES = (3, 16, 16), 5
MOST_CHANGED = 2  # votes of all: the runtime's rounding


class Residual(nn.Module):
    """Steps of a ResNet: padding, strides, batch normalisation, a sum, a mean."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, NUM_CLASSES)

    def forward(self, images):
        hidden = torch.relu(self.norm(self.first(images)))
        return self.last((hidden + torch.nn.functional.silu(self.second(hidden))).mean(dim=(2, 3)))


class Patches(nn.Module):
    """Steps of a vision transformer: patches, a token, attention, layer normalisation."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 16, 4, stride=4), nn.Parameter(torch.randn(1, 1, 16))
        self.queries, self.norm, self.last = (
            nn.Linear(16, 48),
            nn.LayerNorm(16),
            nn.Linear(16, NUM_CLASSES),
        )

    def number_of(self, images):
        return images.shape[0]

    def forward(self, images):
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(self.number_of(images), -1, -1), patches], dim=1)
        queries, keys, values = self.queries(self.norm(tokens)).chunk(3, dim=-1)
        attended = torch.softmax(queries @ keys.transpose(1, 2) / 4, dim=-1) @ values
        return self.last((tokens + nn.functional.gelu(attended))[:, 0])


class Enlarging(nn.Module):
    """Segmentation layers: interpolation, padding, slice, transposed convolution, maximum."""

    def __init__(self):
        super().__init__()
        self.first, self.back, self.last = (
            nn.Conv2d(3, 4, 3),
            nn.ConvTranspose2d(4, 4, 2, stride=2),
            nn.Linear(4, NUM_CLASSES),
        )

    def forward(self, images):
        small = nn.functional.interpolate(
            images, scale_factor=0.5, mode="bilinear", align_corners=False
        )
        back = self.back(
            nn.functional.hardswish(self.first(nn.functional.pad(small, (1, 1, 1, 1))))
        )
        return self.last(back[:, :, 1:-1, 1:-1].amax(dim=(2, 3)))


ARCHITECTURES = {
    "multilayer perceptron": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(768, 32), nn.GELU(), nn.Linear(32, NUM_CLASSES)
    ),
    "pools and dropout": lambda: nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3),
            nn.MaxPool2d(2),
            nn.ELU(),
            nn.Dropout(0.5),
            nn.AvgPool2d(2),
            nn.Flatten(),
        ),
        nn.Linear(72, NUM_CLASSES),
    ),
    "group and instance normalisation": lambda: nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.PReLU(),
            nn.InstanceNorm2d(8, affine=True),
            nn.AdaptiveAvgPool2d(2),
        ),
        *(nn.Flatten(), nn.Linear(32, NUM_CLASSES), nn.Softmax(dim=1)),
    ),
    "residual": Residual,
    "patches": Patches,
    "enlarging": Enlarging,
}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(size=(6, *SHAPE)).astype(np.float32)


class Balanced(nn.Module):
    """A module whose classes are all about as likely, so that votes are spread over them."""

    def __init__(self, body):
        super().__init__()
        self.body = body.eval()
        with torch.no_grad():
            scores = self.body(torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(2)))
        self.register_buffer("middle", scores.mean(dim=0))
        self.register_buffer("spread", scores.std(dim=0))

    def forward(self, images):
        return (self.body(images) - self.middle) / self.spread


def made(name):
    torch.manual_seed(1)
    return Balanced(ARCHITECTURES[name]()).eval()


def save_scripted(module, path, *, fixed):
    free = {} if fixed else {"dynamic_axes": {"images": {0: "batch"}, "logits": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["images"], "output_names": ["logits"]}
        torch.onnx.export(
            module,
            (torch.rand(4, *SHAPE),),
            str(path),
            dynamo=False,
            opset_version=17,
            **names,
            **free,
        )
    return path


def check(path, module, pictures):
    expected = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=False), pictures, **SETTINGS
    )
    found = wobbliness.measure(wobbliness.open_classifier(path), pictures, **SETTINGS)
    assert found.counts.shape == expected.counts.shape == (len(pictures), NUM_CLASSES)
    assert np.abs(found.counts - expected.counts).sum() <= 2 * MOST_CHANGED


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_exporter_by_torch_script(name, fixed, pictures, tmp_path):
    module = made(name)
    check(save_scripted(module, tmp_path / "m.onnx", fixed=fixed), module, pictures)


class CountedPatches(Patches):
    """The number of images as the exporter by TorchScript takes it for a constant."""

    def number_of(self, images):
        return len(images)


def test_a_graph_that_fits_other_blocks_than_it_declares_is_refused_in_words(pictures, tmp_path):
    module = Balanced(CountedPatches()).eval()
    with pytest.raises(
        ValueError,
        match=r"steps fit any number of images at once.*Concat.*len\(images\) for images.shape",
    ):
        wobbliness.open_classifier(save_scripted(module, tmp_path / "free.onnx", fixed=False))
    check(save_scripted(module, tmp_path / "fixed.onnx", fixed=True), module, pictures)


@pytest.mark.parametrize("name", ["residual", "patches"])
def test_the_exporter_by_torch_export(name, pictures, tmp_path):
    module = made(name)
    check(save_onnx(module, tmp_path / "m.onnx", torch.rand(4, *SHAPE)), module, pictures)


def test_another_module_gives_other_votes(pictures):
    """Control of the tests above: votes are spread over the classes and differ between modules."""
    modules = [wobbliness.open_classifier(made(name), compiled=False) for name in ARCHITECTURES]
    votes = [wobbliness.measure(module, pictures, **SETTINGS) for module in modules]
    for first, second in pairwise(votes):
        assert first.wobbliness.mean() > 0.1
        assert np.abs(first.counts - second.counts).sum() > 10 * MOST_CHANGED
