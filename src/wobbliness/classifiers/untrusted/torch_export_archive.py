"""A safe copy of a `torch.export` archive, checked piece by piece, in memory.

`torch.export.load` must not be given a stranger's archive: in torch 2.13 it unpickles sample
inputs, weights and constants that are marked so, loads shared libraries, evaluates symbolic sizes
and guards as Python, looks operators up by any dotted path under `torch`, and writes names into
Python source that it compiles. So the copy holds raw tensors and operators of aten only, its names
are plain, its sizes are arithmetic, and there are no sample inputs, guards or notes in it.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DOTTED = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.[A-Za-z0-9_]+")
# A symbolic size as torch writes it: arithmetic alone, and no dot, by which attributes are reached.
SIZE = re.compile(r"[A-Za-z0-9_+\-* (),]{1,200}")
SIZE_WORDS = {
    "Add",
    "Mul",
    "Integer",
    "Max",
    "Min",
    "FloorDiv",
    "Mod",
    "CleanDiv",
    "PythonMod",
    "CeilToInt",
    "FloorToInt",
}
# A symbol with its assumptions: Symbol('s0', positive=True, integer=True).
SYMPY_SYMBOL = re.compile(r"Symbol\('([su][0-9]{1,6})'(, [a-z]{1,20}=True)*\)")
SYMBOL = re.compile(r"[su][0-9]{1,6}|[0-9]{1,12}")
# Of the files of tensors, as torch numbers them: no folder and no dots, which could lead elsewhere.
PATHS = re.compile(r"(weight|constant|tensor)_[0-9]{1,6}")
# Modes and equations: "bilinear", "none", "bhwc->bchw".
WORD = re.compile(r"[a-z0-9_]{0,40}|[A-Za-z ,.>()-]{0,60}")
# Python's own operators on sizes, and those of torch and math for them.
# fmt: off
PLAIN_OPERATORS = {
    f"_operator.{name}"
    for name in (
        "getitem", "add", "sub", "mul", "floordiv", "mod", "neg",
        "eq", "ne", "lt", "le", "gt", "ge",
    )
} | {"torch.sym_int", "torch.sym_max", "torch.sym_min", "torch.sym_not", "math.floor", "math.ceil"}
# fmt: on
# Of aten: the first reads a file, the others give a tensor memory or a size that it does not have.
REFUSED_ATEN = {"from_file", "set_", "resize_", "set"}
# Of aten's operators with an underscore, which are torch's own, those that exporters write.
PRIVATE_ATEN = {
    "_softmax",
    "_log_softmax",
    "_to_copy",
    "_unsafe_view",
    "_adaptive_avg_pool2d",
    "_safe_softmax",
}
PRIVATE_ATEN |= {"_native_batch_norm_legit_no_training", "_assert_tensor_metadata"}
NODE_KEYS = ("target", "inputs", "outputs", "name", "is_hop_single_tensor_return")
# Kinds of argument other than tensors, numbers and words: functions and objects of other classes.
REFUSED_KEYS = {"as_graph", "as_operator", "as_custom_obj", "as_nested_tensors"}
# By these names torch looks up how inputs nest; a registered class could run its own code.
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
# Files of an archive, one for each tensor; the largest networks have some thousands.
MAX_ENTRIES = 100_000
# Bytes of a note such as the version of the format; the longest is the order of bytes, "little".
MAX_NOTE_BYTES = 20
NOTES = ("archive_format", "archive_version", ".data/version", "byteorder")
# Parts of a program besides its graph that stay; guards and notes are left out.
PROGRAM_KEYS = ("opset_version", "range_constraints", "schema_version", "verifiers")
# What reading a damaged or malicious archive raises: of zipfile, and of looking into its JSON.
DAMAGES = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    AttributeError,
)


def checked_archive(path: Path) -> io.BytesIO:
    """Copies an archive of `torch.export.save` with nothing but what has been checked.

    Raises:
        ValueError: it is compressed, holds pickles, libraries or several programs, or content that
            could run as code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, path.stat().st_size)
            root, contents = _contents(archive, entries)
    except (*DAMAGES, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"expected a readable archive of torch.export.save, got {path}: {error!r}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{error}, in {path}") from error
    return _written(root, contents)


def _written(root: str, contents: dict[str, bytes]) -> io.BytesIO:
    """Writes a new archive that holds the checked contents alone: nothing else can be loaded."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(f"{root}/{name}", content)
    # The reader begins where the last write ended otherwise.
    copy.seek(0)
    return copy


def _entries(archive: zipfile.ZipFile, num_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the archive's entries by name.

    None is compressed, and together they are no larger than the archive.
    """
    found = archive.infolist()
    # Of two entries of one name, the one that is checked need not be the one that is loaded.
    if len(found) > MAX_ENTRIES or len({entry.filename for entry in found}) < len(found):
        raise ValueError(
            f"expected at most {MAX_ENTRIES} files of different names, got {len(found)}"
        )
    # Compressed entries may unpack to a thousand times their size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in found):
        raise ValueError(
            "expected an archive without compression, as torch.export.save writes it, got a "
            "compressed one"
        )
    # Uncompressed entries may still overlap in the file, and so unpack to more than it holds.
    total = sum(entry.file_size for entry in found)
    if total > num_bytes:
        raise ValueError(
            f"expected at most the archive's own {num_bytes} bytes, got files of {total}"
        )
    return {entry.filename: entry for entry in found}


def _contents(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]
) -> tuple[str, dict[str, bytes]]:
    """Returns the name of the archive's folder, and the checked content of each file in it."""
    root = _checked_root(list(entries))

    def read(name: str) -> bytes:
        return archive.read(entries[f"{root}/{name}"])

    contents = {name: read(name) for name in NOTES}
    if any(len(content) > MAX_NOTE_BYTES for content in contents.values()):
        raise ValueError("expected short notes on the archive's format, got long ones")
    for kind in ("weights", "constants"):
        contents |= _checked_tensors(read, kind)
    program = _checked_program(json.loads(read("models/model.json")))
    contents["models/model.json"] = json.dumps(program).encode()
    # torch needs this file, takes an empty one for no inputs, and would unpickle any other.
    contents["data/sample_inputs/model.pt"] = b""
    return root, contents


def _checked_root(names: list[str]) -> str:
    """Returns the name of the folder that all files lie in; there is one program in it."""
    root = names[0].split("/")[0]
    if not DOTTED.fullmatch(root.replace("-", "_").replace(" ", "_")):
        raise ValueError(f"expected a plain name, got {root[:80]!r}")
    models = [name for name in names if name.startswith(f"{root}/models/")]
    if models != [f"{root}/models/model.json"] or any("aotinductor" in name for name in names):
        raise ValueError(
            f"expected one exported program and no compiled library, got {len(models)} programs"
        )
    return root


def _checked_tensors(read: Callable[[str], bytes], kind: str) -> dict[str, bytes]:
    """Reads the table of weights or constants, then each file that a checked entry of it names."""
    config = f"data/{kind}/model_{kind}_config.json"
    payloads = json.loads(read(config))["config"]
    table = json.dumps({"config": payloads}).encode()
    # A set: several tensors may share a file.
    names = {_checked_payload(*item) for item in payloads.items()}
    tensors = {name: read(f"data/{kind}/{name}") for name in names}
    _check_extents(payloads, {name: len(content) for name, content in tensors.items()})
    return {config: table} | {f"data/{kind}/{name}": tensors[name] for name in names}


def _checked_payload(name: str, payload: dict[str, Any]) -> str:
    """Returns the file of a tensor that is stored as its bytes."""
    if (
        payload["use_pickle"]
        or payload["tensor_meta"] is None
        or not PATHS.fullmatch(payload["path_name"])
    ):
        raise ValueError(f"expected tensors as raw bytes, got a pickle for {name[:80]!r}")
    _check_dotted(name)
    _check_strings(payload["tensor_meta"])
    return str(payload["path_name"])


def _check_extents(payloads: dict[str, Any], stored: dict[str, int]) -> None:
    """Checks that no tensor has more values than its file has bytes."""
    for name, payload in payloads.items():
        sizes = [size["as_int"] for size in payload["tensor_meta"]["sizes"]]
        # At least a byte for each value, of whatever type: no more memory than the file's is taken.
        if min(sizes, default=0) < 0 or math.prod(sizes) > stored[payload["path_name"]]:
            raise ValueError(
                f"expected a tensor within its {stored[payload['path_name']]} bytes, got {sizes} "
                f"for {name!r}"
            )


def _checked_program(program: dict[str, Any]) -> dict[str, Any]:
    """Returns the program without its unused parts; ValueError if the rest could run code."""
    module = program["graph_module"]
    graph = _checked_graph(module["graph"])
    root = _outermost(module["module_call_graph"])
    kept = {"graph": graph, "signature": module["signature"], "module_call_graph": root}
    kept |= {"metadata": {}, "treespec_namedtuple_fields": {}}
    rest = {name: program[name] for name in PROGRAM_KEYS}
    # Strings of all parts that stay; those of the calling convention are JSON and names, below.
    _check_strings({**kept, "module_call_graph": None})
    _check_strings(rest)
    for entry in root:
        for name in (entry["signature"] or {}).get("forward_arg_names") or []:
            _check_name(name)
    return {**rest, "torch_version": "", "graph_module": kept, "guards_code": []}


def _outermost(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the outermost module's calling convention: how its input and output nest.

    No other module's is of use.
    """
    root = [entry for entry in modules if entry["fqn"] == ""]
    for treespec in _treespecs(root):
        _check_containers(treespec)
    return root


def _checked_graph(graph: dict[str, Any]) -> dict[str, Any]:
    """Returns a graph with its nodes checked and without their notes."""
    kept = dict(graph)
    if kept.get("custom_obj_values"):
        raise ValueError("expected tensors and numbers only, got custom objects")
    kept["nodes"] = [_checked_node(node) for node in kept["nodes"]]
    return kept


def _checked_node(node: dict[str, Any]) -> dict[str, Any]:
    target = node["target"]
    found = ATEN.fullmatch(target)
    if found is None and target not in PLAIN_OPERATORS:
        raise ValueError(f"expected operators of aten, got {target[:80]!r}")
    operator = found[1] if found else ""
    # With an underscore, only known operators; without, all but those known to do more.
    if operator in REFUSED_ATEN or (operator.startswith("_") and not _is_known_private(operator)):
        raise ValueError(f"expected operators that only compute, got {target!r}")
    return {**{key: node[key] for key in NODE_KEYS if key in node}, "metadata": {}}


def _is_known_private(operator: str) -> bool:
    return operator in PRIVATE_ATEN or operator.startswith(
        ("_scaled_dot_product_", "_native_batch_norm_legit")
    )


def _check_strings(value: Any, key: str = "") -> None:
    """Checks that each string has the form that its place allows.

    Unknown places allow plain names.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            _check_dotted(name)
            if name in REFUSED_KEYS:
                raise ValueError(f"expected tensors and numbers only, got {name}")
            _check_strings(part, name)
    elif isinstance(value, list):
        for part in value:
            _check_strings(part, key)
    elif isinstance(value, str):
        _check_string(value, key)


def _check_string(text: str, key: str) -> None:
    if key == "expr_str":
        _check_size(text)
    elif key in ("name", "as_name"):
        if text:
            _check_name(text)
    # A mode or an equation, which an operator reads and torch does not evaluate.
    elif key == "as_string":
        if not WORD.fullmatch(text):
            raise ValueError(f"expected a plain word, got {text[:80]!r}")
    else:
        _check_dotted(text)


def _check_size(text: str) -> None:
    """Checks for sums and products of symbols and integers: sympy evaluates what it is given."""
    # Symbols with their assumptions become plain names; then only arithmetic may be left.
    plain = SYMPY_SYMBOL.sub(r"\1", text)
    words = re.findall(r"\w+", plain)
    if (
        not SIZE.fullmatch(plain)
        or "**" in plain
        or not all(word in SIZE_WORDS or SYMBOL.fullmatch(word) for word in words)
    ):
        raise ValueError(f"expected a size as plain arithmetic, got {text[:80]!r}")


def _check_name(text: str) -> None:
    if not NAME.fullmatch(text) or "__" in text[:2]:
        raise ValueError(f"expected a plain name, got {text[:80]!r}")


def _check_dotted(text: str) -> None:
    if text and (not DOTTED.fullmatch(text) or text.startswith("__") or ".__" in text):
        raise ValueError(f"expected a plain name, got {text[:80]!r}")


def _treespecs(entries: list[dict[str, Any]]) -> Iterator[Any]:
    for entry in entries:
        signature = entry["signature"] or {}
        for name in ("in_spec", "out_spec"):
            yield json.loads(signature[name])[1]


def _check_containers(spec: dict[str, Any]) -> None:
    """Allows tuples, lists and dicts of plain names: other containers are looked up by name."""
    if spec["type"] not in CONTAINERS:
        raise ValueError(
            "expected inputs and outputs in tuples, lists and dicts, got "
            f"{str(spec['type'])[:80]!r}"
        )
    for name in json.loads(spec["context"] or "null") or []:
        _check_name(name)
    for part in spec["children_spec"]:
        _check_containers(part)
