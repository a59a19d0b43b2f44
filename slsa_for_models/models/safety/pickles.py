"""PyTorch's pickles, read by a machine that can build tensors and plain values, and nothing else.

A pickle is a program. The frameworks' own restricted unpicklers still allocate what it asks for,
and read a tensor of any size from a storage of another. This machine runs the program on
descriptions instead: what a tensor would be, not the tensor.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import check_name, elements

_MOST_BYTES = 8 * 1024 * 1024
_MOST_DEPTH = 100

ITEM_SIZES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}
"""Bytes of an element, by the name of a storage's class."""


@dataclass(frozen=True)
class Global:
    """A class or function by its name, which was looked up nowhere."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The bytes of tensors: a member of the archive."""

    key: str
    item_size: int
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor that would be built."""

    storage: Storage
    shape: tuple[int, ...]


@dataclass
class Object:
    """An object of a TorchScript class, with its attributes."""

    class_name: str
    attributes: dict[Any, Any] = field(default_factory=dict)


class Machine:
    """Runs one pickle.

    Args:
        sizes: Bytes of each storage in the archive, by key.
        classes: Names of TorchScript classes that may have objects.
        where: The pickle's name, for messages.
    """

    def __init__(self, sizes: Mapping[str, int], classes: frozenset[str], where: str) -> None:
        self._sizes, self._classes, self._where = sizes, classes, where
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0
        self.bytes = 0  # of all tensors built

    def run(self, program: bytes) -> Any:  # noqa: ANN401 - a pickle holds anything
        """The value that the program ends with, tensors as descriptions.

        Raises:
            UnsafeModelError: The program is malformed, or does anything but build tensors in plain
                containers.
        """
        if len(program) > _MOST_BYTES:
            raise self._refusal("the pickle is too large", f"{len(program):,} bytes")
        try:
            for opcode, argument, position in pickletools.genops(program):
                self._steps += 1
                if opcode.name == "STOP":
                    if position != len(program) - 1 or len(self._stack) != 1 or self._marks:
                        raise self._refusal("the pickle does not end where it should")
                    check_plain(self._stack[0], self._where)
                    return self._stack[0]
                act = _OPCODES.get(opcode.name)
                if act is None:
                    raise self._refusal("the pickle does more than build tensors", opcode.name)
                act(self, argument)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise self._refusal("the pickle is not well-formed", str(error)) from error
        raise self._refusal("the pickle does not end")

    def _refusal(self, message: str, found: str | None = None) -> UnsafeModelError:
        return UnsafeModelError(message, where=self._where, found=found and found[:200])

    # what the opcodes do --------------------------------------------------------------------------

    def _push(self, value: Any) -> None:  # noqa: ANN401
        self._stack.append(check_name(value, self._where) if isinstance(value, str) else value)

    def _pop(self) -> Any:  # noqa: ANN401
        if self._marks and self._marks[-1] >= len(self._stack):
            raise self._refusal("the pickle takes what is not there")
        return self._stack.pop()

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _put(self, index: int) -> None:
        if index > self._steps:  # readers that keep an array make room for all before it
            raise self._refusal("the pickle remembers something at an absurd place", str(index))
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple_of(self, count: int) -> None:
        self._push(tuple(reversed([self._pop() for _ in range(count)])))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise self._refusal("the pickle appends to what is no list")
        target += items

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise self._refusal("the pickle sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int) or key in target:
                raise self._refusal("the pickle has a key that is no name, or occurs twice")
            target[key] = value

    def _look_up(self, name: str) -> None:
        module, _, attribute = name.rpartition(" ")
        name = f"{module}.{attribute}"
        known = name in _CALLS or name in self._classes
        known |= module == "torch" and attribute in ITEM_SIZES
        if not known:
            raise self._refusal("the pickle names what is no part of a tensor", name)
        self._stack.append(Global(name))

    def _new_object(self) -> None:
        arguments, cls = self._pop(), self._pop()
        if arguments != () or not isinstance(cls, Global) or cls.name not in self._classes:
            raise self._refusal("the pickle makes an object of an unknown class")
        self._stack.append(Object(cls.name))

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Object) and isinstance(state, dict) and not target.attributes:
            target.attributes = state
        elif not isinstance(target, dict) or not _is_version_note(state):
            raise self._refusal("the pickle sets the state of an object")
        else:
            check_plain(state, self._where)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise self._refusal("the pickle calls what is no function")
        if function.name not in _CALLS:
            raise self._refusal("the pickle calls a class", function.name)
        self._stack.append(_CALLS[function.name](self, *arguments))

    def _storage(self) -> None:
        kind, cls, key, location, count = self._pop()
        size = ITEM_SIZES[cls.name.removeprefix("torch.")]
        if kind != "storage" or not isinstance(count, int) or not isinstance(key, str):
            raise self._refusal("the pickle refers to what is no storage")
        if not re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d+)?", location):
            raise self._refusal("a storage at an unknown place", location)
        if self._sizes[key] != count * size:
            raise UnsafeModelError(
                "a tensor's size is not that of its bytes in the archive",
                where=key,
                expected=f"{count * size:,} bytes",
                found=f"{self._sizes[key]:,} bytes",
            )
        self._stack.append(Storage(key, size, count))

    def _tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool,
        hooks: dict[Any, Any],
    ) -> Tensor:
        count = elements(shape, self._where)
        spread = zip(shape, stride, strict=True)
        last = offset + sum((side - 1) * step for side, step in spread) if count else 0
        fits = offset >= 0 and min(stride, default=0) >= 0 and last < max(storage.count, 1)
        if hooks != {} or not isinstance(requires_grad, bool) or not fits or count > storage.count:
            raise self._refusal("a tensor that is not within its storage", str(shape))
        self.bytes += count * storage.item_size
        return Tensor(storage, shape)

    def _parameter(self, tensor: Tensor, requires_grad: bool, hooks: dict[Any, Any]) -> Tensor:
        if not isinstance(tensor, Tensor) or hooks != {} or not isinstance(requires_grad, bool):
            raise self._refusal("a parameter that is no tensor, or has hooks")
        return tensor

    def _dictionary(self) -> dict[Any, Any]:
        return {}

    def _plain_list(self, values: list[Any], tag: str = "") -> list[Any]:
        if not isinstance(values, list) or not isinstance(tag, str):
            raise self._refusal("a list that is none")
        return values


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": Machine._dictionary,
    "torch._utils._rebuild_tensor_v2": Machine._tensor,
    "torch._utils._rebuild_parameter": Machine._parameter,
    "torch.jit._pickle.build_intlist": Machine._plain_list,
    "torch.jit._pickle.build_doublelist": Machine._plain_list,
    "torch.jit._pickle.build_boollist": Machine._plain_list,
    "torch.jit._pickle.build_tensorlist": Machine._plain_list,
}

_OPCODES: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "MARK": lambda machine, _: machine._mark(),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
        Machine._push,
    ),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._since_mark())),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "APPEND": lambda machine, _: machine._append([machine._pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set_items([machine._pop(), machine._pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._since_mark()),
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": Machine._look_up,
    "NEWOBJ": lambda machine, _: machine._new_object(),
    "REDUCE": lambda machine, _: machine._call(),
    "BUILD": lambda machine, _: machine._build(),
    "BINPERSID": lambda machine, _: machine._storage(),
}


def check_plain(value: object, where: str) -> None:
    """Refuses containers in themselves, deep nesting, and functions in the place of values."""
    pending: list[tuple[object, int]] = [(value, 0)]
    seen: set[int] = set()
    while pending:
        item, depth = pending.pop()
        if depth > _MOST_DEPTH:
            raise UnsafeModelError("the pickle is nested too deeply", where=where)
        inner: list[object] = []
        if isinstance(item, dict):
            inner = list(item.values())
        elif isinstance(item, list | tuple):
            inner = list(item)
        elif isinstance(item, Object):
            inner = list(item.attributes.values())
        elif isinstance(item, Global | Storage):
            raise UnsafeModelError("the pickle holds more than tensors", where=where)
        if inner:
            # Once for each depth is enough, and keeps a tree of shared parts from growing.
            key = hash((id(item), depth))
            if key not in seen:
                seen.add(key)
                pending += [(each, depth + 1) for each in inner]


def _is_version_note(state: object) -> bool:
    """PyTorch notes the versions of a network's parts in an attribute of the state dict."""
    return isinstance(state, dict) and set(state) <= {"_metadata"}
