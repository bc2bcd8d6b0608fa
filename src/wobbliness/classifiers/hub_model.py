"""An image classifier of Hugging Face as a torch module, with its image processor's steps inside."""

import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wobbliness.classifiers.hub_preparation import Preparation, check_preparation
from wobbliness.classifiers.layouts import ImageShape
from wobbliness.classifiers.model_file import MAX_FILE_BYTES

MISSING_EXTRA = 'expected the extra "hub" for models of Hugging Face, got none; pip install "wobbliness[hub]"'


class HubModule(torch.nn.Module):
    """Pictures in [0, 1], channels first, to logits `(B, K)`.

    Attributes:
        image_shape: of the pictures that pass through without being resized. Others are resized as the processor says, which
            averages over the noise on them.
    """

    def __init__(self, preparation: Preparation, network: Any) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network
        self.image_shape: ImageShape = (len(preparation.mean), *preparation.size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.network(pixel_values=self.preparation(images)).logits
        return logits


def load_hub_model(name: str) -> HubModule:
    """A model from a local folder with `config.json` or by its name on the hub.

    Only safetensors are read and only transformers' own code is run.

    Raises:
        ValueError: transformers is missing, or the model cannot be had, needs code of its own or has no safetensors.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise ValueError(MISSING_EXTRA) from None
    try:
        with _quiet(transformers):
            folder = Path(name) if Path(name).is_dir() else _download(name)
            config = _checked_config(folder)
            _check_size(transformers, config, sum(file.stat().st_size for file in _checked_weights(folder)))
            return _load(transformers, folder)
    except Exception as error:  # transformers raises OSError, KeyError, RuntimeError, and more for damaged files
        raise ValueError(f"expected an image classifier of Hugging Face, got {name}: {_first_line(error)}") from error


def _download(name: str) -> Path:
    hub: Any = importlib.import_module("huggingface_hub")
    return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))


def _load(transformers: Any, folder: Path) -> HubModule:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    network, loaded = transformers.AutoModelForImageClassification.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation="eager",
        output_loading_info=True,
    )
    missing = sorted(map(str, (*loaded["missing_keys"], *loaded["mismatched_keys"])))
    if missing:
        raise ValueError(f"expected all weights of the classifier, got none for {missing[0]} and {len(missing) - 1} more")
    preparation = Preparation(processor.to_dict(), getattr(network.config, "num_channels", 3))
    check_preparation(preparation, processor)
    return HubModule(preparation, network.eval())


def _checked_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ValueError("expected a folder with config.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"expected a config.json of names and values, got {type(config).__name__}")
    _check_config(config)
    return config


def _checked_weights(folder: Path) -> list[Path]:
    """The folder's safetensors, not too large; the index of their parts names no other files."""
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(
            "expected weights as safetensors, got none: pickles such as pytorch_model.bin can run any code when they are opened; "
            "where you trust them, load the model with transformers and save it again with save_pretrained"
        )
    if sum(file.stat().st_size for file in weights) > MAX_FILE_BYTES:
        raise ValueError(f"expected weights of at most {MAX_FILE_BYTES} bytes, got more")
    index, known = folder / "model.safetensors.index.json", {file.name for file in weights}
    if index.is_file() and not set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) <= known:
        raise ValueError("expected an index of the folder's own safetensors, got other files in it")
    return weights


def _check_config(config: dict[str, Any]) -> None:
    """No code of others: neither the model's own nor kernels of the hub, at any depth."""
    if "auto_map" in config:
        raise ValueError("expected a model that needs no code of its own, got a configuration with auto_map")
    for key, value in config.items():
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ValueError(f"expected attention that comes with transformers, got {value!r}")
        if key == "quantization_config" and value is not None:
            raise ValueError("expected weights as numbers, got quantised ones")
        if isinstance(value, dict):
            _check_config(value)


def _check_size(transformers: Any, config: dict[str, Any], num_bytes: int) -> None:
    """The configuration describes no more parameters than the weights have bytes; told without making them."""
    with torch.device("meta"):
        own = transformers.AutoConfig.for_model(**config)
        network = transformers.AutoModelForImageClassification.from_config(own, trust_remote_code=False)
    described = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    if described > num_bytes:
        raise ValueError(f"expected weights for {described} parameters, as the configuration says, got {num_bytes} bytes")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice on standard error; set back afterwards."""
    before, shows_bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        if shows_bars:
            transformers.logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
