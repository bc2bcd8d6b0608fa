"""The kind of model in a file, by its first bytes and the names in it; nothing of it is run."""

import warnings
import zipfile
from pathlib import Path
from typing import Literal

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import found_instead, open_regular

FileKind = Literal["onnx", "exported program", "safetensors", "TorchScript", "pickle"]

# Of a model's file, together with the files it points to: a billion parameters in float32.
MAX_FILE_BYTES = 4 * 2**30
MODEL_SUFFIXES = (".onnx", ".pt2", ".safetensors")
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
# The first bytes of Keras's older files.
HDF5 = b"\x89HDF"
# Pickles of protocols 2 to 5 begin with this operation and the protocol's number.
PROTOCOL, PROTOCOLS = b"\x80", (b"\x02", b"\x03", b"\x04", b"\x05")


def file_kind(path: Path) -> FileKind:
    """Determines the kind of a model's file; a pickle is recognised whatever its name.

    Raises:
        ValueError: it does not exist, is larger than MAX_FILE_BYTES, or is of a kind that cannot be
            opened.
    """
    head = _first_bytes(path)
    # First of all: the eight bytes of a safetensors file's length may look like a pickle's. Its
    # header is a JSON object, which begins behind them.
    if path.suffix.lower() == ".safetensors" and head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if _is_pickled(head, path.suffix):
        return "pickle"
    return _kind_by_suffix(path, head)


def _first_bytes(path: Path) -> bytes:
    """Reads as much as tells the kind of a file that is there and not too large."""
    if not path.is_file():
        raise ValueError(f"expected a model file, got {path}, {found_instead(path)}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"expected a model file of at most {MAX_FILE_BYTES} bytes, got {path} of "
            f"{path.stat().st_size}"
        )
    with open_regular(path) as file:
        return file.read(9)


def refusal(path: Path, kind: FileKind) -> str:
    """Explains why a pickle or TorchScript file is not opened, and what to do instead."""
    ways = {
        "pickle": "save its weights with safetensors.torch.save_file and give a factory, or "
        "export it with torch.onnx.export, "
        "torch.export.save or, for scikit-learn, skl2onnx",
        "TorchScript": (
            "export the module it was made from with torch.onnx.export or torch.export.save"
        ),
    }
    return (
        f"expected a model that runs no code of its author's, got {path}: a {kind} file can run "
        f"any code when it is opened; where you trust it, {ways[kind]}, or open it with "
        "trust_pickle=True (--trust-pickle)"
    )


def warn_of_code(path: Path) -> None:
    """Warns that opening a file runs the code in it."""
    warnings.warn(
        f"opening {path} runs whatever code it holds, as asked by trust_pickle",
        UserWarning,
        stacklevel=1,
    )


def _is_pickled(head: bytes, suffix: str) -> bool:
    """Checks for a pickle, by the opcode that protocols 2 and later begin with, or by suffix.

    The suffix decides for joblib's files, which may be compressed.
    """
    is_protocol = head[:1] == PROTOCOL and head[1:2] in PROTOCOLS
    return is_protocol or suffix.lower() in PICKLE_SUFFIXES


def _kind_by_suffix(path: Path, head: bytes) -> FileKind:
    if head.startswith(HDF5):
        raise ValueError(
            f"expected a model that needs no Keras, got {path}; convert it with tf2onnx to "
            "FILE.onnx"
        )
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if path.suffix.lower() == ".safetensors":
        return "safetensors"
    if path.suffix.lower() == ".pt2":
        raise ValueError(
            f"expected an archive of torch.export.save, got {path}, which is no zip file"
        )
    raise ValueError(f"expected a model as FILE.onnx, .pt2 or .safetensors, got {path}")


def _zip_kind(path: Path) -> FileKind:
    names = _names_in(path)
    if any(name.split("/")[-1] == "archive_format" for name in names):
        return "exported program"
    # The older format of exported programs, which is read by other checks than ours.
    if "serialized_exported_program.json" in names:
        raise ValueError(
            f"expected an archive of torch.export.save of torch 2.8 or later, got {path}; save it "
            "anew"
        )
    # TorchScript before pickles: it holds a pickle, too.
    if any("/code/" in name for name in names):
        return "TorchScript"
    if any(name.endswith("data.pkl") for name in names) or path.suffix.lower() in PICKLE_SUFFIXES:
        return "pickle"
    raise ValueError(
        f"expected a model as FILE.onnx, .pt2 or .safetensors, got {path}, another kind of zip file"
    )


def _names_in(path: Path) -> list[str]:
    """Returns the names in a zip file; none of them is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"expected a readable archive, got {path}: {reason_of(error)}") from error
