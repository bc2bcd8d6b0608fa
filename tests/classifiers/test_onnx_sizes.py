"""Graphs whose tensors grow too large, refused whatever they declare; real exports are accepted."""

import resource

import numpy as np
import onnx
import pytest
import torch
from malicious_files import refuse
from model_files import save_onnx, save_vit
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import SIDE, branch, constant, declared, graph_of, node, save

import wobbliness

LAST = helper.make_node("Flatten", ["x"], ["y"])


def numbers(name, *values):
    return constant(name, np.array(values))


def number(name, value):
    return constant(name, np.array(value))


ONE = constant("one", np.ones((1, 1), np.float32))
HUGE = numbers("huge", 2**15, 2**15)
TWO_LONG = [
    node("ConstantOfShape", ["length"], ["long"]),
    node("Unsqueeze", ["long", "axis"], ["column"]),
]
LENGTHS = [numbers("length", 2**19), numbers("axis", 1)]


def loop(body, count=40):
    return [node("Loop", ["count", "", "x"], body=body)], [number("count", count)]


GROWING_BODY = branch(
    [node("Concat", ["state", "state"], ["more"], axis=0), node("Identity", ["go"], ["goes"])],
    "more",
    inputs=[
        declared("i", [], TensorProto.INT64),
        declared("go", [], TensorProto.BOOL),
        declared("state", [1, 1, SIDE, SIDE]),
    ],
)
GROWING_BODY.output.insert(0, declared("goes", [], TensorProto.BOOL))
TEXT = helper.make_tensor("text", TensorProto.STRING, [1], [b"a" * 10_000])

BOMBS = {
    "Concat of rows": (
        [
            node("Concat", ["row"] * 400, ["rows"], axis=0),
            node("Concat", ["rows"] * 400, axis=0),
        ],
        [constant("row", np.ones(20_000, np.float32))],
    ),
    "Concat of small rows": (
        [
            node("Concat", ["row"] * 400, ["rows"], axis=0),
            node("Concat", ["rows"] * 400, ["more"], axis=0),
            node("Concat", ["more"] * 400, axis=0),
        ],
        [constant("row", np.ones(1_000, np.int64))],
    ),
    "Range of ONNX Runtime": (
        [node("Range", ["a", "b"], domain="com.microsoft")],
        [number("a", 0), number("b", 2**33)],
    ),
    "CropAndResize": (
        [node("CropAndResize", ["x", "rois", "which", "size"], domain="com.microsoft")],
        [
            constant("rois", np.ones((1, 4), np.float32)),
            helper.make_tensor("which", TensorProto.INT32, [1], [0]),
            helper.make_tensor("size", TensorProto.INT32, [2], [2**15, 2**15]),
        ],
    ),
    "HannWindow": ([node("HannWindow", ["n"])], [number("n", 2**33)]),
    "HammingWindow": ([node("HammingWindow", ["n"])], [number("n", 2**33)]),
    "BlackmanWindow": ([node("BlackmanWindow", ["n"])], [number("n", 2**33)]),
    "window of a computed size": (
        [
            node("ReduceMax", ["x"], ["top"], keepdims=0),
            node("Cast", ["top"], ["n"], to=7),
            node("HannWindow", ["n"]),
        ],
        [],
    ),
    "MelWeightMatrix": (
        [node("MelWeightMatrix", ["mel", "length", "rate", "low", "high"])],
        [
            *(
                number(name, value)
                for name, value in (("mel", 2**20), ("length", 2**20), ("rate", 8192))
            ),
            *(constant(name, np.float32(value)) for name, value in (("low", 0), ("high", 4096))),
        ],
    ),
    "DFT": (
        [node("DFT", ["signal", "n"], axis=1)],
        [constant("signal", np.ones((1, 4, 1), np.float32)), number("n", 2**33)],
    ),
    "DFT of a computed length": (
        [
            node("ReduceMax", ["x"], ["top"], keepdims=0),
            node("Cast", ["top"], ["n"], to=7),
            node("DFT", ["signal", "n"], axis=1),
        ],
        [constant("signal", np.ones((1, 4, 1), np.float32))],
    ),
    "STFT": (
        [node("STFT", ["signal", "step", "", "n"])],
        [
            constant("signal", np.ones((1, 2**10, 1), np.float32)),
            number("step", 1),
            number("n", 2**33),
        ],
    ),
    "AffineGrid": (
        [node("AffineGrid", ["theta", "size"])],
        [constant("theta", np.ones((1, 2, 3), np.float32)), numbers("size", 1, 1, 2**15, 2**15)],
        {"opset": 20},
    ),
    "AffineGrid of a computed size": (
        [
            node("NonZero", ["x"], ["places"]),
            node("Shape", ["places"], ["rank"]),
            node("Concat", ["rank", "rank"], ["size"], axis=0),
            node("AffineGrid", ["theta", "size"]),
        ],
        [constant("theta", np.ones((1, 2, 3), np.float32))],
        {"opset": 20},
    ),
    "GridSample": (
        [
            node("ConstantOfShape", ["size"], ["grid"]),
            node("Tile", ["x", "times"], ["wide"]),
            node("GridSample", ["wide", "grid"]),
        ],
        [numbers("size", 1, 2**10, 2**10, 2), numbers("times", 1, 2**10, 1, 1)],
    ),
    "outer sum": ([*TWO_LONG, node("Add", ["long", "column"])], LENGTHS),
    "outer comparison": (
        [*TWO_LONG, node("Less", ["long", "column"], ["many"]), node("Not", ["many"])],
        LENGTHS,
    ),
    "outer product of matrices": (
        [
            *TWO_LONG,
            node("Transpose", ["column"], ["row"], perm=[1, 0]),
            node("MatMul", ["column", "row"]),
        ],
        LENGTHS,
    ),
    "product that is summed in one step": (
        [
            node("ConstantOfShape", ["length"], ["long"]),
            node("Einsum", ["long"] * 4, equation="i,j,i,j->"),
        ],
        [numbers("length", 2**16)],
    ),
    "gathered over and over": (
        [
            node(
                "ConstantOfShape",
                ["size"],
                ["indices"],
                value=helper.make_tensor("v", TensorProto.INT64, [1], [0]),
            ),
            node("ConstantOfShape", ["length"], ["rows"]),
            node("Gather", ["rows", "indices"], axis=0),
        ],
        [numbers("size", 2**20), numbers("length", 2, 2**19)],
    ),
    "transposed convolution": (
        [node("ConvTranspose", ["x", "w"], strides=[2**14, 2**14])],
        [constant("w", np.ones((1, 1, 1, 1), np.float32))],
    ),
    "padding of a transposed convolution": (
        [node("ConvTranspose", ["x", "w"], output_shape=[2**15, 2**15])],
        [constant("w", np.ones((1, 1, 1, 1), np.float32))],
    ),
    "unpooling": (
        [
            node("MaxPool", ["x"], ["top", "places"], kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxUnpool", ["top", "places", "size"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        [numbers("size", 1, 1, 2**15, 2**15)],
    ),
    "padded pooling": (
        [node("MaxPool", ["x"], kernel_shape=[2**17, 2**17], pads=[2**17 - 1] * 4)],
        [],
    ),
    "OneHot": (
        [node("OneHot", ["indices", "depth", "values"])],
        [
            numbers("indices", 0),
            number("depth", 2**33),
            constant("values", np.array([0, 1], np.float32)),
        ],
    ),
    "RoiAlign": (
        [node("RoiAlign", ["x", "rois", "which"], output_height=2**15, output_width=2**15)],
        [constant("rois", np.ones((1, 4), np.float32)), numbers("which", 0)],
    ),
    "MaxRoiPool": (
        [node("MaxRoiPool", ["x", "rois"], pooled_shape=[2**15, 2**15])],
        [constant("rois", np.ones((1, 5), np.float32))],
    ),
    "TfIdfVectorizer": (
        [
            node(
                "TfIdfVectorizer",
                ["words"],
                mode="TF",
                min_gram_length=1,
                max_gram_length=1,
                max_skip_count=0,
                ngram_counts=[0],
                ngram_indexes=[2**33],
                pool_int64s=[1],
            ),
        ],
        [numbers("words", 1, 2)],
    ),
    "FeatureVectorizer": (
        [
            node("Flatten", ["x"], ["flat"]),
            node("FeatureVectorizer", ["flat"], inputdimensions=[2**33], domain="ai.onnx.ml"),
        ],
        [],
    ),
    "trees": (
        [
            node("Flatten", ["x"], ["flat"]),
            node(
                "TreeEnsembleRegressor",
                ["flat"],
                domain="ai.onnx.ml",
                n_targets=2**33,
                nodes_modes=["LEAF"],
                nodes_treeids=[0],
                nodes_nodeids=[0],
                nodes_featureids=[0],
                nodes_values=[0.0],
                nodes_truenodeids=[0],
                nodes_falsenodeids=[0],
                target_ids=[0],
                target_nodeids=[0],
                target_treeids=[0],
                target_weights=[1.0],
            ),
        ],
        [],
    ),
    "CastMap": (
        [node("CastMap", ["x"], map_form="SPARSE", max_map=2**33, domain="ai.onnx.ml")],
        [],
    ),
    "sequence of copies": (
        [
            node("ConstantOfShape", ["length"], ["long"]),
            node("SequenceConstruct", ["long"] * 2**10, ["many"]),
            node("ConcatFromSequence", ["many"], axis=0),
        ],
        [numbers("length", 2**20)],
    ),
    "doubling sequence": (
        [node("SequenceConstruct", ["x"], ["s0"])]
        + [
            part
            for i in range(30)
            for part in (
                node("ConcatFromSequence", [f"s{i}"], [f"t{i}"], axis=0),
                node("SequenceConstruct", [f"t{i}", f"t{i}"], [f"s{i + 1}"]),
            )
        ]
        + [node("ConcatFromSequence", ["s30"], axis=0)],
        [],
    ),
    "doubling indices of what is not zero": (
        [
            node("NonZero", ["x"], ["z0"]),
            *(
                part
                for i in range(40)
                for part in (
                    node("Cast", [f"z{i}"], [f"f{i}"], to=1),
                    node("NonZero", [f"f{i}"], [f"z{i + 1}"]),
                )
            ),
        ],
        [],
    ),
    "doubling text": (
        [
            node("Identity", ["text"], ["t0"]),
            *(node("StringConcat", [f"t{i}", f"t{i}"], [f"t{i + 1}"]) for i in range(40)),
        ],
        [TEXT],
        {"opset": 20},
    ),
    "copies of a text": ([node("Expand", ["text", "size"])], [TEXT, numbers("size", 2**20)]),
    "growing loop": loop(GROWING_BODY),
    "loop without an end": loop(GROWING_BODY, 2**62),
    "scan of a large body": (
        [
            node(
                "Scan",
                ["rows"],
                num_scan_inputs=1,
                body=branch(
                    [node("Expand", ["row", "length"], ["made"])],
                    "made",
                    inputs=[declared("row", [1])],
                    shape=[1],
                ),
            )
        ],
        [numbers("length", 2**20), constant("rows", np.ones((1024, 1), np.float32))],
    ),
    "a large branch": (
        [
            node(
                "If",
                ["yes"],
                then_branch=branch(
                    [node("ConstantOfShape", ["huge"], ["made"])], "made", claims=[], shape=[1]
                ),
                else_branch=branch([node("Identity", ["one"], ["made"])], "made", shape=[1]),
            )
        ],
        [HUGE, ONE, helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    ),
    "all of them held": (
        [node("Tile", ["x", "times"], ["t"])]
        + [node("Add", ["t", f"n{i}"], [f"a{i}"]) for i in range(20)]
        + [node("Sum", [f"a{i}" for i in range(20)])],
        [numbers("times", 1, 2**18, 1, 1), *(constant(f"n{i}", np.float32(i)) for i in range(20))],
    ),
    "scores of attention": (
        [node("ConstantOfShape", ["size"], ["q"]), node("Attention", ["q", "q", "q"])],
        [numbers("size", 1, 1, 2**17, 1)],
        {"opset": 23},
    ),
    "columns of a convolution": (
        [
            node("ConstantOfShape", ["size"], ["w"]),
            node("ConvTranspose", ["x", "w"], pads=[2047] * 4, strides=[64, 64]),
        ],
        [numbers("size", 1, 1, 2**12, 2**12)],
        {"shape": (1, 1, 64, 64)},
    ),
    "unknown operator of ONNX Runtime": (
        [node("UnfoldTensor", ["x"], size=2, domain="com.microsoft")],
        [],
    ),
    "a size that leaps with the batch": (
        [
            node("Shape", ["x"], ["sizes"]),
            node("Gather", ["sizes", "first"], ["batch"]),
            node("Div", ["batch", "many"], ["leap"]),
            node("Mul", ["leap", "size"], ["length"]),
            node("ConstantOfShape", ["length"]),
        ],
        [numbers("first", 0), numbers("many", 100), numbers("size", 2**33)],
    ),
    "images without an end": ([], [], {"shape": (1, 1, 2**20, 2**20)}),
    "a batch without an end": ([], [], {"shape": (2**40, 1, SIDE, SIDE)}),
}


def declaring(model):
    """The same graph that declares all it makes, also inside, as of one value."""
    for graph in [
        model.graph,
        *(part.g for each in model.graph.node for part in each.attribute if part.HasField("g")),
    ]:
        made = {name for each in graph.node for name in each.output} - {
            value.name for value in graph.output
        }
        kinds = {"many": TensorProto.BOOL}
        graph.value_info.extend(
            declared(name, [1], kinds.get(name, TensorProto.FLOAT))
            for name in sorted(made)
            if name in BIG
        )
    return model


BIG = {"big", "made", "long", "column", "grid", "wide", "row", "a0", "t", "q"}


@pytest.mark.parametrize("is_declared", [False, True], ids=["as it is", "declared as small"])
@pytest.mark.parametrize("name", BOMBS)
def test_graphs_that_make_too_much_are_refused(name, is_declared, tmp_path):
    nodes, tensors, *options = BOMBS[name]
    model = graph_of([*nodes, LAST], tensors, **dict(*options))
    path = tmp_path / "m.onnx"
    path.write_bytes((declaring(model) if is_declared else model).SerializeToString())
    refuse(
        path,
        "^expected (steps (of|that hold) at most|a graph that makes at most|"
        "sizes that the graph tells)",
    )


def test_what_an_input_declares_of_a_tensor_is_not_believed(tmp_path):
    """A tensor that is listed as an input, too, with another size; and claims inside a function."""
    nodes = [node("MatMul", ["column", "row"]), LAST]
    tensors = [
        constant("column", np.ones((2**16, 1), np.float32)),
        constant("row", np.ones((1, 2**16), np.float32)),
    ]
    model = graph_of(nodes, tensors)
    model.graph.input.extend([declared("column"), declared("row")])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(path, "^expected steps of at most")
    body = [
        node("ConstantOfShape", ["length"], ["made"]),
        node("ReduceMax", ["made"], ["top"], keepdims=0),
    ]
    function = helper.make_function(
        "own", "Top", ["length"], ["top"], body, [helper.make_opsetid("", 17)]
    )
    function.value_info.extend([declared("made")])
    call = [node("Top", ["length"], ["top"], domain="own"), LAST]
    options = {"functions": [function], "domains": ["own"], "claims": [declared("made")]}
    refuse(save(path, call, [numbers("length", 2**33)], **options), "^expected steps of at most")
    wobbliness.open_classifier(save(path, call, [numbers("length", 2**10)], **options))


def test_functions_may_not_hide_behind_known_names_or_be_written_out_without_end(tmp_path):
    path, opsets = tmp_path / "m.onnx", [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    harmless = helper.make_function(
        "", "Expand", ["x", "s"], ["y"], [node("Identity", ["x"], ["y"])], opsets
    )
    tensors = [numbers("one", 1), numbers("huge", 2**33)]
    refuse(
        save(path, [node("Expand", ["one", "huge"]), LAST], tensors, functions=[harmless]),
        "domains of their own",
    )
    heavy = node("Constant", [], ["c"], value=constant("c", np.zeros(2**18, np.float32)))
    heavy = helper.make_function(
        "own", "Heavy", ["x"], ["y"], [heavy, node("Identity", ["x"], ["y"])], opsets
    )
    calls = [node("Heavy", ["x"], [f"h{i}"], domain="own") for i in range(400)]
    refuse(
        save(path, [*calls, LAST], functions=[heavy], domains=["own"]), "when they are written out"
    )
    wobbliness.open_classifier(save(path, [*calls[:3], LAST], functions=[heavy], domains=["own"]))
    light = helper.make_function(
        "own", "Twice", ["x"], ["y"], [node("Identity", ["x"], ["y"])], opsets
    )
    body = [
        node("Twice", [f"t{i}"], [f"t{i + 1}"], domain="own", overload="more") for i in range(2000)
    ]
    twice = helper.make_function("own", "Twice", ["t0"], ["t2000"], body, opsets, overload="most")
    more = [node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(2000)]
    more = helper.make_function("own", "Twice", ["t0"], ["t2000"], more, opsets, overload="more")
    call = node("Twice", ["x"], ["twice"], domain="own", overload="most")
    refuse(
        save(path, [call, LAST], functions=[twice, more, light], domains=["own"]),
        "when its functions are written out",
    )
    refuse(save(path, [node("Relu", ["x"], ["n" * 10_000]), LAST]), "names of at most")


def test_sparse_tensors_are_refused(tmp_path):
    values, indices = constant("s", np.ones(1, np.float32)), numbers("i", 0)
    model = graph_of([LAST])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(path, "dense tensors")


MODEST = {
    "claims that are true": (
        [node("Relu", ["x"]), LAST],
        [],
        {"claims": [declared("big", [None, 1, SIDE, SIDE])]},
    ),
    "window and frames": (
        [
            node("Flatten", ["x"], ["flat"]),
            node("HannWindow", ["n"], ["window"]),
            node("STFT", ["flat", "step", "window"], ["frames"]),
            node("Flatten", ["frames"], ["y"]),
        ],
        [number("n", 16), number("step", 16)],
    ),
    "grid": (
        [
            node("AffineGrid", ["theta", "size"], ["grid"]),
            node("GridSample", ["x", "grid"], ["moved"]),
            node("Flatten", ["moved"], ["y"]),
        ],
        [constant("theta", np.float32([[[1, 0, 0], [0, 1, 0]]])), numbers("size", 1, 1, 8, 8)],
        {"opset": 20, "shape": (1, 1, 8, 8)},
    ),
    "sequence": (
        [
            node("SplitToSequence", ["x"], ["parts"], axis=2),
            node("SequenceAt", ["parts", "first"], ["part"]),
            node("Flatten", ["part"], ["y"]),
        ],
        [number("first", 0)],
    ),
    "branches": (
        [
            node(
                "If",
                ["yes"],
                ["z"],
                then_branch=branch([node("Relu", ["x"], ["a"])], "a"),
                else_branch=branch([node("Neg", ["x"], ["b"])], "b"),
            ),
            node("Flatten", ["z"], ["y"]),
        ],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    ),
    "scan": (
        [
            node("Flatten", ["x"], ["flat"]),
            node(
                "Scan",
                ["flat"],
                ["rows"],
                num_scan_inputs=1,
                body=branch([node("Relu", ["row"], ["r"])], "r", inputs=[declared("row", [64])]),
            ),
            node("Identity", ["rows"], ["y"]),
        ],
        [],
    ),
    "what is not zero": (
        [node("NonZero", ["x"], ["where"]), node("GatherND", ["x", "places"], ["found"]), LAST],
        [numbers("places", 0)],
    ),
    "operators of ONNX Runtime": (
        [
            node(
                "FusedConv",
                ["x", "w"],
                ["c"],
                activation="Relu",
                kernel_shape=[3, 3],
                domain="com.microsoft",
            ),
            node("Gelu", ["c"], ["g"], domain="com.microsoft"),
            node("Flatten", ["g"], ["flat"]),
            node("FusedMatMul", ["flat", "v"], ["y"], transB=1, domain="com.microsoft"),
        ],
        [
            constant("w", np.ones((2, 1, 3, 3), np.float32)),
            constant("v", np.ones((5, 72), np.float32)),
        ],
    ),
    "a classical model": (
        [
            node("Flatten", ["x"], ["flat"]),
            node("Scaler", ["flat"], ["scaled"], offset=[0.5], scale=[2.0], domain="ai.onnx.ml"),
            node(
                "SVMClassifier",
                ["scaled"],
                ["label", "scores"],
                domain="ai.onnx.ml",
                kernel_type="LINEAR",
                classlabels_ints=[0, 1, 2],
                coefficients=[0.01] * 192,
                rho=[0.0, 0.0, 0.0],
                kernel_params=[0.0, 0.0, 0.0],
            ),
            node("Normalizer", ["scores"], ["y"], norm="L1", domain="ai.onnx.ml"),
        ],
        [],
    ),
    "upsampled and back": (
        [
            node("ConvTranspose", ["x", "w"], ["up"], strides=[2, 2]),
            node("Resize", ["up", "", "scales"], ["more"]),
            node("GlobalAveragePool", ["more"], ["mean"]),
            node("Concat", ["mean", "mean"], ["two"], axis=1),
            node("Flatten", ["two"], ["y"]),
        ],
        [
            constant("w", np.ones((1, 3, 3, 3), np.float32)),
            constant("scales", np.float32([1, 1, 2, 2])),
        ],
    ),
}


@pytest.mark.parametrize("name", MODEST)
def test_modest_graphs_are_let_through(name, tmp_path):
    """Control of the bombs: the same operators, used as models use them, give labels."""
    nodes, tensors, *options = MODEST[name]
    classifier = wobbliness.open_classifier(
        save(tmp_path / "m.onnx", nodes, tensors, **dict(*options))
    )
    images = np.random.default_rng(0).uniform(size=(3, 1, SIDE, SIDE)).astype(np.float32)
    assert classifier.classify(images, 3).shape == (3,)


def test_blocks_of_large_steps_are_cut(tmp_path):
    """2 ** 26 values each: a block of 20 would take 10 GB."""
    nodes = [
        node("Tile", ["x", "times"]),
        node("ReduceMax", ["big"], ["most"], axes=[1]),
        node("Flatten", ["most"], ["y"]),
    ]
    classifier = wobbliness.open_classifier(
        save(tmp_path / "m.onnx", nodes, [numbers("times", 1, 2**20, 1, 1)])
    )
    images = np.random.default_rng(0).uniform(size=(20, 1, SIDE, SIDE)).astype(np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(classifier.classify(images, 20), images.reshape(20, 64).argmax(axis=1))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 4 * 2**30


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 3, 1, 1)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, images):
        features = torch.relu(self.norm(self.first(images)))
        return torch.relu(features + self.second(features))


class Decoder(torch.nn.Module):
    """Upsampling by transposed convolution and interpolation, to computed and given sizes."""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)

    def forward(self, features):
        larger = self.up(features)
        larger = torch.nn.functional.interpolate(larger, scale_factor=2, mode="bilinear")
        larger = torch.nn.functional.interpolate(
            larger, size=(larger.shape[2] + 3, larger.shape[3])
        )
        return torch.nn.functional.pad(larger, (1, 2, 0, 1))


class Attentive(torch.nn.Module):
    """An expanded token, attention, an outer product of features, exchanged chunks."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = (
            torch.nn.Conv2d(3, 16, 8, 8),
            torch.nn.Parameter(torch.zeros(1, 1, 16)),
        )
        self.attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        one, two = tokens.chunk(2, dim=-1)
        return torch.einsum("bsd,bse->bde", one, torch.cat([two, one], dim=-1)).flatten(1)[:, :5]


EXPORTS = {
    "residual": lambda: [
        Residual(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Dropout(),
        torch.nn.Linear(8, 5),
    ],
    "decoder": lambda: [
        Residual(),
        Decoder(),
        torch.nn.AdaptiveMaxPool2d((1, 1)),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
    ],
    "attentive": lambda: [Attentive()],
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_torch_are_let_through(name, tmp_path):
    torch.manual_seed(0)
    module, images = torch.nn.Sequential(*EXPORTS[name]()).eval(), torch.rand(4, 3, 32, 32)
    classifier = wobbliness.open_classifier(save_onnx(module, tmp_path / "m.onnx", images))
    assert np.array_equal(
        classifier.classify(images.numpy(), 4), module(images).argmax(dim=1).numpy()
    )


def test_a_transformer_is_let_through(tmp_path):
    module = wobbliness.open_classifier(save_vit(tmp_path / "vit")).module.eval()
    images = torch.rand(2, 3, 16, 16)
    wobbliness.open_classifier(save_onnx(module, tmp_path / "m.onnx", images))


def reshaped(path, *, size_threshold):
    """A graph whose first step takes its shape from a constant, with data in another file."""
    weights = constant("weights", np.ones((2, 1, 3, 3), np.float32))
    steps = [
        node("Reshape", ["x", "shape"], ["image"]),
        node("Conv", ["image", "weights"], ["features"]),
        node("GlobalMaxPool", ["features"], ["y"]),
    ]
    model = graph_of(steps, [numbers("shape", -1, 1, SIDE, SIDE), weights])
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(
        model, path, save_as_external_data=True, location="data", size_threshold=size_threshold
    )
    return path


def test_shapes_in_another_file_are_said(tmp_path):
    with pytest.raises(ValueError, match="external file, as 'shape' does: save small tensors in"):
        wobbliness.open_classifier(reshaped(tmp_path / "m.onnx", size_threshold=0))
    (tmp_path / "data").unlink()
    small = wobbliness.open_classifier(reshaped(tmp_path / "n.onnx", size_threshold=100))
    votes = wobbliness.measure(small, np.full((2, 1, SIDE, SIDE), 0.5, np.float32), 0.1, draws=3)
    assert votes.counts.shape == (2, 2)


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml", "com.microsoft"])
def test_an_unknown_operator_is_called_unknown(tmp_path, domain):
    path = save(tmp_path / "m.onnx", [node("Foo", ["x"], ["y"], domain=domain)])
    with pytest.raises(ValueError, match="expected operators of ONNX, got .*Foo, which is unknown"):
        wobbliness.open_classifier(path)
    # what only ONNX Runtime knows is known, too
    known = [node("Unique", ["x"], ["y", "places", "times"], domain="com.microsoft")]
    with pytest.raises(ValueError, match="got com.microsoft::Unique of unknown size; export with"):
        wobbliness.open_classifier(save(path, known))
    known = [
        node("NonZero", ["x"], ["a"]),
        node("ReduceSum", ["a"], ["b"], keepdims=0),
        node("Reshape", ["b", "minus"], ["size"]),
        node("ConstantOfShape", ["size"], ["y"]),
    ]
    said = "got ConstantOfShape of unknown size; export with fixed sizes"
    with pytest.raises(ValueError, match=said):
        wobbliness.open_classifier(save(path, known, [numbers("minus", -1)]))
