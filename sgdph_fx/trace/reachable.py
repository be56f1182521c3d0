"""What a run of a model may change: everything that its modules lead to.

Followed are attributes, containers, tensors with their gradients and hooks, arrays, random number generators, and the
variables of closures and defaults of functions. Not followed are classes, Python's own objects (locks, files, queues),
data sets and optimizers: they are not the model's, and other threads may be using them.
"""

from __future__ import annotations

import collections
import functools
import random
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.trace.memory import Memory, components, storage_of
from sgdph_fx.trace.saved_objects import (
    Record,
    SavedAttributes,
    SavedCell,
    SavedElements,
    SavedItems,
    SavedScript,
    SavedSlots,
    SavedState,
    SavedTensor,
)
from sgdph_fx.transform.references import is_followed, slots_of

__all__ = ["Found", "follow"]

# A handler writes down one object, and returns what it holds.
_Handler = Callable[["Found", Any], Iterable[Any]]


@dataclass(slots=True)
class Found:
    """What was found, and what each object held.

    Args:
        records: What each object held.
        memories: The memory behind the tensors, by address of the storage.
        empty: Containers that held nothing.
        seen: Every object that was written down, by its id.
    """

    records: list[Record] = field(default_factory=list)
    memories: dict[int, Memory] = field(default_factory=dict)
    empty: list[Any] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)

    def steps(self) -> Iterator[Callable[[], None]]:
        """What makes everything as it was, one step after the other; each may be repeated."""
        return self._steps(memory.put_back for memory in self.memories.values())

    def glances(self) -> Iterator[Callable[[], None]]:
        """The same, but for changes of memory that its first bytes do not show."""
        return self._steps(memory.glance for memory in self.memories.values())

    def _steps(self, of_memory: Iterable[Callable[[], None]]) -> Iterator[Callable[[], None]]:
        yield from (container.clear for container in self.empty if container)
        yield from of_memory
        yield from (record.put_back for record in self.records)

    def of_memory_alone(self) -> Found:
        """The memory behind the tensors, without anything else."""
        return Found(memories=self.memories)

    def without_results(self) -> Found:
        """All but what tensors are that a computation made: nobody holds those, and autograd forbids to undo some."""
        kept = [r for r in self.records if not (isinstance(r, SavedTensor) and r.is_result)]
        return Found(kept, self.memories, self.empty)


def follow(roots: Iterable[Any], known: Iterable[Any] = ()) -> Found:
    """Write down everything that ``roots`` lead to.

    Args:
        roots: Where to begin.
        known: Objects to leave alone, and what only they lead to.
    """
    found = Found(seen={id(value): value for value in known})
    seen, empty, handlers = found.seen, found.empty, _Handlers()
    todo: list[Iterable[Any]] = [roots]
    while todo:
        for value in todo.pop():
            handler = handlers[type(value)]
            if handler is None or id(value) in seen:
                continue
            if type(value) in _CONTAINERS and not value:
                empty.append(value)
                continue
            seen[id(value)] = value
            todo.append(handler(found, value))
    return found


def _module(found: Found, module: nn.Module) -> Iterable[Any]:
    if isinstance(module, torch.jit.ScriptModule):
        script = SavedScript(module)
        found.records.append(script)
        return (
            *script.saved.values(),
            *module._parameters.values(),
            *module._buffers.values(),
            *module.children(),
        )
    return _attributes(found, module)


def _attributes(found: Found, owner: Any) -> Iterable[Any]:
    record = SavedAttributes(owner)
    found.records.append(record)
    return record.saved.values()


def _object(found: Found, owner: Any) -> Iterable[Any]:
    kind: type = type(owner)
    slots = slots_of(kind)
    if slots:
        record = SavedSlots(owner, slots)
        found.records.append(record)
        yield from record.saved.values()
    if hasattr(owner, "__dict__"):
        yield from _attributes(found, owner)


def _dict(found: Found, owner: dict[Any, Any]) -> Iterable[Any]:
    record = SavedItems(owner)
    found.records.append(record)
    return record.saved.values()


def _elements(found: Found, owner: Any, extend: Callable[[Any, Any], object]) -> Iterable[Any]:
    record = SavedElements(owner, extend)
    found.records.append(record)
    return record.saved


def _members(found: Found, owner: Iterable[Any]) -> Iterable[Any]:
    return owner


def _nothing(found: Found, value: Any) -> Iterable[Any]:
    return ()


def _function(found: Found, function: types.FunctionType) -> Iterable[Any]:
    yield from (*(function.__closure__ or ()), *(function.__defaults__ or ()))
    yield from (function.__dict__, function.__kwdefaults__)


def _cell(found: Found, cell: types.CellType) -> Iterable[Any]:
    try:
        record = SavedCell(cell)
    except ValueError:  # a variable without a value yet
        return ()
    found.records.append(record)
    return (record.saved,)


def _method(found: Found, method: types.MethodType) -> Iterable[Any]:
    return method.__self__, method.__func__


def _partial(found: Found, partial: functools.partial[Any]) -> Iterable[Any]:
    return partial.func, partial.args, partial.keywords


def _tensor(found: Found, tensor: Tensor) -> Iterable[Any]:
    record = SavedTensor(tensor)
    found.records.append(record)
    inner = _inner(tensor)
    for part in components(tensor) if not inner else ():
        storage = storage_of(part)
        if storage is not None and storage.device.type != "meta" and storage._cdata not in found.memories:
            found.memories[storage._cdata] = Memory(storage)
    return *inner, *record.leads_to()


def _inner(tensor: Any) -> list[Tensor]:
    """The tensors that one of a wrapping class is made of."""
    if type(tensor) is Tensor or not hasattr(tensor, "__tensor_flatten__"):
        return []
    return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]


def _generator(found: Found, generator: torch.Generator) -> Iterable[Any]:
    found.records.append(SavedState(generator.get_state(), generator.set_state))
    return ()


def _python_random(found: Found, generator: random.Random) -> Iterable[Any]:
    found.records.append(SavedState(generator.getstate(), generator.setstate))
    return ()


def _numpy(found: Found, value: Any) -> Iterable[Any]:
    """An array, or one of NumPy's random number generators."""
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray):
        if value.flags.writeable:
            found.records.append(SavedState(value.copy(), functools.partial(numpy.copyto, value)))
        return value.ravel().tolist() if value.dtype.hasobject else ()
    if isinstance(value, numpy.random.RandomState):
        found.records.append(SavedState(value.get_state(), value.set_state))
    elif isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        found.records.append(SavedState(bits.state, functools.partial(setattr, bits, "state")))
    return ()


_HANDLERS: dict[type, _Handler] = {
    nn.Module: _module,
    Tensor: _tensor,
    torch.Generator: _generator,
    dict: _dict,
    list: functools.partial(_elements, extend=list.extend),
    collections.deque: functools.partial(_elements, extend=collections.deque.extend),
    set: functools.partial(_elements, extend=set.update),
    bytearray: functools.partial(_elements, extend=bytearray.extend),
    torch.Size: _nothing,
    tuple: _members,
    frozenset: _members,
    types.FunctionType: _function,
    types.MethodType: _method,
    types.CellType: _cell,
    functools.partial: _partial,
    random.Random: _python_random,
    types.SimpleNamespace: _object,
}


# Most containers of a module are empty. They are only looked at again.
_CONTAINERS = frozenset({dict, collections.OrderedDict, list, set, collections.deque})


class _Handlers(dict[type, "_Handler | None"]):
    """The handler of each class, looked for once."""

    def __missing__(self, kind: type) -> _Handler | None:
        self[kind] = _handler(kind)
        return self[kind]


def _handler(kind: type) -> _Handler | None:
    """What writes down objects of a class; None for what does not change, or is not the model's."""
    for ancestor in kind.__mro__:
        if ancestor in _HANDLERS:
            return _HANDLERS[ancestor]
    if kind.__module__.split(".")[0] == "numpy":
        return _numpy
    return _object if is_followed(kind) and not issubclass(kind, weakref.ref) else None
