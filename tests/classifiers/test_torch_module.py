"""Forms of torch modules: votes equal to a slow loop, or one line that says why not."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import wobbliness
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations.noise.gaussian import NormalStream

SETTINGS = {"sigma": 0.3, "draws": 30}


@pytest.fixture
def few(images):
    return images[:4]


class Network(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features, self.head = nn.Linear(64, 8), nn.Linear(8, num_classes)

    def hidden(self, batch):
        return torch.relu(self.features(batch.flatten(1)))

    def forward(self, batch):
        return self.head(self.hidden(batch))


Named = namedtuple("Named", ["features", "logits"])


@dataclass
class Answer:
    logits: torch.Tensor
    hidden_states: tuple


def giving(answer_of, num_classes=3):
    class Giving(Network):
        def forward(self, batch):
            hidden = self.hidden(batch)
            return answer_of(hidden, self.head(hidden))

    return Giving(num_classes).eval()


def model_output(hidden, logits):
    from transformers.modeling_outputs import ImageClassifierOutput

    return ImageClassifierOutput(logits=logits, hidden_states=(hidden, hidden))


FORMS = {
    "dict": (
        lambda hidden, logits: {"features": hidden, "logits": logits},
        lambda answer: answer["logits"],
    ),
    "tuple of logits and states": (
        lambda hidden, logits: (logits, (hidden,)),
        lambda answer: answer[0],
    ),
    "tuple of one": (lambda _, logits: (logits,), lambda answer: answer[0]),
    "named tuple": (lambda hidden, logits: Named(hidden, logits), lambda answer: answer.logits),
    "dataclass": (lambda hidden, logits: Answer(logits, (hidden,)), lambda answer: answer.logits),
    "ModelOutput": (model_output, lambda answer: answer.logits),
    "(B, K, 1, 1)": (lambda _, logits: logits[:, :, None, None], lambda answer: answer[:, :, 0, 0]),
    "tensor": (lambda _, logits: logits, lambda answer: answer),
    "one-hot integers": (
        lambda _, logits: nn.functional.one_hot(logits.argmax(1), 3),
        lambda answer: answer,
    ),
    "one-hot flags": (
        lambda _, logits: nn.functional.one_hot(logits.argmax(1), 3).bool(),
        lambda answer: answer.int(),
    ),
}


def slow_counts(scores_of, images, num_classes):
    """One noisy copy at a time through the module itself."""
    counts = np.zeros((len(images), num_classes), np.int64)
    for row, (image, key) in enumerate(zip(images, wobbliness.image_keys(images), strict=True)):
        for noise in NormalStream(0, int(key), image.shape).take(SETTINGS["draws"]).copy():
            copy = torch.from_numpy((image + np.float32(SETTINGS["sigma"]) * noise)[None])
            with torch.no_grad():
                counts[row, int(scores_of(copy)[0].argmax())] += 1
    return counts


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_votes_equal_a_slow_loop(name, compiled, few):
    answer_of, read = FORMS[name]
    module = giving(answer_of)
    votes = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=compiled), few, **SETTINGS
    )
    assert votes.execution.backend == ("onnxruntime" if compiled else "torch"), (
        votes.execution.reason
    )
    assert np.array_equal(votes.counts, slow_counts(lambda batch: read(module(batch)), few, 3))
    assert votes.wobbliness.max() > 0.1, "control"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_equal_a_slow_loop(dtype, few):
    module = Network().to(dtype).eval()
    votes = wobbliness.measure(module, few, **SETTINGS)
    exact = slow_counts(lambda batch: module(batch.to(dtype)).float(), few, 3)
    assert np.abs(votes.counts - exact).sum() / 2 <= (0 if dtype == torch.float64 else 2)


def test_an_output_may_be_chosen_and_has_to_be_where_two_could_be_meant(few):
    module = giving(lambda hidden, logits: (hidden, logits))
    with pytest.raises(
        ValueError,
        match="^expected one output of labels or scores, got .* choose one by output=NAME",
    ):
        wobbliness.measure(module, few, **SETTINGS)
    votes = wobbliness.measure(wobbliness.open_classifier(module, output=1), few, **SETTINGS)
    assert np.array_equal(
        votes.counts, wobbliness.measure(Network().eval(), few, **SETTINGS).counts
    )
    with pytest.raises(
        ValueError,
        match="^expected no output to be chosen of a module that gives one tensor, got 'logits'",
    ):
        wobbliness.measure(wobbliness.open_classifier(Network(), output="logits"), few, **SETTINGS)


RANKS = {
    "numbers of the best two": lambda _, logits: logits.topk(2).indices,
    "all numbers in order": lambda _, logits: logits.argsort(dim=1, descending=True),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", RANKS)
def test_numbers_of_the_best_classes_are_no_scores(name, compiled, few):
    with pytest.raises(
        ValueError, match="integers of . columns that look like the numbers of the best classes"
    ):
        wobbliness.measure(
            wobbliness.open_classifier(giving(RANKS[name], 5), compiled=compiled), few, **SETTINGS
        )
    of_function = giving(RANKS[name], 5)
    with pytest.raises(ValueError, match="numbers of the best classes"):
        wobbliness.measure(
            lambda batch: of_function(torch.from_numpy(batch)).numpy(), few, **SETTINGS
        )


def in_sorted_order(logits):
    return logits.gather(1, logits.argsort(1, descending=True))


SORTED = {
    "the best three": lambda _, logits: logits.topk(3).values.softmax(1),
    "all in descending order": lambda _, logits: in_sorted_order(logits),
    "all in ascending order": lambda _, logits: logits.T.msort().T,
}


def as_arrays(module):
    def call(batch):
        with torch.no_grad():
            return module(torch.from_numpy(batch)).numpy()

    return call


@pytest.mark.parametrize("compiled", [True, False, None])
@pytest.mark.parametrize("name", SORTED)
def test_sorted_values_are_no_scores(name, compiled, few):
    module = giving(SORTED[name], 5)
    classifier = (
        as_arrays(module)
        if compiled is None
        else wobbliness.open_classifier(module, compiled=compiled)
    )
    with pytest.raises(
        ValueError,
        match="^expected scores of the classes, got values sorted in (de|a)scending order",
    ) as refusal:
        wobbliness.measure(classifier, few, **SETTINGS)
    assert "\n" not in str(refusal.value)


def test_the_better_of_two_values_is_no_class(few):
    with pytest.raises(ValueError, match="got values sorted in descending order"):
        wobbliness.measure(giving(lambda _, logits: logits.topk(2).values), few, **SETTINGS)


def test_cumulative_probabilities_are_no_scores(few):
    module = as_arrays(giving(lambda _, logits: logits.sigmoid().cumprod(1), 4))
    for block_size in (1, 20, None):
        with pytest.raises(ValueError, match="got values sorted in descending order"):
            wobbliness.measure(module, few, block_size=block_size, **SETTINGS)


IN_ORDER_BY_CHANCE = {
    "images of one class": lambda _, logits: logits * 0.1 + torch.tensor([2.0, 1.0, 0.0]),
    "two classes": lambda _, logits: logits[:, :2] * 0.1 + torch.tensor([9.0, 0.0]),
    "certain": lambda _, logits: torch.nn.functional.one_hot((logits * 0).argmax(1), 3).float(),
    "the same for all images": lambda _, logits: logits * 0 + torch.tensor([2.0, 1.0, 0.0]),
    "sorted features in it": lambda hidden, logits: logits + hidden.sort(1).values[:, :3],
    "the largest of each channel": lambda hidden, _: (
        hidden.unflatten(1, (4, -1)).sort(2).values[:, :, -1:].squeeze(2)
    ),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", IN_ORDER_BY_CHANCE)
def test_scores_that_are_in_order_by_chance_are_scores(name, compiled, few):
    module = giving(IN_ORDER_BY_CHANCE[name]).eval()
    votes = wobbliness.measure(
        wobbliness.open_classifier(module, compiled=compiled), few, 0.1, draws=20
    )
    assert np.array_equal(votes.counts.sum(axis=1), [20] * len(few))


@pytest.mark.parametrize("kind", [np.int64, np.uint32])
def test_votes_and_integers_with_a_sign_are_scores(kind, few):
    weights = np.random.default_rng(0).normal(size=(7, 64, 3))

    def voting(batch):
        return sum(
            np.eye(3, dtype=kind)[(batch.reshape(len(batch), 64) @ voter).argmax(1)]
            for voter in weights
        )

    def signed(batch):
        return np.rint(batch.reshape(len(batch), 64) @ weights[0] * 9).astype(np.int32)

    for function in (voting, signed):
        votes = wobbliness.measure(function, few, **SETTINGS)
        floats = wobbliness.measure(
            lambda batch, function=function: function(batch).astype(np.float32), few, **SETTINGS
        )
        assert np.array_equal(votes.counts, floats.counts)
        assert votes.wobbliness.max() > 0.1, "control"


@pytest.mark.parametrize("compiled", [True, False])
def test_labels_of_a_module_are_the_classes(compiled, few):
    module = wobbliness.open_classifier(
        giving(lambda _, logits: logits.argmax(1)), compiled=compiled, num_classes=3
    )
    votes = wobbliness.measure(module, few, **SETTINGS)
    assert np.array_equal(
        votes.counts, wobbliness.measure(Network().eval(), few, **SETTINGS).counts
    )


ODD_ANSWERS = {
    "a parameter": lambda _, logits: nn.Parameter(logits),
    "sparse": lambda _, logits: logits.to_sparse(),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_tensors_of_unusual_kinds_give_the_votes_of_plain_ones(name, few):
    votes = wobbliness.measure(giving(ODD_ANSWERS[name]), few, **SETTINGS)
    assert np.array_equal(
        votes.counts, wobbliness.measure(Network().eval(), few, **SETTINGS).counts
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "answer_of",
    [
        lambda _, logits: torch.nested.nested_tensor(list(logits)),
        lambda _, logits: logits.to(torch.complex64),
    ],
)
def test_tensors_that_are_no_real_scores_are_refused(answer_of, few):
    with pytest.raises(ValueError, match="^expected a tensor of real scores of one shape, got"):
        wobbliness.measure(giving(answer_of), few, **SETTINGS)


class OneAtATime(Network):
    """Takes one image, whatever it does about more."""

    def __init__(self, refuse):
        super().__init__()
        self.refuse = refuse

    def forward(self, batch):
        return super().forward(batch) if len(batch) == 1 else self.refuse(batch)


def refusing(kind):
    def refuse(batch):
        raise kind(f"got {len(batch)} at once")

    return refuse


ONE_IMAGE = {
    "its own error": refusing(ValueError),
    "an error of a lookup": refusing(KeyError),
    "another shape": lambda batch: batch.reshape(1, -1),
}


@pytest.mark.parametrize("block_size", [None, 7])
@pytest.mark.parametrize("kind", ["module", "callable"])
@pytest.mark.parametrize("name", ONE_IMAGE)
@pytest.mark.filterwarnings("ignore")
def test_what_takes_one_image_is_measured_one_at_a_time(name, kind, block_size, few):
    module = OneAtATime(ONE_IMAGE[name]).eval()
    classifier = module if kind == "module" else as_arrays(module)
    votes = wobbliness.measure(classifier, few, block_size=block_size, **SETTINGS)
    assert np.array_equal(votes.counts, slow_counts(Network().eval(), few, 3))
    assert votes.execution.block_size == 1
    limited = "module" if kind == "module" and not block_size else "classifier"
    assert votes.execution.company == f"one copy at a time: the {limited} takes no more at once"
    assert "one copy at a time" in votes.execution.remarks[-1]


def test_on_a_device_the_way_to_go_is_said(few):
    classifier = AcceleratedClassifier(
        OneAtATime(refusing(ValueError)).eval(), device=torch.device("cpu")
    )
    with pytest.raises(
        ValueError,
        match=r"got 12 at once; it takes one image at a time, which the cpu does: device='cpu'$",
    ):
        wobbliness.measure(classifier, few, **SETTINGS)


@pytest.mark.parametrize(
    "answer",
    [*RANKS.values(), SORTED["the best three"], lambda _, logits: logits.argmax(1).float()],
)
@pytest.mark.filterwarnings("ignore")
def test_one_image_at_a_time_is_checked_too(answer, few):
    module = giving(answer, 5)

    def call(batch):
        if len(batch) > 1:
            raise LookupError
        return as_arrays(module)(batch)

    for classifier, block_size in ((call, None), (as_arrays(module), 1)):
        opened = wobbliness.open_classifier(classifier, threshold=None)
        with pytest.raises(
            ValueError,
            match="numbers of the best|sorted in descending|whole numbers|give the threshold",
        ):
            wobbliness.measure(opened, few, 3.0, draws=100, block_size=block_size)


@pytest.mark.parametrize("kind", [ValueError, KeyError])
def test_what_takes_no_image_says_so_itself(kind, few):
    def refuse(batch):
        raise kind(f"got {len(batch)} at once")

    with pytest.raises(kind, match="at once"):
        wobbliness.measure(refuse, few, **SETTINGS)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("kind", ["compiled", "eager", "callable"])
def test_labels_as_floats_are_no_scores(kind, threshold, column, few):
    module = giving(lambda _, logits: logits.argmax(1, keepdim=column).float(), 5)
    bright = (few * 0 + np.linspace(0, 1, len(few)).reshape(-1, 1, 1, 1)).astype(np.float32)
    classifier = as_arrays(module) if kind == "callable" else module
    options = {} if kind == "callable" else {"compiled": kind == "compiled"}
    with pytest.raises(
        ValueError,
        match="^expected integer labels .* whole numbers from 0 to [2-4]; .* "
        "convert them to integers",
    ):
        wobbliness.measure(
            wobbliness.open_classifier(classifier, threshold=threshold, **options),
            bright,
            5.0,
            draws=20,
        )


def test_one_score_may_be_a_whole_number(few):
    def votes_for_one(batch):
        return (np.asarray(batch).reshape(len(batch), 64)[:, 20:25] > 0.5).sum(axis=1).astype(
            np.float32
        ) - 2

    opened = wobbliness.open_classifier(votes_for_one, threshold=0)
    assert np.array_equal(
        wobbliness.measure(opened, few, **SETTINGS).counts.sum(axis=1),
        [SETTINGS["draws"]] * len(few),
    )


def test_one_score_for_two_classes(few):
    module = nn.Sequential(Network(1), nn.Sigmoid()).eval()
    votes = wobbliness.measure(module, few, **SETTINGS)

    def two(batch):
        return torch.cat([torch.full((len(batch), 1), 0.5), module(batch)], dim=1)

    assert np.array_equal(votes.counts, slow_counts(two, few, 2))


def weight_normed():
    module = Network()
    nn.utils.parametrizations.weight_norm(module.features)
    return module


def sharing():
    module = Network(8)
    module.again = module.head
    module.head.weight = nn.Parameter(module.head.weight.detach())
    return module


class WithState(Network):
    def get_extra_state(self):
        return {"steps": 3, "names": ["a"]}

    def set_extra_state(self, state):
        pass


class Frozen(nn.Module):
    """Holds buffers of unusual kinds that it does not use."""

    def __init__(self):
        super().__init__()
        self.network = Network()
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("complex", torch.ones(3, dtype=torch.complex64))
        self.register_buffer(
            "quantised", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        )
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("nothing", None)
        self.register_buffer("whether", torch.tensor(True))

    def forward(self, batch):
        return self.network(batch)


class Mixed(Network):
    """A first parameter in double precision that the images never meet."""

    def __init__(self):
        super().__init__()
        self.features, features = None, self.features
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self._parameters = {"unused": self.unused}
        self.features = features


MADE_OF = {
    "get_extra_state": WithState,
    "weight norm": weight_normed,
    "shared parameters": sharing,
    "unusual buffers": Frozen,
    "several precisions": Mixed,
    "TorchScript": lambda: torch.jit.script(Network().eval()),
    "frozen TorchScript": lambda: torch.jit.freeze(torch.jit.script(Network().eval())),
    "traced": lambda: torch.jit.trace(Network().eval(), torch.rand(2, 1, 8, 8)),
}


@pytest.mark.parametrize("name", MADE_OF)
@pytest.mark.filterwarnings("ignore")
def test_modules_of_unusual_parts_are_measured(name, few):
    module = MADE_OF[name]()
    module = module if "frozen" in name else module.eval()
    votes = wobbliness.measure(module, few, **SETTINGS)
    assert np.array_equal(votes.counts, slow_counts(module, few, votes.counts.shape[1]))


def test_modules_without_values_are_refused(few):
    with torch.device("meta"):
        meta = Network()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = nn.Linear(64, 3)
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    for module, reason in (
        (meta, "without values"),
        (fake, "without values"),
        (lazy, "not yet initialised"),
    ):
        with pytest.raises(
            ValueError, match=f"^expected a module with its weights, got .* {reason}"
        ):
            wobbliness.measure(module, few, **SETTINGS)


@pytest.mark.parametrize(
    "answer",
    [lambda *_: "text", lambda *_: None, lambda *_: {}, lambda *_: (1, 2), lambda h, _: h.sum()],
)
def test_answers_without_scores_are_refused_in_one_line(answer, few):
    with pytest.raises(ValueError, match="^expected ") as refused:
        wobbliness.measure(giving(answer), few, **SETTINGS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, pytest.param(torch.float64, marks=pytest.mark.scale)],
)
def test_images_as_tensors_of_any_precision(dtype, few):
    images = torch.from_numpy(few).to(dtype)
    votes = wobbliness.measure(Network().eval(), images, **SETTINGS)
    same = wobbliness.measure(
        Network().eval(), images.double().numpy(), keys=votes.keys, **SETTINGS
    )
    assert np.array_equal(votes.counts, same.counts)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_that_hold_no_pixels_are_refused_in_one_line(few):
    images = torch.from_numpy(few)
    for wrong in (
        images.to("meta"),
        torch.quantize_per_tensor(images, 0.1, 0, torch.qint8),
        images.to_sparse(),
        images + 1j,
    ):
        with pytest.raises(ValueError, match="^expected images") as refused:
            wobbliness.measure(Network().eval(), wrong, **SETTINGS)
        assert "\n" not in str(refused.value)


def test_the_module_of_an_exported_program_is_measured_as_it_is():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(64, 4))
    images = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    batch = torch.export.Dim("batch", min=1, max=2**16)
    exported = torch.export.export(
        module.eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},)
    ).module()
    right = wobbliness.measure(module, images, 0.3, draws=40)
    for classifier in (exported, torch.nn.Sequential(exported)):
        assert np.array_equal(
            wobbliness.measure(classifier, images, 0.3, draws=40).counts, right.counts
        )
