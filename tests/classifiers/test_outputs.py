"""The choice among the outputs of a model: by names, types and shapes."""

import pytest

from wobbliness.classifiers.signature.outputs import Output, choose_output

FLOATS, INTEGERS = "tensor(float)", "tensor(int64)"


def outputs_of(**shapes):
    """Outputs from names and shapes; those whose first word is `int` hold integers."""
    return [
        Output(
            name=name.removeprefix("int_"),
            dtype=INTEGERS if name.startswith("int_") else FLOATS,
            shape=shape,
        )
        for name, shape in shapes.items()
    ]


@pytest.mark.parametrize(
    ("shapes", "chosen"),
    [
        ({"anything": (None, 10)}, "anything"),
        ({"Identity": (None, 1, 1, 10)}, "Identity"),
        ({"unknown": None}, "unknown"),
        ({"free": (None, None, None, None)}, "free"),
        ({"feat": (None, 50), "logits": (None, 10)}, "logits"),
        ({"647": (None, 50), "classLogits": (None, 10)}, "classLogits"),
        ({"last_hidden_state": (None, 197, 768), "x": (None, 10)}, "x"),
        ({"features": (None, 50), "647": (None, 10)}, "647"),
        ({"647": (None, 50), "output": (None, 10)}, "output"),
        ({"logits": (None, 10), "aux_logits": (None, 10)}, "logits"),
        (
            {"logits": (None, 10), "cls_logits": (None, 10), "distillation_logits": (None, 10)},
            "logits",
        ),
        ({"logits": (None, 10), "probabilities": (None, 10)}, "logits"),
        ({"probs": (None, 10), "logits": (None, 10)}, "logits"),
        ({"int_label": (None,), "probabilities": (None, 3)}, "label"),
        ({"int_output_label": (None,), "output_probability": (None, 3)}, "output_label"),
        ({"probabilities": (None, 3), "int_label": (None, 1)}, "label"),
        ({"values": (None, 1), "int_indices": (None, 1)}, "indices"),
        ({"0": (None, 1), "int_1": (None, 1)}, "1"),
        ({"int_indices": (None, 5), "values": (None, 5), "logits": (None, 10)}, "logits"),
        (
            {"predictions/Softmax:0": (None, 1000), "features/Relu:0": (None, 512)},
            "predictions/Softmax:0",
        ),
        ({"0": (None, 10), "1": (None, 64, 7, 7)}, "0"),
        ({"softmaxout_1": (None, 1000), "pool10": (None, 1000)}, "softmaxout_1"),
        ({"class_token": (None, 50), "head": (None, 10)}, "head"),
        ({"class_embedding": (None, 50), "output": (None, 10)}, "output"),
        ({"attention_scores": (None, 50), "output": (None, 10)}, "output"),
        ({"prediction_features": (None, 50), "head": (None, 10)}, "head"),
        ({"image_embeds": (None, 50), "x": (None, 10)}, "x"),
        ({"feature_logits": (None, 50), "logits": (None, 10)}, "logits"),
        ({"domain_logits": (None, 2), "head.logits": (None, 10)}, "head.logits"),
        ({"loss3/classifier_1": (None, 1000)}, "loss3/classifier_1"),
        (
            {"feature_extractor/logits:0": (None, 10), "feature_extractor/x:0": (None, 50)},
            "feature_extractor/logits:0",
        ),
        ({"pooled_logits": (None, 10)}, "pooled_logits"),
        ({"domain_label": (None, 10), "features": (None, 50)}, "domain_label"),
    ],
)
def test_an_output_of_classes_is_told_by_name_type_and_shape(shapes, chosen):
    outputs = outputs_of(**shapes)
    assert outputs[choose_output(outputs)].name == chosen


@pytest.mark.parametrize(
    "shapes",
    [
        {"647": (None, 50), "648": (None, 10)},
        {"0": (None, 50), "1": (None, 10)},
        {"output_0": (None, 10), "output_1": (None, 5)},
        {"color_logits": (None, 10), "shape_logits": (None, 10)},
        {"age_logits": (None, 10), "gender_probs": (None, 10)},
        {"gender": (None, 2), "age": (None, 1)},
        {"feature_logits": (None, 50), "cls": (None, 10)},
        {"feature_logits": (None, 50), "output": (None, 10)},
        {"rotation_logits": (None, 4), "out": (None, 10)},
        {"super_class": (None, 4), "y": (None, 10)},
        {"class_activations": (None, 50), "head": (None, 10)},
        {"int_domain_label": (None,), "out": (None, 10)},
        {"int_color_label": (None,), "int_shape_label": (None,)},
        {"x": (None, 10), "int_number": (None,)},
    ],
)
def test_more_than_one_output_that_could_be_meant_is_refused_by_name(shapes):
    outputs = outputs_of(**shapes)
    with pytest.raises(ValueError, match="choose one by output=NAME") as refusal:
        choose_output(outputs, source="m.onnx")
    assert all(str(output) in str(refusal.value) for output in outputs[:1])
    assert "m.onnx" in str(refusal.value)


@pytest.mark.parametrize(
    "shapes",
    [
        {"values": (None, 5), "int_indices": (None, 5)},
        {"int_indices": (None, 5)},
        {"boxes": (None, None, 4), "int_labels": (None, 100), "scores": (None, 100)},
        {"mask": (None, 21, 64, 64)},
        {"embedding": (None, 512)},
        {"class_token": (None, 768)},
        {"attention_scores": (None, 12)},
        {"distances": (None, 10)},
        {"scalar": ()},
        {},
    ],
)
def test_outputs_that_are_no_classes_are_refused(shapes):
    with pytest.raises(
        ValueError, match=r"expected an output of labels \(B,\) or scores \(B, K\), got"
    ):
        choose_output(outputs_of(**shapes))


def test_the_number_of_classes_tells_scores_from_other_vectors():
    outputs = outputs_of(**{"647": (None, 50), "648": (None, 10)})
    assert choose_output(outputs, num_classes=10) == 1
    assert choose_output(outputs, num_classes=50) == 0
    with pytest.raises(ValueError, match="expected an output of labels"):
        choose_output(outputs, num_classes=3)


def test_a_wanted_output_is_found_by_name_or_number_and_checked():
    outputs = outputs_of(
        a=(None, 50),
        embedding=(None, 10),
        mask=(None, 3, 8, 8),
        values=(None, 5),
        int_indices=(None, 5),
    )
    assert choose_output(outputs, "embedding") == 1
    assert choose_output(outputs, "0") == choose_output(outputs, 0) == 0
    for refused in ("mask", "values", "indices", "4"):
        with pytest.raises(ValueError, match="expected an output of labels"):
            choose_output(outputs, refused)
    with pytest.raises(ValueError, match="one of a, embedding, mask, values, indices, got 'b'"):
        choose_output(outputs, "b")
    with pytest.raises(ValueError, match="got '5'"):
        choose_output(outputs, 5)


def test_a_name_that_is_a_number_goes_before_the_number():
    outputs = outputs_of(**{"1": (None, 50), "0": (None, 10)})
    assert choose_output(outputs, "0") == 1


def test_scores_of_quantised_networks_are_narrow_integers():
    narrow = [Output(name="x", dtype="tensor(uint8)", shape=(None, 10))]
    assert choose_output(narrow) == 0
    with pytest.raises(
        ValueError, match="expected an output of labels.*convert the model with zipmap=False"
    ):
        choose_output([Output(name="x", dtype="seq(map(int64,tensor(float)))", shape=None)])
