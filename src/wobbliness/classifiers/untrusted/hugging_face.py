"""Checks of a Hugging Face folder before transformers opens it.

No code, no pickles and nothing that names another source is let through.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wobbliness.classifiers.untrusted.file_kind import MAX_FILE_BYTES
from wobbliness.runtime.input_files import check_regular, read_bounded

# Of a configuration, whose longest part are the names of the classes.
MAX_JSON_BYTES = 16 * 2**20
# Of the index of weights in several files, a line for each tensor.
MAX_INDEX_BYTES = 64 * 2**20

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PROCESSOR_KINDS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
_LABELS = ("id2label", "label2id")
# Beginnings of timm's names of architectures by which it fetches one from elsewhere.
_HUB_SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class CheckedFolder:
    """A folder that transformers may open.

    Attributes:
        config: content of its `config.json`.
        num_bytes: of its weights.
    """

    config: dict[str, Any]
    num_bytes: int


def check_folder(folder: Path) -> CheckedFolder:
    """Reads and checks a Hugging Face folder; links are followed, as in the hub's cache.

    Raises:
        ValueError: it has no configuration or no safetensors, a file is too large or no regular
            one, or it needs code, weights or a configuration from elsewhere.
    """
    if not (folder / "config.json").is_file():
        raise ValueError("expected a folder with config.json")
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            "expected a whole model, got an adapter of another one (adapter_config.json); merge "
            "it and save the model"
        )
    # All of them: transformers looks for files of many names.
    for file in sorted(folder.glob("*.json")):
        check_regular(file)
    config = _settings(folder / "config.json")
    for name in _PROCESSORS:
        if (folder / name).exists():
            _check_processor(_settings(folder / name))
    return CheckedFolder(
        config=config, num_bytes=sum(file.stat().st_size for file in _checked_weights(folder))
    )


def _settings(file: Path) -> dict[str, Any]:
    content = json.loads(read_bounded(file, MAX_JSON_BYTES).decode("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(
            f"expected a {file.name} of names and values, got {type(content).__name__}"
        )
    for key, value in _entries(content):
        _check_entry(key, value)
    return content


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yields each name and value at any depth, except for the names of the classes."""
    # Names of classes are the author's own words, and may well be those of a setting.
    if isinstance(settings, dict):
        yield from settings.items()
        settings = [value for key, value in settings.items() if key not in _LABELS]
    for value in settings:
        if isinstance(value, dict | list):
            yield from _entries(value)


def _check_entry(key: str, value: Any) -> None:
    """Raises ValueError for foreign code, hub kernels, quantised weights and other sources.

    Other sources are names of other models or configurations.
    """
    if key == "auto_map" and value:
        raise ValueError(
            "expected a model that needs no code of its own, got a configuration with auto_map"
        )
    if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
        raise ValueError(f"expected attention that comes with transformers, got {value!r}")
    if key == "quantization_config" and value is not None:
        raise ValueError("expected weights as numbers, got quantised ones")
    if _names_another_source(key, value):
        raise ValueError(
            f"expected a model that is whole, got one that is made from another source: {key} is "
            f"{str(value)[:80]!r}"
        )


def _names_another_source(key: str, value: Any) -> bool:
    if "backbone" in key and isinstance(value, str | bool):
        return bool(value)
    if key in ("configuration_files", "base_model_name_or_path", "kernel_config", "hub_kernels"):
        return bool(value)
    return key == "architecture" and isinstance(value, str) and value.startswith(_HUB_SOURCES)


def _check_processor(settings: dict[str, Any]) -> None:
    for key, value in _entries(settings):
        if key in ("image_processor_type", "feature_extractor_type") and not str(value).endswith(
            _PROCESSOR_KINDS
        ):
            raise ValueError(f"expected an image processor, got {str(value)[:80]!r}")


def _checked_weights(folder: Path) -> list[Path]:
    """Checks the folder's safetensors: their size, and that the index names no other files."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(
            "expected weights as safetensors, got none: pickles such as pytorch_model.bin can run "
            "any code when they are opened; where you trust them, load the model with "
            "transformers and save it again with save_pretrained"
        )
    for file in weights:
        check_regular(file)
    if sum(file.stat().st_size for file in weights) > MAX_FILE_BYTES:
        raise ValueError(f"expected weights of at most {MAX_FILE_BYTES} bytes, got more")
    _check_index(folder / _INDEX, {file.name for file in weights})
    return weights


def _check_index(index: Path, known: set[str]) -> None:
    """Checks that an index, if there is one, leads to known files only, not out of the folder."""
    if not index.is_file():
        return
    content = json.loads(read_bounded(index, MAX_INDEX_BYTES).decode("utf-8"))
    if not set(content["weight_map"].values()) <= known:
        raise ValueError("expected an index of the folder's own safetensors, got other files in it")
