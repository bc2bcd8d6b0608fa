"""Random models, detected from the graph alone; those that only could be random are accepted."""

import warnings

import numpy as np
import pytest
import torch
from malicious_files import refuse
from onnx import TensorProto, helper
from onnx_graphs import branch, constant, graph_of, node, save

import wobbliness
from wobbliness.classifiers.untrusted.onnx_randomness import check_randomness

SIDE = 8
LAST = node("Flatten", ["z"], ["y"])


def flag(name, value):
    return helper.make_tensor(name, TensorProto.BOOL, [], [value])


def dropout(flag_name, ratio="half"):
    return node("Dropout", ["x", ratio, flag_name], ["z"])


HALF, NONE = constant("half", np.float32(0.5)), constant("none", np.float32(0))
NUMBERS = [constant(name, np.ones(1, np.float32)) for name in ("scale", "bias", "mean", "var")]
WITHIN = branch([dropout("yes")], "z")

RANDOM = {
    "Dropout": ([dropout("yes")], [HALF, flag("yes", True)]),
    "Dropout of a computed mode": (
        [
            node("Constant", [], ["no"], value=flag("v", False)),
            node("Not", ["no"], ["yes"]),
            dropout("yes"),
        ],
        [HALF],
    ),
    "Dropout of a mode that the batch decides": (
        [
            node("Shape", ["x"], ["sizes"]),
            node("Gather", ["sizes", "first"], ["batch"]),
            node("Greater", ["batch", "one"], ["yes"]),
            dropout("yes"),
        ],
        [HALF, constant("first", np.array(0)), constant("one", np.array(1))],
    ),
    "Dropout in a branch": (
        [
            node(
                "If",
                ["yes"],
                ["z"],
                then_branch=WITHIN,
                else_branch=branch([node("Identity", ["x"], ["z"])], "z"),
            )
        ],
        [HALF, flag("yes", True)],
    ),
    "RandomNormalLike": (
        [node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["z"])],
        [],
    ),
    "RandomUniformLike": (
        [node("RandomUniformLike", ["x"], ["r"]), node("Add", ["x", "r"], ["z"])],
        [],
    ),
    "RandomNormal": (
        [node("RandomNormal", [], ["r"], shape=[1]), node("Add", ["x", "r"], ["z"])],
        [],
    ),
    "RandomUniform": (
        [node("RandomUniform", [], ["r"], shape=[1], seed=1.0), node("Add", ["x", "r"], ["z"])],
        [],
    ),
    "Bernoulli": ([node("Bernoulli", ["x"], ["z"])], []),
    "Multinomial": (
        [
            node("Flatten", ["x"], ["f"]),
            node("Multinomial", ["f"], ["m"], sample_size=3),
            node("Cast", ["m"], ["z"], to=1),
        ],
        [],
    ),
    "com.microsoft::BitmaskDropout": (
        [node("BitmaskDropout", ["x", "half", "yes"], ["z"], domain="com.microsoft")],
        [HALF, flag("yes", True)],
    ),
    "BatchNormalization": (
        [
            node(
                "BatchNormalization",
                ["x", "scale", "bias", "mean", "var"],
                ["z", "m", "v"],
                training_mode=1,
            )
        ],
        NUMBERS,
    ),
}

STEADY = {
    "Dropout without a mode": ([node("Dropout", ["x"], ["z"])], []),
    "Dropout that is off": ([dropout("no")], [HALF, flag("no", False)]),
    "Dropout of nothing": ([dropout("yes", "none")], [NONE, flag("yes", True)]),
    "BatchNormalization": (
        [node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["z"])],
        NUMBERS,
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_graph_that_answers_by_chance_or_by_the_block_is_refused(name, tmp_path):
    nodes, tensors = RANDOM[name]
    operator = name.split(" ")[0]
    refuse(
        save(tmp_path / "m.onnx", [*nodes, LAST], tensors),
        f"^expected a graph that answers alike .*, got {operator}.*, in ",
    )


def test_a_random_operator_in_a_function_is_refused(tmp_path):
    body = [node("Dropout", ["x", "ratio", "mode"], ["y"])]
    function = helper.make_function(
        "own", "Drop", ["x", "ratio", "mode"], ["y"], body, [helper.make_opsetid("", 17)]
    )
    call = [node("Drop", ["x", "half", "mode"], ["z"], domain="own"), LAST]
    options = {"functions": [function], "domains": ["own"]}
    refuse(
        save(tmp_path / "m.onnx", call, [HALF, flag("mode", True)], **options),
        "Dropout in training mode",
    )
    wobbliness.open_classifier(
        save(tmp_path / "m.onnx", call, [HALF, flag("mode", False)], **options)
    )


@pytest.mark.parametrize("name", STEADY)
def test_a_graph_that_does_not_is_let_through(name, tmp_path):
    nodes, tensors = STEADY[name]
    classifier = wobbliness.open_classifier(save(tmp_path / "m.onnx", [*nodes, LAST], tensors))
    images = np.random.default_rng(0).uniform(size=(20, 1, SIDE, SIDE)).astype(np.float32)
    assert np.array_equal(classifier.classify(images, 20), images.reshape(20, 64).argmax(axis=1))


def test_a_mode_that_is_computed_is_worked_out():
    for value in (True, False):
        nodes = [node("And", ["yes", "other"], ["mode"]), dropout("mode")]
        model = graph_of(nodes, [HALF, flag("yes", True), flag("other", value)])
        if not value:
            check_randomness(model)
            continue
        with pytest.raises(ValueError, match="Dropout in training mode"):
            check_randomness(model)


QUANTISED = [
    node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
    node("DequantizeLinear", ["q", "scale", "zero"], ["z"]),
    LAST,
]


def test_a_graph_that_quantises_by_the_block_is_run_an_image_at_a_time(tmp_path):
    """One bright image would coarsen the others' levels."""
    images = np.random.default_rng(0).uniform(size=(20, 1, SIDE, SIDE)).astype(
        np.float32
    ) * np.float32(1e-3)
    images[7] = 1 - 500 * images[7]
    classifier = wobbliness.open_classifier(save(tmp_path / "m.onnx", QUANTISED))
    alone = [classifier.classify(image[None], 1)[0] for image in images]
    assert np.array_equal(classifier.classify(images, 20), alone)
    assert len(set(alone)) > 5, "control: there is something to tell"
    with classifier.session(images) as execution:
        assert execution.block_size == 1
    fixed = {"shape": (4, 1, SIDE, SIDE)}
    refuse(
        save(tmp_path / "m.onnx", QUANTISED, **fixed),
        "alike in any company, got DynamicQuantizeLinear for 4 images",
    )


class Acting(torch.nn.Module):
    """Three scores, once something was done to the images."""

    def __init__(self, act):
        super().__init__()
        self.act, self.scores = act, torch.nn.Linear(SIDE**2, 3)

    def forward(self, images):
        return self.scores(self.act(images).flatten(1))


def program(act, path):
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            Acting(act).eval(), (torch.rand(2, 1, SIDE, SIDE),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(exported, path)
    return path


functional = torch.nn.functional
BAD_PROGRAMS = {
    "rand_like": lambda x: x + torch.rand_like(x),
    "randperm": lambda x: x[:, :, torch.randperm(SIDE)],
    "bernoulli": torch.bernoulli,
    "scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(
        x, x, x, dropout_p=0.5
    ),
    "dropout": lambda x: functional.dropout(x, 0.5, training=True),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True),
}
GOOD_PROGRAMS = {
    "dropout that is off": lambda x: functional.dropout(x, 0.5, training=False),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_a_program_that_answers_by_chance_or_by_the_block_is_refused(name, tmp_path):
    path = program(BAD_PROGRAMS[name], tmp_path / "m.pt2")
    refuse(
        path,
        r"^expected a program (that answers alike|exported in evaluation mode)"
        rf".*, got aten\.{name}\b",
    )


@pytest.mark.parametrize("name", GOOD_PROGRAMS)
def test_a_program_that_does_not_is_let_through(name, tmp_path):
    classifier = wobbliness.open_classifier(program(GOOD_PROGRAMS[name], tmp_path / "m.pt2"))
    assert classifier.classify(np.zeros((3, 1, SIDE, SIDE), np.float32), 3).shape == (3,)


LARGE_PROGRAMS = {
    "a constant": lambda x: x + torch.full((2**15, 2**15), 1.0).sum(),
    "numbers in a row": lambda x: x + torch.arange(2**33).sum(),
    "copies": lambda x: x + x.repeat(1, 1, 2**13, 2**13).sum(),
    "a size that leaps with the batch": lambda x: (
        x + torch.ones(((x.shape[0] + 20) // 120) * 2**28 + x.shape[0]).sum()
    ),
    "a product on the way": lambda x: x + torch.einsum("i,j,i,j->", *[torch.ones(2**16)] * 4),
    "scores of attention": lambda x: (
        x + functional.scaled_dot_product_attention(*[torch.ones(1, 1, 2**17, 1)] * 3).sum()
    ),
    "many that are held": lambda x: x + sum([torch.ones(2**26) + i for i in range(20)][::-1]).sum(),
}


@pytest.mark.parametrize("name", LARGE_PROGRAMS)
def test_a_program_that_makes_too_much_is_refused(name, tmp_path):
    refuse(
        program(LARGE_PROGRAMS[name], tmp_path / "m.pt2"), "^expected steps (of|that hold) at most"
    )


def test_a_program_of_large_steps_is_run_in_pieces(tmp_path):
    """Images give the same one at a time: a block of 250 with 2 ** 25 values each takes 32 GB."""
    path = program(
        lambda x: x + x.repeat(1, 1, 2**9, 2**10)[:, :, :SIDE, :SIDE] * 0, tmp_path / "m.pt2"
    )
    classifier = wobbliness.open_classifier(path)
    images = torch.rand(20, 1, SIDE, SIDE)
    sizes = []
    classifier.module._program.register_forward_pre_hook(
        lambda _, given: sizes.append(len(given[0]))
    )
    scores = classifier.module(images)
    assert max(sizes) * 2**25 <= 2**28
    assert len(scores) == sum(sizes) == 20
