"""Hugging Face models: pixels equal to their own pipeline's, and folders opened offline."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from network_access import ask_nothing
from PIL import Image

import wobbliness
from wobbliness import read_images
from wobbliness.classifiers.signature.hugging_face import MAX_SIDE

transformers = pytest.importorskip("transformers")

NUM_CLASSES, NUM_PICTURES = 6, 24
SMALL_VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
EDGE_AND_CROP = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
SQUARE = {"size": {"height": 32, "width": 32}}
CONVOLUTIONS = {"hidden_sizes": [8, 16], "depths": [1, 1]}

KINDS = {
    "ViT": ("ViT", SMALL_VISION, "ViT", SQUARE),
    "DeiT": (
        "DeiT",
        SMALL_VISION,
        "DeiT",
        {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "BEiT": ("Beit", SMALL_VISION, "Beit", SQUARE | {"do_center_crop": False}),
    "Swin": (
        "Swin",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        "ViT",
        SQUARE,
    ),
    "DINOv2": ("Dinov2", SMALL_VISION, "Bit", EDGE_AND_CROP),
    "CLIP": ("CLIP", {"vision_config": SMALL_VISION}, "CLIP", EDGE_AND_CROP),
    "ResNet": (
        "ResNet",
        {"embedding_size": 8, "layer_type": "basic", **CONVOLUTIONS},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
    ),
    "ConvNeXt": (
        "ConvNext",
        {"num_stages": 2, **CONVOLUTIONS},
        "ConvNext",
        {"size": {"shortest_edge": 28}, "crop_pct": 0.7},
    ),
    "BiT": ("Bit", {"embedding_size": 8, "num_groups": 4, **CONVOLUTIONS}, "Bit", EDGE_AND_CROP),
    "MobileNet": (
        "MobileNetV1",
        {"depth_multiplier": 0.25, "min_depth": 8},
        "MobileNetV1",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    ),
    "MobileViT, channels turned around": (
        "MobileViT",
        {
            "hidden_sizes": [8, 8, 8],
            "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 8],
            "num_attention_heads": 1,
            "image_size": 32,
        },
        "MobileViT",
        EDGE_AND_CROP,
    ),
    "EfficientNet, normalised twice": (
        "EfficientNet",
        {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128},
        "EfficientNet",
        SQUARE,
    ),
    "LeViT, an edge of its own": (
        "Levit",
        {
            "image_size": 32,
            "hidden_sizes": [16, 16, 16],
            "num_attention_heads": [1, 1, 1],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
            "down_ops": [["Subsample", 8, 2, 2, 2, 2], ["Subsample", 8, 2, 2, 2, 2]],
        },
        "Levit",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ),
}


def save_model(folder, kind):
    network, settings, processor, geometry = KINDS[kind]
    config = getattr(transformers, f"{network}Config")(num_labels=NUM_CLASSES, **settings)
    torch.manual_seed(0)
    module = getattr(transformers, f"{network}ForImageClassification")(config).eval()
    # as trained: labels that differ, and running statistics that are not those of white noise
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessorPil")(**geometry).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 pictures of 48 x 64, neither square nor of a usual size, with content at their edges."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(NUM_PICTURES):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(
            folder / f"{index:02}.png"
        )
    return folder


def pipeline_pixels(folder, pictures):
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor(
        [Image.open(path).convert("RGB") for path in sorted(pictures.iterdir())],
        return_tensors="pt",
    )["pixel_values"]


def pipeline_scores(folder, pictures):
    module = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return module(pixel_values=pipeline_pixels(folder, pictures)).logits.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_any_size_are_seen_as_by_the_models_own_pipeline(tmp_path, pictures, kind):
    folder = save_model(tmp_path / "model", kind)
    theirs = pipeline_scores(folder, pictures)
    classifier = wobbliness.open_classifier(folder)
    read = read_images(pictures, image_shape=classifier.image_shape)
    assert read.images.shape[1:] == tuple(classifier.image_shape), (
        "noise is put on what the network sees, which nothing averages"
    )
    with torch.no_grad():
        ours = classifier.module(torch.from_numpy(read.images)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    height, width = read.images.shape[2:]
    pixels, prepare = pipeline_pixels(folder, pictures), classifier.module.preparation
    assert (prepare(torch.from_numpy(read.images)) - pixels).abs().max() < 1e-4
    warped = read_images(pictures, image_shape=(3, height, width), resize=True).images
    if "crop_size" in KINDS[kind][3] or "shortest_edge" in KINDS[kind][3]["size"]:
        assert (prepare(torch.from_numpy(warped)) - pixels).abs().max() > 0.1, (
            "control: resizing both axes is another picture"
        )


def test_the_command_gives_the_pipelines_labels(tmp_path, pictures):
    import pandas as pd

    from wobbliness.cli.app import app

    folder = save_model(tmp_path / "model", "ResNet")
    command = [
        "measure",
        str(folder),
        str(pictures),
        "--sigma",
        "0.000001",
        "--draws",
        "2",
        "--out",
        str(tmp_path / "v.csv"),
    ]
    app(command, standalone_mode=False)
    labels = pipeline_scores(folder, pictures).argmax(axis=1)
    assert len(set(labels.tolist())) > 1, "control: the labels tell the pictures apart"
    assert pd.read_csv(tmp_path / "v.csv")["label"].tolist() == labels.tolist()


def test_pictures_of_several_sizes_fit_and_arrays_too(tmp_path, pictures):
    classifier = wobbliness.open_classifier(save_model(tmp_path / "model", "DINOv2"))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    Image.open(pictures / "00.png").save(mixed / "a.png")
    Image.open(pictures / "01.png").resize((90, 40)).convert("L").save(mixed / "b.png")
    assert read_images(mixed, image_shape=classifier.image_shape).images.shape == (2, 3, 32, 32)
    raw = np.stack(
        [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in sorted(pictures.iterdir())]
    )
    np.save(tmp_path / "raw.npy", raw)
    read = read_images(pictures, image_shape=classifier.image_shape).images
    assert np.array_equal(
        read_images(tmp_path / "raw.npy", image_shape=classifier.image_shape).images, read
    )
    floats = raw / np.float32(255)
    assert np.array_equal(wobbliness.fit_images(floats, classifier.image_shape), read)
    assert wobbliness.measure(classifier, floats[:2], 0.1, draws=4).counts.sum() == 8, (
        "resized in the network, as before"
    )


def test_a_shape_with_its_fitting_survives_copies_and_stays_a_shape(tmp_path, pictures):
    shape = wobbliness.open_classifier(save_model(tmp_path / "model", "ConvNeXt")).image_shape
    assert shape == (3, 28, 28)
    again = pickle.loads(pickle.dumps(shape))
    expected = read_images(pictures / "00.png", image_shape=shape).images
    assert np.array_equal(read_images(pictures / "00.png", image_shape=again).images, expected)


def test_floats_that_need_no_fitting_are_left_as_they_are(tmp_path):
    shape = wobbliness.open_classifier(save_model(tmp_path / "model", "ViT")).image_shape
    images = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    assert np.array_equal(wobbliness.fit_images(images, shape), images)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": {"shortest_edge": 12000}}, f"1 to {MAX_SIDE} pixels a side, got 12000"),
        ({"size": {"height": 32, "width": 12000}}, "pixels a side, got 12000"),
        ({"crop_size": {"height": 1e9, "width": 32}}, "pixels a side, got 1000000000"),
        ({"crop_pct": 1e-9}, "a share of 0.1 to 1 of a side, got 1e-09"),
    ],
)
def test_a_processor_that_blows_pictures_up_is_refused(tmp_path, change, match):
    folder = save_model(tmp_path / "model", "ConvNeXt")
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | change))
    with pytest.raises(
        ValueError, match=f"^expected an image classifier of Hugging Face.*{match}"
    ) as refused:
        wobbliness.open_classifier(folder)
    assert "\n" not in str(refused.value)


def test_a_strip_that_would_grow_beyond_bounds_is_refused(tmp_path):
    shape = wobbliness.open_classifier(save_model(tmp_path / "model", "DINOv2")).image_shape
    Image.new("RGB", (60000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(
        ValueError,
        match=r"^expected a picture that the model's image processor takes, .*1 x 60000 pixels",
    ):
        read_images(tmp_path / "strip.png", image_shape=shape)
    Image.new("RGB", (600, 10)).save(tmp_path / "wide.png")
    assert read_images(tmp_path / "wide.png", image_shape=shape).images.shape == (1, 3, 32, 32), (
        "control"
    )


NAMES_OTHERS = {
    "backbone": {"backbone": "someone/model"},
    "backbone of timm": {"backbone": "resnet50", "use_timm_backbone": True},
    "pretrained backbone": {"use_pretrained_backbone": True},
    "deep backbone": {"more": [{"backbone": "someone/model"}]},
    "backbone as configuration": {
        "backbone_config": {"model_type": "detr", "backbone": "someone/model"}
    },
    "another architecture": {"model_type": "detr", "backbone": "someone/model"},
    "a default backbone": {"model_type": "upernet"},
    "other files": {"configuration_files": ["config.99.json"]},
    "architecture on the hub": {
        "model_type": "timm_wrapper",
        "architecture": "hf-hub:someone/model",
    },
}
PROCESSOR_NAMES_OTHERS = {
    "a configuration as processor": {
        "image_processor_type": "DetrConfig",
        "backbone": "someone/model",
    },
    "a tokenizer as processor": {"image_processor_type": "AutoTokenizer"},
    "an extractor with code": {"auto_map": {"AutoImageProcessor": "someone/code--p.P"}},
}


def changed(folder, good, **files):
    """A folder of links to the good one's files, as the hub's cache has them, but for some."""
    folder.mkdir()
    for file in good.iterdir():
        (folder / file.name).symlink_to(file)
    for name, change in files.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)
        path.write_text(json.dumps(content | change))
    return folder


def test_a_local_folder_asks_nobody(tmp_path):
    good = save_model(tmp_path / "good", "ViT")
    linked = changed(tmp_path / "linked", good)
    bad = [changed(tmp_path / name, good, config=change) for name, change in NAMES_OTHERS.items()]
    bad += [
        changed(tmp_path / name, good, preprocessor_config=change)
        for name, change in PROCESSOR_NAMES_OTHERS.items()
    ]
    bad += [
        changed(
            tmp_path / "adapter", good, adapter_config={"base_model_name_or_path": "someone/model"}
        )
    ]
    bad += [
        changed(
            tmp_path / "adapter alone",
            good,
            adapter_config={"base_model_name_or_path": "someone/model"},
        )
    ]
    (tmp_path / "adapter alone" / "config.json").unlink()
    (tmp_path / "no processor").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "no processor" / name).symlink_to(good / name)
    harmless = changed(
        tmp_path / "harmless",
        good,
        config={"_name_or_path": "google/vit", "backbone": None, "id2label": {"0": "a/b"}},
    )
    answer = ask_nothing("models", good, linked, harmless, *bad, tmp_path / "no processor")
    assert answer["asked"] == []
    for folder in (good, linked):
        assert answer["answers"][str(folder)] == [3, 32, 32], (
            "control: a whole model is opened, through links too"
        )
    for folder in bad:
        assert str(answer["answers"][str(folder)]).startswith(
            "expected an image classifier of Hugging Face, got"
        ), folder


def test_the_recorder_sees_a_name_of_the_hub():
    answer = ask_nothing("models", "hf:someone/model")
    assert answer["asked"], "control: what is named remote is asked for"
    assert answer["answers"]["hf:someone/model"].startswith(
        "expected an image classifier of Hugging Face, got"
    )


@pytest.mark.parametrize(
    "name", ["config", "preprocessor_config", "processor_config", "generation_config"]
)
def test_settings_that_are_devices_pipes_or_pointers_are_refused(tmp_path, name):
    good = save_model(tmp_path / "good", "ViT")
    for kind, make in {
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a pipe": os.mkfifo,
        "a pointer of git-lfs": lambda path: path.write_text(
            "version https://git-lfs.github.com/spec/v1\n"
        ),
    }.items():
        folder = changed(tmp_path / kind, good)
        path = folder / f"{name}.json"
        path.unlink(missing_ok=True)
        make(path)
        with pytest.raises(
            ValueError,
            match=f"^expected an image classifier of Hugging Face, got .*({kind}|config.json)",
        ):
            wobbliness.open_classifier(folder)


def test_weights_that_are_a_pointer_say_so(tmp_path):
    folder = changed(tmp_path / "pointer", save_model(tmp_path / "good", "ViT"))
    (folder / "model.safetensors").unlink()
    Path(folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(ValueError, match="a pointer of git-lfs to it; fetch it"):
        wobbliness.open_classifier(folder)
