"""What an object refers to, as far as it belongs to a model."""

from __future__ import annotations

import collections
import functools
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["everything", "is_followed", "referents", "slots_of"]

# These classes and their subclasses are not the model's, and other threads may be using them.
_OTHERS = ("torch.utils.data", "torch.optim", "torch.fx.graph", "torch.fx.node")
_CONTAINERS = (list, tuple, set, frozenset, collections.deque)


def everything(roots: Iterable[Any]) -> Iterator[Any]:
    """All objects that ``roots`` lead to, each once, ``roots`` first."""
    seen: dict[int, Any] = {}
    todo: list[Iterable[Any]] = [roots]
    while todo:
        for value in todo.pop():
            kind: type = type(value)
            if is_followed(kind) and id(value) not in seen:
                seen[id(value)] = value
                yield value
                todo.append(referents(value))


def referents(value: Any) -> Iterator[Any]:
    """What ``value`` refers to: attributes, keys, elements, a function's defaults and the variables it closes over."""
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, _CONTAINERS):
        yield from value
    elif isinstance(value, types.FunctionType):
        yield from (*(value.__closure__ or ()), *(value.__defaults__ or ()))
        yield from (value.__kwdefaults__ or {}).values()
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.CellType):
        yield from _content(value)
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, Tensor):
        yield from (value._backward_hooks, value.grad if value.is_leaf else None)
    yield from (getattr(value, name) for name in _slots(value))
    yield from getattr(value, "__dict__", {}).values()


def _content(cell: types.CellType) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:  # a variable without a value yet
        return


@functools.cache
def is_followed(kind: type) -> bool:
    """Whether objects of a class belong to a model, or lead to what does.

    Numbers and classes do not, nor do Python's own objects (locks, files, queues), data sets and optimizers.
    """
    if issubclass(kind, (torch.nn.Module, Tensor, *_LEADING)):
        return True
    if issubclass(kind, type) or any(ancestor.__module__.startswith(_OTHERS) for ancestor in kind.__mro__):
        return False
    room = kind.__module__.split(".")[0]
    return room != "torch" and room not in sys.stdlib_module_names


_LEADING = (
    dict,
    *_CONTAINERS,
    types.FunctionType,
    types.MethodType,
    types.CellType,
    types.SimpleNamespace,
    weakref.ref,
    functools.partial,
    functools._lru_cache_wrapper,
)


def _slots(value: Any) -> Iterator[str]:
    kind: type = type(value)
    return (name for name in slots_of(kind) if hasattr(value, name))


@functools.cache
def slots_of(kind: type) -> tuple[str, ...]:
    """The names under which a class and its ancestors keep what is not in ``__dict__``."""
    return tuple(
        _mangled(ancestor, name)
        for ancestor in kind.__mro__
        if ancestor.__module__ not in ("builtins", "functools", "collections")
        for name in _names(ancestor.__dict__.get("__slots__", ()))
        if name not in ("__dict__", "__weakref__")
    )


def _names(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _mangled(kind: type, name: str) -> str:
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if is_private else name
