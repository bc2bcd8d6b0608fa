"""Exported programs of the usual forms: counts equal to a slow loop through the program."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from model_files import save_exported

import wobbliness
from wobbliness.perturbations.base import image_keys
from wobbliness.perturbations.noise.gaussian import NormalStream

CHANNELS, HEIGHT, WIDTH, NUM_CLASSES, SIGMA, DRAWS = 3, 5, 6, 4, 0.7, 15
FLAT = CHANNELS * HEIGHT * WIDTH
IMAGES = np.random.default_rng(0).uniform(size=(4, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
PICTURES = torch.rand(2, CHANNELS, HEIGHT, WIDTH)


class Made(NamedTuple):
    """Tensors that an answer is made from."""

    rows: torch.Tensor
    logits: torch.Tensor
    one: torch.Tensor


class Form(torch.nn.Module):
    """A linear network whose answer, and what it is made from, have a form of their own."""

    def __init__(self, answer, before=lambda images: images):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.one = torch.nn.Linear(FLAT, NUM_CLASSES), torch.nn.Linear(FLAT, 1)
        self.answer, self.before = answer, before

    def forward(self, images):
        rows = self.before(images).flatten(1)
        return self.answer(Made(rows, self.dense(rows), self.one(rows)))


def slow_counts(program, label, handed, num_classes=NUM_CLASSES, images=IMAGES):
    counts = np.zeros((len(images), num_classes), np.int64)
    for row, (image, key) in enumerate(zip(images, image_keys(images), strict=True)):
        for noise in NormalStream(0, int(key), image.shape).take(DRAWS).copy():
            with torch.no_grad():
                answer = program(torch.from_numpy(handed(image + noise * np.float32(SIGMA))))
            counts[row, int(label(answer))] += 1
    return counts


def check_votes(
    path, label, handed=lambda copy: copy[None], width=NUM_CLASSES, images=IMAGES, **options
):
    votes = wobbliness.measure(
        wobbliness.open_classifier(path, **options), images, SIGMA, draws=DRAWS
    )
    assert votes.execution.backend == "onnxruntime", votes.execution.reason
    program = torch.export.load(str(path)).module()
    assert np.array_equal(votes.counts, slow_counts(program, label, handed, width, images))
    assert votes.wobbliness.max() > 0.1, "control: there is something to agree on"


def scores(made):
    return made.logits


FORMS = {
    "a dict": (
        lambda made: {"features": made.rows, "logits": made.logits},
        lambda got: got["logits"].argmax(),
        {},
    ),
    "a label next to scores": (
        lambda made: {"label": made.logits.argmax(1), "scores": made.logits},
        lambda got: got["label"],
        {},
    ),
    "a tuple, by number": (
        lambda made: (made.rows, made.logits),
        lambda got: got[1].argmax(),
        {"output": "1"},
    ),
    "a nested tuple, by name": (
        lambda made: (made.rows, {"a": (made.rows, made.logits)}),
        lambda got: got[1]["a"][1].argmax(),
        {"output": "1.a.1"},
    ),
    "a tuple, by the number of classes": (
        lambda made: (made.rows, made.logits),
        lambda got: got[1].argmax(),
        {"num_classes": NUM_CLASSES},
    ),
    "labels only": (
        lambda made: made.logits.argmax(1),
        lambda got: got,
        {"num_classes": NUM_CLASSES},
    ),
    "labels in a column": (
        lambda made: made.logits.argmax(1)[:, None],
        lambda got: got,
        {"num_classes": NUM_CLASSES},
    ),
    "labels chosen": (
        lambda made: (made.logits, made.logits.argmax(1)),
        lambda got: got[1],
        {"output": 1, "num_classes": NUM_CLASSES},
    ),
    "scores (B, 1, K)": (lambda made: made.logits[:, None], lambda got: got.argmax(), {}),
    "scores (B, K, 1, 1)": (
        lambda made: made.logits[..., None, None],
        lambda got: got.argmax(),
        {},
    ),
    "one probability": (
        lambda made: torch.sigmoid(made.one)[:, 0],
        lambda got: got.item() > 0.5,
        {},
    ),
    "one logit": (lambda made: {"logits": made.one}, lambda got: got["logits"].item() > 0, {}),
    "one score": (lambda made: made.one, lambda got: got.item() > 0.125, {"threshold": 0.125}),
}


@pytest.mark.parametrize("form", FORMS)
def test_votes_of_every_form_are_those_of_a_slow_loop(form, tmp_path):
    answer, label, options = FORMS[form]
    path = save_exported(Form(answer), tmp_path / "m.pt2", PICTURES)
    check_votes(path, label, width=2 if "one" in form else NUM_CLASSES, **options)


def from_bytes(images):
    return images.float() / 255


def test_inputs_of_other_forms(tmp_path):
    def label(got):
        return got.argmax()

    flat = save_exported(Form(scores), tmp_path / "flat.pt2", torch.rand(2, FLAT))
    check_votes(flat, label, lambda copy: copy.reshape(1, -1))
    check_votes(
        flat, label, lambda copy: copy.transpose(1, 2, 0).reshape(1, -1).copy(), layout="nhwc"
    )
    grey = save_exported(Form(scores), tmp_path / "grey.pt2", torch.rand(2, 9, 10))
    pictures = np.random.default_rng(1).uniform(size=(3, 1, 9, 10)).astype(np.float32)
    check_votes(grey, label, lambda copy: copy, images=pictures)
    check_votes(grey, label, images=pictures[:, 0])
    eight = save_exported(
        Form(scores, from_bytes),
        tmp_path / "bytes.pt2",
        torch.zeros_like(PICTURES, dtype=torch.uint8),
    )
    check_votes(
        eight,
        label,
        lambda copy: np.clip(np.rint(copy[None] * np.float32(255)), 0, 255).astype(np.uint8),
    )
    with pytest.raises(ValueError, match="expected an input range of 0,255"):
        wobbliness.open_classifier(eight, input_range=(-1, 1))


REFUSED = {
    "two that could be meant": (
        lambda made: (made.rows, made.logits),
        {},
        r"0: torch.float32 \(B, 90\), 1: torch.float32 \(B, 4\) .*choose one by output=NAME",
    ),
    "the best three": (
        lambda made: tuple(made.logits.topk(3)),
        {},
        "expected an output of .*scores",
    ),
    "the numbers of the best three alone": (
        lambda made: made.logits.topk(3).indices,
        {},
        "expected an output of labels",
    ),
    "features chosen": (
        lambda made: {"map": made.rows.reshape(-1, 9, 10), "logits": made.logits},
        {"output": "map"},
        "map",
    ),
    "one score that does not tell": (lambda made: made.one, {}, "give the threshold"),
    "a threshold without effect": (scores, {"threshold": 0.5}, "expected one score"),
}


@pytest.mark.parametrize("num_best", [2, 3])
def test_the_best_few_values_are_no_scores(num_best, tmp_path):
    path = save_exported(
        Form(lambda made: made.logits.topk(num_best).values), tmp_path / "m.pt2", PICTURES
    )
    with pytest.raises(
        ValueError, match="^expected scores of the classes, got values sorted in descending order"
    ):
        wobbliness.measure(path, IMAGES, SIGMA, draws=DRAWS)


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_be_meant_is_refused(case, tmp_path):
    answer, options, message = REFUSED[case]
    path = save_exported(Form(answer), tmp_path / "m.pt2", PICTURES)
    with pytest.raises(ValueError, match=message) as refusal:
        wobbliness.open_classifier(path, **options)
    assert "\n" not in str(refusal.value)
