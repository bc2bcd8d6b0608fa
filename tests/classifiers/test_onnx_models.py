"""ONNX graphs of the usual forms: counts equal to a slow loop through the graph itself."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import wobbliness
from wobbliness.cli import main as cli
from wobbliness.perturbations.base import image_keys
from wobbliness.perturbations.noise.gaussian import NormalStream

SIDE, CHANNELS, NUM_CLASSES, SIGMA, DRAWS = 6, 3, 5, 0.2, 30
FLAT = CHANNELS * SIDE * SIDE
WEIGHTS = np.random.default_rng(0).normal(size=(FLAT, NUM_CLASSES)).astype(np.float32)
IMAGES = np.random.default_rng(1).uniform(size=(6, CHANNELS, SIDE, SIDE)).astype(np.float32)
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


def save_graph(path, steps, inputs, outputs, constants=(), metadata=None):
    """Saves a graph of (operator, inputs, outputs, attributes) with (name, type, shape) values."""
    nodes = [
        helper.make_node(kind, given, made, **attributes) for kind, given, made, attributes in steps
    ]
    infos = [
        [helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    graph = helper.make_graph(nodes, "graph", *infos, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def linear(
    path,
    *,
    before=(),
    after=(),
    shape=(None, CHANNELS, SIDE, SIDE),
    kind=FLOAT,
    outputs=None,
    constants=(),
    **more,
):
    """Scores `s` of flattened images; `before` leads from `x` to `pixels`, `after` from `s` on."""
    steps = [
        *(before or [("Identity", ["x"], ["pixels"], {})]),
        ("Reshape", ["pixels", "rows"], ["flat"], {}),
        ("MatMul", ["flat", "w"], ["s"], {}),
        *after,
    ]
    numbers = [("w", WEIGHTS), ("rows", np.array([-1, FLAT])), *constants]
    declared = outputs or [("s", FLOAT, [None, NUM_CLASSES])]
    return save_graph(path, steps, [("x", kind, list(shape))], declared, numbers, **more)


def noisy_copies(image, key, seed=0):
    return image + NormalStream(seed, int(key), image.shape).take(DRAWS).copy() * np.float32(SIGMA)


def slow_counts(path, label, images=IMAGES, num_classes=NUM_CLASSES):
    """Votes of one noisy copy at a time: `label(run, copy)` is a class, `run(x)` all outputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (given,) = session.get_inputs()

    def run(values):
        return dict(zip(names, session.run(None, {given.name: values}), strict=True))

    counts = np.zeros((len(images), num_classes), np.int64)
    for row, (image, key) in enumerate(zip(images, image_keys(images), strict=True)):
        for copy in noisy_copies(image, key):
            counts[row, int(label(run, copy))] += 1
    return counts


def check_votes(path, label, images=IMAGES, num_classes=NUM_CLASSES, **options):
    classifier = wobbliness.open_classifier(path, **options)
    votes = wobbliness.measure(classifier, images, SIGMA, draws=DRAWS, num_classes=num_classes)
    assert np.array_equal(votes.counts, slow_counts(path, label, images, num_classes))
    assert votes.wobbliness.max() > 0.1, "control: there is something to agree on"
    return votes


def best(scores):
    return np.asarray(scores).reshape(-1).argmax()


FORMS = {
    "scores (B, K, 1, 1)": {
        "after": [("Unsqueeze", ["s", "axes"], ["o"], {})],
        "outputs": [("o", FLOAT, [None, NUM_CLASSES, 1, 1])],
        "constants": [("axes", np.array([2, 3]))],
        "label": lambda run, copy: best(run(copy[None])["o"]),
    },
    "scores (K,) of one image at a time": {
        "after": [("Squeeze", ["s", "axes"], ["o"], {})],
        "shape": (1, CHANNELS, SIDE, SIDE),
        "outputs": [("o", FLOAT, [NUM_CLASSES])],
        "constants": [("axes", np.array([0]))],
        "label": lambda run, copy: best(run(copy[None])["o"]),
    },
    "features before logits": {
        "after": [("Identity", ["s"], ["logits"], {})],
        "outputs": [("flat", FLOAT, [None, FLAT]), ("logits", FLOAT, [None, NUM_CLASSES])],
        "label": lambda run, copy: best(run(copy[None])["logits"]),
    },
    "scores of float16": {
        "after": [("Cast", ["s"], ["o"], {"to": TensorProto.FLOAT16})],
        "outputs": [("o", TensorProto.FLOAT16, [None, NUM_CLASSES])],
        "label": lambda run, copy: best(run(copy[None])["o"]),
    },
    "scores of float64": {
        "after": [("Cast", ["s"], ["o"], {"to": TensorProto.DOUBLE})],
        "outputs": [("o", TensorProto.DOUBLE, [None, NUM_CLASSES])],
        "label": lambda run, copy: best(run(copy[None])["o"]),
    },
    "labels of int32": {
        "after": [
            ("ArgMax", ["s"], ["a"], {"axis": 1, "keepdims": 0}),
            ("Cast", ["a"], ["o"], {"to": TensorProto.INT32}),
        ],
        "outputs": [("o", TensorProto.INT32, [None])],
        "label": lambda run, copy: run(copy[None])["o"][0],
    },
    "the best one of top-k": {
        "after": [("TopK", ["s", "one"], ["values", "indices"], {})],
        "outputs": [("values", FLOAT, [None, 1]), ("indices", INT64, [None, 1])],
        "constants": [("one", np.array([1]))],
        "label": lambda run, copy: run(copy[None])["indices"][0, 0],
    },
    "an optional input": {
        "before": [("Mul", ["x", "gain"], ["pixels"], {})],
        "constants": [("gain", np.float32(2))],
        "label": lambda run, copy: best(run(copy[None])["s"]),
    },
    "flattened from channels last": {
        "before": [("Identity", ["x"], ["pixels"], {})],
        "shape": (None, FLAT),
        "options": {"layout": "nhwc"},
        "label": lambda run, copy: best(run(copy.transpose(1, 2, 0).reshape(1, -1))["s"]),
    },
    "flattened from channels first": {
        "shape": (None, FLAT),
        "label": lambda run, copy: best(run(copy.reshape(1, -1))["s"]),
    },
    "0 to 255": {
        "before": [("Div", ["x", "white"], ["pixels"], {})],
        "constants": [("white", np.float32(255))],
        "options": {"input_range": (0, 255)},
        "label": lambda run, copy: best(run(copy[None] * np.float32(255))["s"]),
    },
    "0 to 255, as its metadata say": {
        "before": [("Div", ["x", "white"], ["pixels"], {})],
        "constants": [("white", np.float32(255))],
        "metadata": {
            "Image.NominalPixelRange": "NominalRange_0_255",
            "Image.BitmapPixelFormat": "Rgb8",
        },
        "label": lambda run, copy: best(run(copy[None] * np.float32(255))["s"]),
    },
    "blue first, -1 to 1, as its metadata say": {
        "metadata": {
            "Image.NominalPixelRange": "Normalized_1_1",
            "Image.BitmapPixelFormat": "Bgr8",
        },
        "label": lambda run, copy: best(run(copy[None, ::-1] * np.float32(2) - np.float32(1))["s"]),
    },
    "mean and std of each channel": {
        "options": {"mean": "0.5, 0.4,0.3", "std": [0.2, 0.3, 0.4]},
        "label": lambda run, copy: best(
            run(normalised(copy[None], [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))["s"]
        ),
    },
    "mean and std of 0 to 255": {
        "options": {"input_range": "[0, 255]", "mean": (123, 117, 104), "std": 58},
        "label": lambda run, copy: best(
            run(normalised(copy[None] * np.float32(255), [123, 117, 104], [58]))["s"]
        ),
    },
    "8 bits, channels last": {
        "before": [
            ("Cast", ["x"], ["c"], {"to": FLOAT}),
            ("Div", ["c", "white"], ["d"], {}),
            ("Transpose", ["d"], ["pixels"], {"perm": [0, 3, 1, 2]}),
        ],
        "constants": [("white", np.float32(255))],
        "kind": UINT8,
        "shape": (None, SIDE, SIDE, CHANNELS),
        "label": lambda run, copy: best(run(to_bytes(copy).transpose(1, 2, 0)[None])["s"]),
    },
}


def normalised(images, mean, std):
    mean, std = (np.float32(values).reshape(1, -1, 1, 1) for values in (mean, std))
    return (images - mean) / std


def to_bytes(copy):
    return np.clip(np.rint(copy * np.float32(255)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("form", FORMS)
def test_votes_are_those_of_a_slow_loop(form, tmp_path):
    settings = dict(FORMS[form])
    label, options = settings.pop("label"), settings.pop("options", {})
    votes = check_votes(linear(tmp_path / "m.onnx", **settings), label, **options)
    reason = votes.execution.reason
    assert (
        ("rounded and clipped to 0 ... 255" in reason)
        if form == "8 bits, channels last"
        else reason is None
    )


def test_forms_of_other_pixels_differ_from_those_of_plain_ones(tmp_path):
    """Control of the test above: what is said of the pixels has an effect."""
    path = linear(tmp_path / "m.onnx")
    plain = wobbliness.measure(wobbliness.open_classifier(path), IMAGES, SIGMA, draws=DRAWS)
    for options in (
        {"input_range": "-1,1"},
        {"mean": 0.5},
        {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    ):
        other = wobbliness.measure(
            wobbliness.open_classifier(path, **options), IMAGES, SIGMA, draws=DRAWS
        )
        assert not np.array_equal(plain.counts, other.counts)
    same = wobbliness.measure(
        wobbliness.open_classifier(path, input_range=(0, 1)), IMAGES, SIGMA, draws=DRAWS
    )
    assert np.array_equal(plain.counts, same.counts)


def test_pictures_without_an_axis_of_channels(tmp_path):
    grey = np.random.default_rng(2).uniform(size=(6, 1, 9, 12)).astype(np.float32)
    path = linear(tmp_path / "m.onnx", shape=(None, 9, 12))
    check_votes(path, lambda run, copy: best(run(copy)["s"]), grey)
    check_votes(path, lambda run, copy: best(run(copy[None])["s"]), grey[:, 0])
    assert wobbliness.open_classifier(path).image_shape == (9, 12)
    np.save(tmp_path / "grey.npy", grey)
    assert wobbliness.read_images(tmp_path / "grey.npy", image_shape=(9, 12)).images.shape == (
        6,
        1,
        9,
        12,
    )
    with pytest.raises(ValueError, match="expected images of shape"):
        wobbliness.open_classifier(path).classify(np.repeat(grey, 3, axis=1), 6)
    with pytest.raises(ValueError, match="without an axis of channels"):
        wobbliness.open_classifier(path, layout="nhwc")


ONE_SCORE = {
    "a sigmoid": ([("Sigmoid", ["o"], ["y"], {})], "y", {}, 0.5),
    "a sigmoid, flattened": (
        [("Sigmoid", ["o"], ["p"], {}), ("Reshape", ["p", "axis"], ["logits"], {})],
        "logits",
        {},
        0.5,
    ),
    "logits by name": ([("Identity", ["o"], ["logits"], {})], "logits", {}, 0.0),
    "probabilities by name": ([("Clip", ["o", "zero", "one"], ["prob"], {})], "prob", {}, 0.5),
    "a threshold of the user's": ([("Identity", ["o"], ["y"], {})], "y", {"threshold": 0.25}, 0.25),
    "a threshold that goes before": ([("Sigmoid", ["o"], ["y"], {})], "y", {"threshold": 0.4}, 0.4),
}


def one_score(path, after, name, shape=(None, 1)):
    constants = [
        ("v", WEIGHTS[:, :1]),
        ("axis", np.array([-1])),
        ("zero", np.float32(0)),
        ("one", np.float32(1)),
    ]
    return linear(
        path,
        after=[("MatMul", ["flat", "v"], ["o"], {}), *after],
        outputs=[(name, FLOAT, list(shape))],
        constants=constants,
    )


@pytest.mark.parametrize("form", ONE_SCORE)
def test_one_score_for_two_classes(form, tmp_path):
    after, name, options, threshold = ONE_SCORE[form]
    path = one_score(
        tmp_path / "m.onnx", after, name, (None,) if "flattened" in form else (None, 1)
    )
    label = lambda run, copy: run(copy[None])[name].item() > np.float32(threshold)  # noqa: E731
    assert check_votes(path, label, num_classes=2, **options).counts.shape == (6, 2)


def test_one_score_that_does_not_tell_where_class_1_begins_is_refused(tmp_path):
    path = one_score(tmp_path / "m.onnx", [("Identity", ["o"], ["y"], {})], "y")
    with pytest.raises(
        ValueError,
        match=r"one float for each image.*--threshold: 0.5 for probabilities, 0 for logits",
    ):
        wobbliness.measure(wobbliness.open_classifier(path), IMAGES, SIGMA, draws=2)
    with pytest.raises(
        ValueError, match=r"expected an output of labels \(B,\) or scores \(B, 3\), got y"
    ):
        wobbliness.measure(
            wobbliness.open_classifier(path, threshold=0, num_classes=3), IMAGES, SIGMA, draws=2
        )
    with pytest.raises(
        ValueError,
        match="expected one score for each image with a threshold, got scores of 5 classes",
    ):
        wobbliness.measure(
            wobbliness.open_classifier(linear(path), threshold=0.5), IMAGES, SIGMA, draws=2
        )


CLASSES = {
    "-1 and 1": {"classlabels_ints": [-1, 1]},
    "words": {"classlabels_strings": ["no", "yes"]},
    "0 and 1": {"classlabels_ints": [0, 1]},
}


@pytest.mark.parametrize("classes", CLASSES)
def test_labels_of_scikit_learns_converter(classes, tmp_path):
    """As it writes a two-class logistic regression, with and without the probability map."""
    row = WEIGHTS[:, 0] * np.float32(0.5)
    settings = {
        "coefficients": [float(value) for value in (*-row, *row)],
        "intercepts": [0.1, -0.1],
        "post_transform": "LOGISTIC",
        "domain": "ai.onnx.ml",
        **CLASSES[classes],
    }
    kind = TensorProto.STRING if classes == "words" else INT64
    steps = [
        ("LinearClassifier", ["x"], ["output_label", "p"], settings),
        ("Identity", ["p"], ["probabilities"], {}),
    ]
    outputs = [("output_label", kind, [None]), ("probabilities", FLOAT, [None, 2])]
    path = save_graph(tmp_path / "m.onnx", steps, [("x", FLOAT, [None, FLAT])], outputs)
    listed = next(iter(CLASSES[classes].values()))
    check_votes(
        path,
        lambda run, copy: listed.index(run(copy.reshape(1, -1))["output_label"][0]),
        num_classes=2,
    )
    assert wobbliness.measure(
        wobbliness.open_classifier(path), IMAGES, SIGMA, draws=DRAWS
    ).counts.shape == (6, 2)


def test_classes_that_a_graph_picks_from_a_constant(tmp_path):
    """As the converter writes a multilayer perceptron."""
    after = [
        ("ArgMax", ["s"], ["a"], {"axis": 1, "keepdims": 1}),
        ("ArrayFeatureExtractor", ["names", "a"], ["e"], {"domain": "ai.onnx.ml"}),
        ("Reshape", ["e", "axis"], ["label"], {}),
    ]
    names = [-3, -1, 4, 7, 10]
    constants = [("names", np.array([names])), ("axis", np.array([-1]))]
    outputs = [("label", INT64, [None]), ("s", FLOAT, [None, NUM_CLASSES])]
    path = linear(tmp_path / "m.onnx", after=after, outputs=outputs, constants=constants)
    check_votes(path, lambda run, copy: names.index(run(copy[None])["label"][0]))


BYTES = {"kind": UINT8, "before": [("Cast", ["x"], ["pixels"], {"to": FLOAT})]}
REFUSED = {
    "the values of top-k": (
        {
            "after": [("TopK", ["s", "three"], ["values", "indices"], {})],
            "outputs": [("values", FLOAT, [None, 3]), ("indices", INT64, [None, 3])],
            "constants": [("three", np.array([3]))],
        },
        {},
        r"expected an output of labels \(B,\) or scores \(B, K\), got values.*indices",
    ),
    "two that could be meant": (
        {
            "after": [("Relu", ["s"], ["t"], {})],
            "outputs": [("t", FLOAT, [None, NUM_CLASSES]), ("s", FLOAT, [None, NUM_CLASSES])],
        },
        {},
        r"expected one output .*t: tensor\(float\) \(B, 5\), s: tensor\(float\) \(B, 5\)"
        r".*choose one by output=NAME",
    ),
    "an output that is not there": (
        {},
        {"output": "logits"},
        "expected an output of .*, one of s, got 'logits'",
    ),
    "a contradiction to metadata": (
        {"metadata": {"Image.NominalPixelRange": "NominalRange_0_255"}},
        {"input_range": (0, 1)},
        "expected input range 0,255, as the graph's metadata say, got 0,1",
    ),
    "unknown metadata": (
        {"metadata": {"Image.NominalPixelRange": "x"}},
        {},
        "expected Image.NominalPixelRange of",
    ),
    "linear light": (
        {"metadata": {"Image.ColorSpaceGamma": "Linear"}},
        {},
        "expected a graph of sRGB pictures",
    ),
    "another range of 8 bits": (BYTES, {"input_range": (-1, 1)}, "whole numbers"),
    "mean of 8 bits": (BYTES, {"mean": 0.5}, "whole numbers"),
    "whole numbers of unknown meaning": ({**BYTES, "kind": INT64}, {}, "say what 0 and 1 become"),
    "a mean for each of other channels": (
        {},
        {"mean": (0.1, 0.2)},
        "expected images of 2 channels",
    ),
    "mean and std of other channels": (
        {},
        {"mean": (0.1, 0.2, 0.3), "std": (1, 2)},
        "expected mean and std of as many channels",
    ),
    "no numbers": ({}, {"mean": "x"}, "expected mean as numbers"),
    "an empty range": ({}, {"input_range": (1, 1)}, "expected an input range LOW,HIGH"),
    "a range of three": ({}, {"input_range": "0,1,2"}, "expected an input range LOW,HIGH"),
    "a std of 0": ({}, {"std": 0}, "expected a positive std"),
    "a softmax of one score": (
        {
            "after": [
                ("ReduceMax", ["s"], ["m"], {"axes": [1]}),
                ("Softmax", ["m"], ["probability"], {}),
            ],
            "outputs": [("probability", FLOAT, [None, 1])],
        },
        {},
        "expected scores that differ, got probability: a softmax of one score",
    ),
    "another layout than the shape's": (
        {},
        {"layout": "nhwc"},
        "expected layout nchw for a shape of .*, got nhwc",
    ),
    "the values of top-k alone": (
        {
            "after": [
                ("TopK", ["s", "three"], ["v", "indices"], {}),
                ("Softmax", ["v"], ["values"], {}),
            ],
            "outputs": [("values", FLOAT, [None, 3])],
            "constants": [("three", np.array([3]))],
        },
        {},
        "expected scores of classes in their own order, got values: .* sorted by TopK",
    ),
    "scores in the order of their places": (
        {
            "after": [
                ("TopK", ["s", "all"], ["best", "places"], {}),
                ("GatherElements", ["s", "places"], ["scores"], {"axis": 1}),
            ],
            "outputs": [("scores", FLOAT, [None, NUM_CLASSES])],
            "constants": [("all", np.array([NUM_CLASSES]))],
        },
        {},
        "expected scores of classes in their own order, got scores: .* sorted by TopK",
    ),
    "a threshold that is none": ({}, {"threshold": float("nan")}, "expected a finite threshold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_be_meant_is_refused(case, tmp_path):
    settings, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refusal:
        wobbliness.open_classifier(linear(tmp_path / "m.onnx", **settings), **options)
    assert "\n" not in str(refusal.value)


def test_channels_like_a_side_of_a_picture_are_channels_where_declared(tmp_path):
    images = np.random.default_rng(0).uniform(size=(4, 12, 3, 3)).astype(np.float32)
    path = linear(tmp_path / "m.onnx", shape=(None, 12, 3, 3))
    votes = wobbliness.measure(
        wobbliness.open_classifier(path, layout="nchw"), images, SIGMA, draws=DRAWS
    )
    assert np.array_equal(votes.counts.sum(axis=1), [DRAWS] * 4)
    with pytest.raises(ValueError, match="expected pictures channels first"):
        wobbliness.measure(lambda batch: batch[:, :3, 0, 0], images, SIGMA, draws=DRAWS)


def test_a_graph_whose_sizes_are_all_free_takes_pictures(tmp_path):
    free = linear(tmp_path / "free.onnx", shape=(None, None, None, None))
    check_votes(free, lambda run, copy: best(run(copy[None])["s"]), layout="nchw")


def test_an_output_may_be_chosen(tmp_path):
    settings, *_ = REFUSED["two that could be meant"]
    path = linear(tmp_path / "m.onnx", **settings)
    for output in ("s", "1", 1):
        check_votes(path, lambda run, copy: best(run(copy[None])["s"]), output=output)


def test_axes_with_a_denotation_tell_the_layout(tmp_path):
    path = linear(tmp_path / "m.onnx", shape=(None, 4, 3, 4))
    model = onnx.load(path)
    for axis, meaning in zip(
        model.graph.input[0].type.tensor_type.shape.dim,
        ("BATCH", "FEATURE", "FEATURE", "CHANNEL"),
        strict=True,
    ):
        axis.denotation = f"DATA_{meaning}"
    onnx.save(model, path)
    assert wobbliness.open_classifier(path).image_shape == (4, 4, 3)
    with pytest.raises(
        ValueError, match="expected layout nhwc, as the graph denotes its axes, got nchw"
    ):
        wobbliness.open_classifier(path, layout="nchw")


def test_commands_take_the_options(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "images.npy", IMAGES)
    path = linear(tmp_path / "m.onnx", **REFUSED["two that could be meant"][0])
    arguments = [
        "measure",
        path,
        tmp_path / "images.npy",
        "--sigma",
        SIGMA,
        "--draws",
        DRAWS,
        "--json",
    ]
    options = ["--output", "s", "--input-range", "-1,1", "--mean", "0.1,0.2,0.3", "--std", "0.5"]
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments), *options])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    found = json.loads(capsys.readouterr().out)["measurements"][0]

    def label(run, copy):
        values = normalised(copy[None] * np.float32(2) - np.float32(1), [0.1, 0.2, 0.3], [0.5])
        return best(run(values)["s"])

    assert found["counts"] == slow_counts(path, label).tolist()
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.count("\n") == 1
    assert "--output" in said
