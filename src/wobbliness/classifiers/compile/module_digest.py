"""A digest of all that a torch module computes with: tensors, structure, attributes, hooks, code.

Two equal digests of one module, taken at different times, mean that no change was found: no weight,
no flag, no exchanged layer, no replaced method or function, on the instance, on its class or in the
Python modules that its code refers to. Whatever cannot be read is taken to have changed.
"""

import enum
import hashlib
import logging
import re
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

# Code objects seen so far; they are kept, so that no other one gets the same identity.
_codes: dict[int, types.CodeType] = {}

# Objects that are read for one module; beyond it nothing is certain.
MAX_OBJECTS = 200_000
# Objects within objects. Each takes some frames of Python's stack, which has a thousand.
MAX_DEPTH = 150
# Attributes that are read elsewhere, such as submodules by their names, or change no score.
SKIPPED_ATTRIBUTES = (
    "training",
    "_modules",
    "_non_persistent_buffers_set",
    "_is_full_backward_hook",
    "call_super_init",
    "__weakref__",
)
# Objects whose text says all of them. Those of sympy, which torch uses for sizes, are such, too.
# fmt: off
PLAIN_TYPES = (
    type(None), type(Ellipsis), bool, int, float, complex, str, bytes, bytearray, range, slice,
    PurePath, re.Pattern, enum.Enum,
    np.dtype, np.generic,
    torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size,
    torch.finfo, torch.iinfo,
)
# fmt: on
# Objects of these types do not influence scores.
IRRELEVANT_TYPES = (
    logging.Logger,
    weakref.ref,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.local,
)
# Whose code is read where a module of theirs runs, and not what that code refers to in turn.
# fmt: off
LIBRARIES = frozenset(sys.stdlib_module_names) | {
    "PIL", "beartype", "jaxtyping", "numpy", "onnx", "onnxruntime", "scipy", "sympy", "timm",
    "torch", "torchvision", "transformers", "wobbliness",
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class ModuleDigest:
    """A digest of an object and whether it covers everything.

    Attributes:
        content: of all that can be read.
        is_certain: whether that was everything.
    """

    content: bytes
    is_certain: bool


def module_digest(
    module: torch.nn.Module, *context: object, with_tensors: bool = True
) -> ModuleDigest:
    """Computes the digest of a module, for comparing it with itself at another time.

    Args:
        module: in evaluation mode.
        context: further plain values that belong to it.
        with_tensors: whether the values of parameters and buffers belong to it; their names, types
            and shapes do.
    """
    reader = _Reader(with_tensors=with_tensors)
    reader.read(context)
    reader.read(torch.get_default_dtype())
    # With duplicates: a part that is used twice computes something else than two equal parts do.
    for name, part in module.named_modules(remove_duplicate=False):
        reader.read(name)
        reader.read(part)
    for hooks in _hooks_of_all_modules():
        reader.read(hooks)
    return ModuleDigest(content=reader.digest.digest(), is_certain=reader.is_certain)


def _hooks_of_all_modules() -> Iterator[object]:
    # Hooks on all modules, and the methods through which a module is called, may be replaced, too.
    for name, value in vars(torch.nn.modules.module).items():
        if name.startswith("_global_forward"):
            yield value
    for name in ("__call__", "_call_impl", "_wrapped_call_impl", "__getattr__"):
        yield vars(torch.nn.Module).get(name)


class _Reader:
    """A reader of objects into a digest; an object seen before is written as its number."""

    def __init__(self, *, with_tensors: bool) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.is_certain = True
        self._with_tensors, self._depth = with_tensors, 0
        self._known: dict[int, int] = {}
        # So that no other object gets the same id while this one reads.
        self._kept: list[object] = []

    def read(self, value: object) -> None:
        """Adds an object to the digest."""
        if isinstance(value, PLAIN_TYPES) or type(value).__module__.startswith("sympy."):
            self._add(type(value).__qualname__, repr(value))
            return
        if isinstance(value, IRRELEVANT_TYPES):
            self._add(type(value).__qualname__)
            return
        # An object seen before is written as its number: cycles end, and sharing is recorded.
        if id(value) in self._known:
            self._add("again", str(self._known[id(value)]))
            return
        if len(self._known) > MAX_OBJECTS or self._depth > MAX_DEPTH:
            self.is_certain = False
            return
        self._known[id(value)] = len(self._known)
        self._kept.append(value)
        self._depth += 1
        try:
            self._read_new(value)
        except Exception:  # what attributes of strangers raise when they are read is not known
            self.is_certain = False
        self._depth -= 1

    def _add(self, *words: str) -> None:
        # Each word ends with a zero byte, so that "ab", "c" and "a", "bc" are told apart.
        self.digest.update("\0".join((*words, "")).encode("utf-8", "surrogatepass"))

    def _read_new(self, value: Any) -> None:
        self._add(type(value).__module__, type(value).__qualname__)
        reader = _EXACT.get(type(value))
        if reader is None:
            reader = next(
                (reader for kinds, reader in _READERS if isinstance(value, kinds)),
                _Reader._read_object,
            )
        reader(self, value)

    def _read_callable(self, value: Any) -> None:
        """Reads a composed callable: a method, a partial call, a property."""
        for name in ("__func__", "__self__", "func", "args", "keywords", "fget", "fset"):
            if hasattr(value, name):
                self.read(getattr(value, name))

    def _read_name(self, value: Any) -> None:
        self._add(str(getattr(value, "__name__", value)))

    def _read_all(self, values: Any) -> None:
        self._add(str(len(values)))
        for value in values:
            self.read(value)
        if type(values) not in (list, tuple):
            self._read_object(values, is_known=True)

    def _read_mapping(self, values: Mapping[Any, Any]) -> None:
        self._add(str(len(values)))
        # In the order of insertion, which a module may well compute by.
        for key, value in list(values.items()):
            self.read(key)
            self.read(value)
        if type(values) is not dict:
            self._read_object(values, is_known=True)

    def _read_set(self, values: Any) -> None:
        """Reads a set in sorted order: its own order differs between processes."""
        try:
            self._read_all(sorted(values))
        except TypeError:
            self._read_all(sorted(values, key=repr))

    def _read_array(self, array: np.ndarray) -> None:
        self._add(str(array.dtype), str(array.shape))
        if array.dtype.hasobject:
            self._read_all(array.ravel().tolist())
        else:
            self.digest.update(
                np.ascontiguousarray(array).view(np.uint8).data if array.size else b""
            )

    def _read_tensor(self, tensor: torch.Tensor) -> None:
        self._add(
            str(tensor.dtype), str(tuple(tensor.shape)), str(tensor.device), str(tensor.layout)
        )
        # Type and shape belong to the digest in any case, values on demand and if there are any.
        if not self._with_tensors or isinstance(tensor, FakeTensor) or tensor.is_meta:
            return
        for part in _dense(tensor.detach()):
            self.digest.update(part.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)

    def _read_script(self, module: torch.jit.ScriptModule) -> None:
        """Reads a script's graph and its large constants, which the graph names without values."""
        self._add(str(module.inlined_graph) if hasattr(module, "inlined_graph") else "")
        self._read_mapping(module.state_dict())
        # Its attributes live in C++, where nobody sees them change.
        self.is_certain = False

    def _read_part(self, part: torch.nn.Module) -> None:
        """Reads the attributes of a module except its submodules, which are read by their names."""
        if isinstance(part, torch.jit.ScriptModule):
            self._read_script(part)
            return
        self.read(type(part))
        for name, value in vars(part).items():
            if name in SKIPPED_ATTRIBUTES or (type(value) in (dict, OrderedDict) and not value):
                continue
            self._add(name)
            self.read(
                list(value.values())
                if name.endswith("_hooks") and isinstance(value, dict)
                else value
            )
        self._add(*part._modules)

    def _read_class(self, of: type) -> None:
        self._add(of.__module__, of.__qualname__)
        # Bases and members of the user's own classes; of a library's modules the methods alone.
        for base in of.__mro__[1:]:
            if not _is_of_library(base.__module__):
                self.read(base)
        if not _is_of_library(of.__module__):
            self._read_members(of)
        elif issubclass(of, torch.nn.Module):
            self.read(of.forward)
            for base in of.__mro__[: of.__mro__.index(torch.nn.Module)]:
                self._read_codes(base)

    def _read_codes(self, of: type) -> None:
        """Reads the code of a library's methods, without what it refers to."""
        for name, value in sorted(vars(of).items()):
            if isinstance(value, types.FunctionType):
                self._add(name)
                self._read_code(value.__code__)

    def _read_members(self, of: type) -> None:
        for name, value in sorted(vars(of).items()):
            if name != "_abc_impl" and (not name.startswith("__") or callable(value)):
                self._add(name)
                self.read(value)

    def _read_function(self, function: types.FunctionType) -> None:
        self._add(function.__module__ or "", function.__qualname__)
        self._read_code(function.__code__)
        self._read_all((function.__defaults__, function.__kwdefaults__))
        self._read_all([_content(cell) for cell in function.__closure__ or ()])
        # What a function refers to is read for the user's functions, and for a library's forward
        # passes; other code of libraries is taken by its identity.
        is_of_library = _is_of_library(function.__module__ or "")
        if is_of_library and not _is_forward(function):
            return
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self._read_global(
                    name, function.__globals__[name], function.__code__, deep=not is_of_library
                )

    def _read_global(self, name: str, value: object, code: types.CodeType, *, deep: bool) -> None:
        """Reads what a function refers to by name; for a Python module the attributes in use."""
        self._add(name)
        if isinstance(value, types.ModuleType):
            self._add(value.__name__)
            for asked in sorted(_names(code)):
                if asked in vars(value) and not isinstance(vars(value)[asked], types.ModuleType):
                    self._add(asked)
                    self._read_found(vars(value)[asked], deep=deep)
        else:
            self._read_found(value, deep=deep)

    def _read_found(self, value: object, *, deep: bool) -> None:
        if deep or isinstance(value, PLAIN_TYPES):
            self.read(value)
        elif isinstance(value, types.FunctionType):
            self._read_code(value.__code__)
        else:
            self._add(type(value).__qualname__, str(getattr(value, "__qualname__", "")))

    def _read_code(self, code: types.CodeType) -> None:
        """Reads code by its identity: code never changes, and another function has other code."""
        _codes[id(code)] = code
        self._add(str(id(code)))

    def _read_builtin(self, function: Any) -> None:
        self._add(str(getattr(function, "__module__", "")), function.__qualname__)
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self.read(owner)

    def _read_object(self, value: Any, *, is_known: bool = False) -> None:
        """Reads any other object by class and attributes; C objects without any are unreadable."""
        names = [name for of in type(value).__mro__ for name in _slots(of) if hasattr(value, name)]
        has_attributes = hasattr(value, "__dict__") or bool(names)
        if not has_attributes and not is_known and type(value) is not object:
            self._read_opaque(value)
            return
        self.read(type(value))
        for name in names:
            self._add(name)
            self.read(getattr(value, name))
        self.read(dict(getattr(value, "__dict__", {})))

    def _read_opaque(self, value: Any) -> None:
        """Reads what shows nothing but its name: certain for a library's functions in C alone."""
        is_function = callable(value) and _is_of_library(type(value).__module__)
        self.is_certain = self.is_certain and is_function
        self._add(getattr(value, "__qualname__", ""), str(getattr(value, "__name__", "")))


# By the very type, since a subclass may hold attributes of its own.
_EXACT: dict[type, Callable[[_Reader, Any], None]] = {
    dict: _Reader._read_mapping,
    OrderedDict: _Reader._read_mapping,
    list: _Reader._read_all,
    tuple: _Reader._read_all,
    set: _Reader._read_set,
    frozenset: _Reader._read_set,
    type: _Reader._read_class,
    torch.Tensor: _Reader._read_tensor,
    torch.nn.Parameter: _Reader._read_tensor,
    np.ndarray: _Reader._read_array,
    types.CodeType: _Reader._read_code,
    types.FunctionType: _Reader._read_function,
    types.MethodType: _Reader._read_callable,
    types.ModuleType: _Reader._read_name,
}
# By the first kind that an object is an instance of: the order matters.
_READERS: tuple[tuple[Any, Callable[[_Reader, Any], None]], ...] = (
    (torch.nn.Module, _Reader._read_part),
    (torch.Tensor, _Reader._read_tensor),
    (np.ndarray, _Reader._read_array),
    (torch.fx.Graph, _Reader._read_name),
    (type, _Reader._read_class),
    (dict, _Reader._read_mapping),
    (list | tuple, _Reader._read_all),
    (set | frozenset, _Reader._read_set),
    (partial | property | staticmethod | classmethod, _Reader._read_callable),
    (
        types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType,
        _Reader._read_builtin,
    ),
    (types.ModuleType, _Reader._read_name),
    (Mapping, _Reader._read_mapping),
)


def _dense(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Returns the values of a tensor as plain tensors."""
    if tensor.is_quantized:
        return _quantised(tensor)
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), *_dense(whole.values())]
    if tensor.layout != torch.strided:
        return _dense(tensor.to_dense())
    # A conjugate or a negative may be a flag on the same memory.
    if tensor.is_complex():
        return [torch.view_as_real(tensor.resolve_conj())]
    return [tensor.resolve_neg()]


def _quantised(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Returns stored integers, scales and zero points: all that a quantised tensor is."""
    if "channel" in str(tensor.qscheme()):
        scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    else:
        scales, zeros = torch.tensor(tensor.q_scale()), torch.tensor(tensor.q_zero_point())
    return [tensor.int_repr(), scales, zeros]


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _slots(of: type) -> tuple[str, ...]:
    slots = vars(of).get("__slots__", ())
    return tuple(
        name
        for name in ((slots,) if isinstance(slots, str) else slots)
        if not name.startswith("__")
    )


@cache
def _names(code: types.CodeType) -> frozenset[str]:
    """Collects all names that code looks up, also in the functions within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*(_names(own) for own in inner))


def _is_of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _is_forward(function: types.FunctionType) -> bool:
    return function.__name__ == "forward" or function.__module__ in (
        "torch.nn.functional",
        "torch.nn.modules.module",
    )
