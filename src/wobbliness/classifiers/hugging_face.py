"""An image classifier of Hugging Face as a torch module, with its image processor's steps."""

import copy
import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wobbliness.classifiers.signature.hugging_face import (
    PictureFit,
    Preparation,
    check_preparation,
    check_sizes,
)
from wobbliness.classifiers.signature.layouts import ImageShape
from wobbliness.classifiers.untrusted.hugging_face import check_folder
from wobbliness.images.fitting import FittedShape
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state

MISSING_EXTRA = (
    'expected the extra "hub" for models of Hugging Face, got none; pip install "wobbliness[hub]"'
)


class HubModule(torch.nn.Module):
    """A torch module from pictures in [0, 1], channels first, to logits `(B, K)`.

    Attributes:
        image_shape: of pictures that were resized and cropped as the model's image processor does
            it. `read_images` and `fit_images` do so, before any noise. Pictures of another size are
            resized and cropped in the network, which averages over the noise on them.
    """

    def __init__(
        self, preparation: Preparation, network: Any, fit_picture: PictureFit | None = None
    ) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network
        shape = (len(preparation.mean), *preparation.size)
        self.image_shape: ImageShape = (
            shape if fit_picture is None else FittedShape(shape, fit_picture)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the logits."""
        logits: torch.Tensor = self.network(pixel_values=self.preparation(images)).logits
        return logits


def load_hub_model(name: str) -> HubModule:
    """Loads a model from a local folder with `config.json` or by its name on the hub.

    Only safetensors are read and only transformers' own code is run. A folder is opened without
    asking the network, whatever its files name; nothing is fetched for a model of the hub but its
    own files.

    Raises:
        ValueError: transformers is missing, or the model cannot be had, needs code or files of
            others or has no safetensors.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise ValueError(MISSING_EXTRA) from None
    try:
        with _quiet(transformers):
            folder = Path(name) if Path(name).is_dir() else _download(name)
            checked = check_folder(folder)
            config = _own_config(transformers, checked.config)
            _check_size(transformers, config, checked.num_bytes)
            return _load(transformers, folder, config)
    # transformers raises OSError, KeyError, RuntimeError and more for damaged files.
    except Exception as error:
        raise ValueError(
            f"expected an image classifier of Hugging Face, got {name}: {reason_of(error)}"
        ) from error


def _download(name: str) -> Path:
    hub: Any = importlib.import_module("huggingface_hub")
    return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))


def _load(transformers: Any, folder: Path, config: Any) -> HubModule:
    offline: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    # By PIL: the other way needs torchvision.
    processor = transformers.AutoImageProcessor.from_pretrained(
        folder, config=config, backend="pil", **offline
    )
    # Refuses too large pictures before the weights are loaded.
    check_sizes(processor.to_dict())
    network = _load_network(transformers, folder, config, offline)
    fit_picture = PictureFit(processor, getattr(network.config, "num_channels", 3))
    preparation = Preparation(
        processor.to_dict(), fit_picture.num_channels, fit_picture.image_shape()[1:]
    )
    # torch's steps have to give what the processor gives, on a picture made for it.
    check_preparation(preparation, processor)
    return HubModule(preparation, network.eval(), fit_picture)


def _load_network(
    transformers: Any, folder: Path, config: Any, offline: Mapping[str, Any]
) -> torch.nn.Module:
    """Loads the network, all of whose weights have to be in the folder."""
    network, loaded = transformers.AutoModelForImageClassification.from_pretrained(
        folder,
        config=config,
        use_safetensors=True,
        # Attention in plain steps, which the exporter to ONNX knows.
        attn_implementation="eager",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, with their names
        **offline,
    )
    missing = sorted(map(str, (*loaded["missing_keys"], *loaded["mismatched_keys"])))
    if missing:
        raise ValueError(
            f"expected all weights of the classifier, got none for {missing[0]} and "
            f"{len(missing) - 1} more"
        )
    return network  # type: ignore[no-any-return]


def _own_config(transformers: Any, config: dict[str, Any]) -> Any:
    """Builds the configuration as transformers' own class.

    It is made here, so that no class asks for more files.
    """
    kinds = importlib.import_module(
        "transformers.models.auto.modeling_auto"
    ).MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kind = config.get("model_type")
    if kind not in kinds:
        raise ValueError(
            f"expected a configuration of an image classifier, got model_type {kind!r}"
        )
    return type(transformers.AutoConfig.for_model(kind)).from_dict(config)


def _check_size(transformers: Any, config: Any, num_bytes: int) -> None:
    """Checks that the configuration has no more parameters than the weights have bytes.

    The parameters are counted without allocating them.
    """
    # Tensors on the meta device have shapes and no memory.
    with torch.device("meta"):
        network = transformers.AutoModelForImageClassification.from_config(
            copy.deepcopy(config), trust_remote_code=False
        )
    described = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    if described > num_bytes:
        raise ValueError(
            f"expected weights for {described} parameters, as the configuration says, got "
            f"{num_bytes} bytes"
        )


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppresses progress bars and advice on standard error, and restores them afterwards."""
    with borrowed_state():
        before = transformers.logging.get_verbosity()
        shows_bars = transformers.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity(logging.CRITICAL)
        transformers.logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers.logging.set_verbosity(before)
            if shows_bars:
                transformers.logging.enable_progress_bar()
