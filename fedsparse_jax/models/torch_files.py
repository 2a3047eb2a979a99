"""State dicts of PyTorch, read without PyTorch and without unpickling.

PyTorch saves a dict of tensors as a pickle, a program that may call anything. Here the program is read as data: a
machine of some thirty operations knows dicts, lists, tuples, numbers, texts and tensors. It imports nothing and calls
nothing, and what it does not know is refused by name. Both formats are read, the archive of 2020 on and the older one.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from fedsparse_jax.core.errors import UsageError

OLDER_MAGIC = 0x1950A86A20F9469CFC6C  # of the older format
STORAGES: dict[str, str] = {
    "torch FloatStorage": "<f4", "torch DoubleStorage": "<f8", "torch HalfStorage": "<f2", "torch LongStorage": "<i8",
    "torch IntStorage": "<i4", "torch ShortStorage": "<i2", "torch CharStorage": "i1", "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}  # fmt: skip
NOT_SEEN = object()  # where a list of the machine begins


class Global(NamedTuple):
    """The name of something that a pickle would import."""

    name: str  # such as "torch FloatStorage"


class Storage(NamedTuple):
    """A block of numbers of the file, by its name."""

    key: str
    dtype: str
    length: int  # in numbers


class Tensor(NamedTuple):
    """A view of a storage, not yet read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of ``torch.save(model.state_dict(), path)``, by name.

    A dict that holds the state dict under ``state_dict`` or ``model_state_dict`` is unpacked, and the prefix
    ``module.`` of a model that was trained on several devices is taken away.

    Raises:
        UsageError: no file, a damaged one, or one that holds anything but tensors of numbers.
    """
    try:
        content = path.read_bytes()
        named, block = _from_archive(path) if content.startswith(b"PK") else _from_stream(io.BytesIO(content))
        for key in ("state_dict", "model_state_dict"):
            named = named.get(key, named) if isinstance(named, dict) else named
        if not isinstance(named, dict) or not named or not all(isinstance(one, Tensor) for one in named.values()):
            raise ValueError("it holds no dict of tensors; save model.state_dict()")
        return {str(name).removeprefix("module."): _array_of(one, block) for name, one in named.items()}
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a file of torch.save.") from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} is no state dict of PyTorch ({reason}).") from error


def _from_archive(path: Path) -> tuple[Any, Callable[[Storage], bytes]]:
    """The object of a zip archive, and its blocks, each a member of its own that is not compressed."""
    with zipfile.ZipFile(path) as file:
        members = {member.filename.partition("/")[2]: member for member in file.infolist()}
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise ValueError("it is compressed")
        if "data.pkl" not in members:
            raise ValueError("it has no data.pkl")
        order = file.read(members["byteorder"]) if "byteorder" in members else b"little"
        if order != b"little":
            raise ValueError("its bytes are in the order of another machine")
        blocks = {name.removeprefix("data/"): file.read(m) for name, m in members.items() if name.startswith("data/")}
        return _read_object(io.BytesIO(file.read(members["data.pkl"]))), lambda storage: blocks[storage.key]


def _from_stream(stream: BinaryIO) -> tuple[Any, Callable[[Storage], bytes]]:
    """The object of the older format: four pickles, the keys of the blocks, then each block behind its length."""
    if _read_object(stream) != OLDER_MAGIC:
        raise ValueError("it begins as no file of PyTorch does")
    _, _, named, keys = (_read_object(stream) for _ in range(4))  # the first two: version, and machine
    start, rest = stream.tell(), stream.read()
    sizes = {one.storage.key: one.storage for one in _tensors_in(named)}
    blocks, at = {}, 0
    for key in keys:
        count = int.from_bytes(rest[at : at + 8], "little")
        if key not in sizes or count != sizes[key].length:
            raise ValueError(f"the block {key} at byte {start + at} does not have its length")
        length = count * np.dtype(sizes[key].dtype).itemsize
        blocks[key] = rest[at + 8 : at + 8 + length]
        at += 8 + length
    return named, lambda storage: blocks[storage.key]


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [found for one in value.values() for found in _tensors_in(one)] if isinstance(value, dict) else []


def _array_of(tensor: Tensor, block: Callable[[Storage], bytes]) -> np.ndarray:
    """A copy of what a tensor shows; never more than its storage holds."""
    storage, offset, shape, strides = tensor
    content = block(storage)
    dtype = np.dtype(storage.dtype)
    if storage.length * dtype.itemsize != len(content):
        raise ValueError(f"the block {storage.key} does not have its length")
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError("a tensor has an impossible shape")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    count: int = math.prod(shape)
    if count > storage.length or (count and last >= storage.length):
        raise ValueError("a tensor is larger than its block")
    flat = np.frombuffer(content, dtype)
    bytes_apart = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_apart, writeable=False).copy()


def _called(function: Any, arguments: tuple) -> Any:
    """What a call in the file stands for: an empty dict, or a tensor."""
    name = function.name if isinstance(function, Global) else "something"
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name in ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, Storage):
            return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], Tensor):
        return arguments[0]
    raise ValueError(f"it calls {name}, which is no tensor")


def _storage_of(reference: Any) -> Storage:
    """The block that a persistent reference names: ``("storage", type, key, device, count, ...)``."""
    kind, of_type, key, _, count = reference[:5]
    if kind != "storage" or not isinstance(of_type, Global) or of_type.name not in STORAGES:
        raise ValueError(f"it refers to {getattr(of_type, 'name', kind)}, which is no block of numbers")
    return Storage(str(key), STORAGES[of_type.name], int(count))


def _read_object(stream: BinaryIO) -> Any:
    """What the next pickle of a stream holds, and the stream behind it."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, given, _ in pickletools.genops(stream):
        name, argument = operation.name, cast(Any, given)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(Global(argument))
        elif name in ON_STACK:
            ON_STACK[name](stack)
        else:
            raise ValueError(f"it holds a {name}, which is no part of a state dict")
    raise ValueError("it ends too early")


def _from_mark(stack: list) -> list:
    """Takes from the stack what was put on it since the last mark."""
    place = len(stack) - 1
    while stack[place] is not NOT_SEEN:
        place -= 1
    taken = stack[place + 1 :]
    del stack[place:]
    return taken


def _take(stack: list, count: int) -> tuple:
    if len(stack) < count:
        raise ValueError("it takes what is not there")
    taken = tuple(stack[len(stack) - count :])
    del stack[len(stack) - count :]
    return taken


def _set_items(stack: list) -> None:
    flat = _from_mark(stack)
    stack[-1].update(zip(flat[::2], flat[1::2], strict=True))


def _reduce(stack: list) -> None:
    function, arguments = _take(stack, 2)
    stack.append(_called(function, arguments))


def _named_global(stack: list) -> None:
    module, name = _take(stack, 2)
    stack.append(Global(f"{module} {name}"))


CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: NOT_SEEN,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
    "SHORT_BINSTRING",
}  # fmt: skip
ON_STACK: Mapping[str, Callable[[list], Any]] = {
    "TUPLE": lambda stack: stack.append(tuple(_from_mark(stack))),
    "TUPLE1": lambda stack: stack.append(_take(stack, 1)),
    "TUPLE2": lambda stack: stack.append(_take(stack, 2)),
    "TUPLE3": lambda stack: stack.append(_take(stack, 3)),
    "APPEND": lambda stack: (one := stack.pop(), stack[-1].append(one)),
    "APPENDS": lambda stack: (many := _from_mark(stack), stack[-1].extend(many)),
    "SETITEM": lambda stack: (pair := _take(stack, 2), stack[-1].update([pair])),
    "SETITEMS": _set_items,
    "BUILD": lambda stack: stack.pop(),  # attributes of an OrderedDict, such as its versions
    "BINPERSID": lambda stack: stack.append(_storage_of(stack.pop())),
    "REDUCE": _reduce,
    "STACK_GLOBAL": _named_global,
}
