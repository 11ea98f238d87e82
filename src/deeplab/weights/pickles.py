"""Pickles, read without running what they name.

A pickle is a list of orders: look a name up, call it, set its attributes. Here a name is never
looked up. The few that tensors need (their rebuilding, dictionaries, numpy's arrays) have a
counterpart below; every other one gets a stand-in, which takes whatever is done to it and does
nothing. So an optimiser, an ``argparse.Namespace`` or a trainer's own class is no obstacle, and a
malicious file no danger.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip


@dataclass
class Storage:
    """The memory of one or more tensors, in a file.

    Attributes:
        dtype: of its elements.
        read: returns its bytes.
    """

    dtype: torch.dtype
    read: Callable[[], memoryview]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose values are still in the file.

    Attributes:
        storage: where the values are.
        offset: of the first one, in elements.
        shape: of the tensor.
        stride: elements from one index to the next, per dimension.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> torch.Tensor:
        """Return the values, in memory of their own.

        Raises:
            ValueError: the file holds fewer than the shape says.
        """
        data = self.storage.read()
        held = len(data) // self.storage.dtype.itemsize
        count = math.prod(self.shape)
        if count == 0:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        # A value that stands for many ("expanded") is rare, and small where it is meant.
        if self.offset + last >= held or (count > held and count > 1 << 20):
            raise ValueError(f"a tensor of shape {self.shape} in {len(data)} bytes")
        # frombuffer wants memory that may be written to, and of this tensor alone.
        start = self.offset * self.storage.dtype.itemsize
        part = bytearray(data[start : start + (last + 1) * self.storage.dtype.itemsize])
        flat = torch.frombuffer(part, dtype=self.storage.dtype)
        return flat.as_strided(self.shape, self.stride).clone()


Value = torch.Tensor | StoredTensor
"""A tensor, wherever its values are; both have a ``shape``."""


class StandIn:
    """What a pickle's name became: an object that keeps what it is given and does nothing.

    Attributes:
        path: the name in the pickle, "argparse.Namespace".
        args: what it was called with.
        state: what its attributes were to become.
        entries: what was set by key.
    """

    path = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        """Make one, whatever the arguments."""
        made = super().__new__(cls)
        made.args, made.state, made.entries = args, None, {}
        return made

    args: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        """Return another one: what is called may be what a call gave."""
        return StandIn(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, value: Any) -> None:
        """Take an element of a list, as unpickling asks."""

    def extend(self, values: Any) -> None:
        """Take elements of a list, as unpickling asks."""

    def add(self, value: Any) -> None:
        """Take an element of a set, as unpickling asks."""


class Entries(dict[Any, Any]):
    """Any kind of dictionary: ordered, with defaults, with attributes that do not matter here."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        for given in args:
            if isinstance(given, dict | list | tuple):
                self.update(given)

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass
class Content:
    """What a pickle holds.

    Attributes:
        value: dictionaries, lists, numbers, texts, `StoredTensor` and `StandIn`.
        names: of the stand-ins, sorted, without those of torch, numpy and Python that do nothing.
    """

    value: Any
    names: tuple[str, ...] = ()


class Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing.

    Args:
        data: where the pickle begins; several may follow one another.
        storage: returns the memory that a persistent id names.
    """

    def __init__(self, data: io.BytesIO, storage: Callable[..., Storage]) -> None:
        _check_memo(data)
        super().__init__(data, encoding="utf-8", errors="surrogateescape")
        self._storage = storage
        self.names: set[str] = set()
        self._made: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the counterpart of a name, or a stand-in for it."""
        path = f"{module}.{name}"
        if path not in self._made:
            self._made[path] = self._make(module, name, path)
        return self._made[path]

    def _make(self, module: str, name: str, path: str) -> Any:
        if path in _COUNTERPARTS:
            return _COUNTERPARTS[path]
        if module in ("torch", "torch.storage", "torch.cuda") and name in _DTYPES:
            return Storage(_DTYPES[name], _no_bytes)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if not _HARMLESS.match(path):
            self.names.add(path)
        return type("StandIn", (StandIn,), {"path": path})

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that a tensor refers to."""
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage"):
            kind = pid[1].dtype if isinstance(pid[1], Storage) else torch.uint8
            return self._storage(kind, *pid[2:])
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] in ("module", b"module"):
            return pid[1]  # a class, with the source it was defined by
        raise pickle.UnpicklingError(f"a reference {str(pid)[:80]!r} that is no tensor's")


def _check_memo(data: io.BytesIO) -> None:
    """Refuse a pickle that keeps an object under a number far beyond how many objects it has.

    The unpickler of CPython makes its table as long as the largest number, at once.

    Raises:
        UnpicklingError: it does.
        ValueError: it is cut off or damaged.
    """
    start = data.tell()
    for count, (order, argument, _) in enumerate(pickletools.genops(data)):
        if order.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > _MEMO + count:
            raise pickle.UnpicklingError(f"object {count} of a pickle is kept as {argument}")
    data.seek(start)


_MEMO = 1 << 16

# What a plain pickle uses that is neither a tensor nor worth a word.
_HARMLESS = re.compile(
    r"(torch|numpy)\.(?!.*(load|save|exec|eval|compile|hub|open|from))"
    r"|builtins\.(set|frozenset|slice|complex|bytearray|range|int|float|bool|str|list|tuple|object)$"
    r"|__builtin__\.(set|object|long|unicode)$"
    r"|__torch__\.|collections\.(Counter|deque)$|copyreg\._reconstructor$|copy_reg\._reconstructor$"
)


def _no_bytes() -> memoryview:
    raise ValueError("a tensor without a storage")


def _rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    """``torch._utils._rebuild_tensor_v2``, and ``_v3`` where a type is among the rest."""
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or len(shape) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage")
    if not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of shape {shape!r:.80} and stride {stride!r:.80}")
    for given in rest:
        if isinstance(given, torch.dtype):
            storage = Storage(given, storage.read)
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _first(value: Any = None, *rest: Any) -> Any:
    """``_rebuild_parameter``: what is wrapped, without its wrapping."""
    return value


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any = None) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a tensor of a class of its own."""
    return function(*args) if function in (_rebuild, _first) else StandIn(function, *args)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``: how protocol 2 writes bytes."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        return text.encode("latin-1")
    raise pickle.UnpicklingError("bytes of an unknown encoding")


def _size(numbers: Any = (), *rest: Any) -> Any:
    """``torch.Size``."""
    return tuple(numbers)


@dataclass
class _Dtype:
    """numpy's dtype, by its text."""

    text: Any = ""
    order: Any = "<"

    def __init__(self, text: Any = "", *rest: Any) -> None:
        self.text = text

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        text = self.text.decode("ascii") if isinstance(self.text, bytes) else self.text
        if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?[fiub][1248]", text):
            raise ValueError(f"numbers of type {text!r:.40}")
        return np.dtype(text.lstrip("<>|=")).newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """numpy's array or number: the type, the shape, and the bytes."""

    def __init__(self, *args: Any) -> None:
        self.parts: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) >= 5:
            _, shape, dtype, fortran, data = state[:5]
            self.parts = (shape, dtype, fortran, data)


def _scalar(dtype: Any = None, data: Any = b"", *rest: Any) -> Any:
    made = _Array()
    made.parts = ((), dtype, False, data)
    return made


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    made = _Array()
    made.parts = (shape, dtype, order == "F", data)
    return made


def read_array(value: Any) -> torch.Tensor | None:
    """Return a pickled array of numbers as a tensor; None where it is none."""
    if not isinstance(value, _Array) or not value.parts:
        return None
    shape, dtype, fortran, data = value.parts
    if not isinstance(dtype, _Dtype):
        return None
    try:
        raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(raw, dtype.resolve())
        array = flat.reshape(tuple(shape), order="F" if fortran else "C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):
        return None


def _from_bytes(data: Any = b"", *rest: Any) -> Any:
    """``torch.storage._load_from_bytes``: how a plain pickle holds a tensor's memory."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a tensor's memory that is no bytes")
    return read_stream(memoryview(data)).value


_NUMPY = {
    "multiarray._reconstruct": _Array,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _frombuffer,
}
_COUNTERPARTS: Mapping[str, Any] = {
    "collections.OrderedDict": Entries,
    "collections.defaultdict": Entries,
    "builtins.dict": Entries,
    "__builtin__.dict": Entries,
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.storage._load_from_bytes": _from_bytes,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    **{f"numpy.core.{name}": made for name, made in _NUMPY.items()},
    **{f"numpy._core.{name}": made for name, made in _NUMPY.items()},
}


# ---------------------------------------------------------------------------- streams of pickles

_MAGIC = 0x1950A86A20F9469CFC6C
"""What ``torch.save`` wrote first before its files were archives. Source: torch.serialization."""


@dataclass
class _Late:
    """Storages whose bytes follow the pickle that names them."""

    data: dict[str, memoryview] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def storage(
        self, dtype: torch.dtype, key: Any, _: Any, count: Any, view: Any = None
    ) -> Storage:
        """Return what ``key`` names, or a part of it: its own key, first element, length."""
        self.sizes[str(key)] = dtype.itemsize
        if not isinstance(view, tuple) or len(view) < 3:
            return Storage(dtype, lambda: self._bytes(key))
        start, stop = (int(n) * dtype.itemsize for n in (view[1], view[1] + view[2]))
        return Storage(dtype, lambda: self._bytes(key)[start:stop])

    def _bytes(self, key: Any) -> memoryview:
        if str(key) not in self.data:
            raise ValueError(f"the values of the tensor {str(key)[:40]} are missing")
        return self.data[str(key)]


def read_stream(data: memoryview) -> Content:
    """Read a plain pickle, or a file of ``torch.save`` from before its zip archives.

    Raises:
        Exception: of whatever kind; the bytes are damaged.
    """
    stream = io.BytesIO(data)
    late = _Late()
    names: set[str] = set()

    def load() -> Any:
        unpickler = Unpickler(stream, late.storage)
        value = unpickler.load()
        names.update(unpickler.names)
        return value

    value = load()
    if value != _MAGIC:
        return Content(value, tuple(sorted(names)))
    load()  # the version of the format
    load()  # sizes of C's types on the machine that wrote it
    value = load()
    for key in load():
        size = int.from_bytes(stream.read(8), "little") * late.sizes.get(str(key), 1)
        at = stream.tell()
        if at + size > len(data):
            raise EOFError(f"{size} bytes of a tensor are missing")
        late.data[str(key)] = data[at : at + size]
        stream.seek(at + size)
    return Content(value, tuple(sorted(names)))
