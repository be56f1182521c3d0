"""What each kind of mutable object held, and how it is put back. Every ``put_back`` may be run twice."""

from __future__ import annotations

import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sgdph_fx.trace.memory import components, storage_of

__all__ = [
    "Record",
    "SavedAttributes",
    "SavedCell",
    "SavedElements",
    "SavedItems",
    "SavedScript",
    "SavedSlots",
    "SavedState",
    "SavedTensor",
]


class Record(Protocol):
    """What one object held."""

    def put_back(self) -> None:
        """Make it what it was; does nothing if nothing changed."""


class SavedAttributes:
    """The class and the ``__dict__`` of an object."""

    __slots__ = ("_kind", "_owner", "saved")

    def __init__(self, owner: Any) -> None:
        self._owner, self._kind = owner, type(owner)
        self.saved: dict[str, Any] = dict(owner.__dict__)

    def put_back(self) -> None:
        """Set the class and each attribute that changed."""
        if type(self._owner) is not self._kind:
            object.__setattr__(self._owner, "__class__", self._kind)
        _set_items(self._owner.__dict__, self.saved)


class SavedSlots:
    """The ``__slots__`` of an object."""

    __slots__ = ("_owner", "saved")

    def __init__(self, owner: Any, names: tuple[str, ...]) -> None:
        self._owner = owner
        self.saved = {name: getattr(owner, name, _MISSING) for name in names}

    def put_back(self) -> None:
        """Set or delete each slot that changed."""
        for name, value in self.saved.items():
            if getattr(self._owner, name, _MISSING) is value:
                continue
            if value is _MISSING:
                object.__delattr__(self._owner, name)
            else:
                object.__setattr__(self._owner, name, value)


class SavedItems:
    """The items of a dictionary."""

    __slots__ = ("_owner", "saved")

    def __init__(self, owner: dict[Any, Any]) -> None:
        self._owner, self.saved = owner, dict(_base(owner).items(owner))

    def put_back(self) -> None:
        """Set the items and their order."""
        _set_items(self._owner, self.saved)


class SavedElements:
    """The elements of a list, a deque, a set or a bytearray."""

    __slots__ = ("_extend", "_owner", "saved")

    def __init__(self, owner: Any, extend: Callable[[Any, Any], object]) -> None:
        self._owner, self._extend, self.saved = owner, extend, tuple(owner)

    def put_back(self) -> None:
        """Empty it and fill it again, if an element changed."""
        if not _same(tuple(self._owner), self.saved):
            self._owner.clear()
            self._extend(self._owner, self.saved)


class SavedCell:
    """What a variable that a function closes over is bound to."""

    __slots__ = ("_owner", "saved")

    def __init__(self, owner: types.CellType) -> None:
        self._owner, self.saved = owner, owner.cell_contents

    def put_back(self) -> None:
        """Bind the variable again."""
        self._owner.cell_contents = self.saved


class SavedState:
    """The state of a random number generator or of an array, by a function that writes it."""

    __slots__ = ("_saved", "_write")

    def __init__(self, saved: Any, write: Callable[[Any], object]) -> None:
        self._saved, self._write = saved, write

    def put_back(self) -> None:
        """Write the state."""
        self._write(self._saved)


class SavedScript:
    """The attributes of a TorchScript module, which it keeps outside of Python."""

    __slots__ = ("_owner", "saved")

    def __init__(self, owner: torch.jit.ScriptModule) -> None:
        self._owner = owner
        concrete = getattr(owner, "_concrete_type", None)
        names = concrete.get_attributes() if concrete is not None else ()
        held = {*owner._parameters.keys(), *owner._buffers.keys()}
        self.saved = {name: owner._c.getattr(name) for name in names if name not in held}

    def put_back(self) -> None:
        """Set each attribute that changed."""
        for name, value in self.saved.items():
            now = self._owner._c.getattr(name)
            if now is not value:
                self._owner._c.setattr(name, value)


class SavedTensor:
    """What a tensor is, beside the numbers in its memory: layout, gradient, hooks, flags, version."""

    __slots__ = ("_alias", "_grad", "_grad_fn", "_hooks", "_layout", "_requires_grad", "_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        # It has a layout of its own on the same memory; where there is none to be seen, it has a copy.
        self._alias = tensor.clone() if _is_opaque(tensor) else tensor.detach()
        self._layout = _layout(tensor)
        self._requires_grad, self._grad_fn = tensor.requires_grad, tensor.grad_fn
        self._grad = tensor.grad if tensor.is_leaf else None
        self._hooks = {name: getattr(tensor, name) for name in _TENSOR_HOOKS}
        self._version = None if tensor.is_inference() else tensor._version

    @property
    def is_result(self) -> bool:
        """Whether a computation made it, be it only a view."""
        return self._grad_fn is not None or self._tensor._is_view()

    def leads_to(self) -> Iterator[Any]:
        """What it holds: its gradient, its hooks, the attributes that somebody gave it."""
        yield self._grad
        yield from self._hooks.values()
        yield self._tensor.__dict__

    def put_back(self) -> None:
        """Set all of it that changed.

        Raises:
            ValueError: if it has become the result of another computation.
        """
        tensor = self._tensor
        if tensor.grad_fn is not self._grad_fn:
            if self._grad_fn is not None:
                raise ValueError("a tensor became the result of another computation")
            tensor.detach_()
        if _layout(tensor) != self._layout:
            tensor.data = self._alias.clone() if _is_opaque(tensor) else self._alias
        if tensor.requires_grad is not self._requires_grad:
            tensor.requires_grad_(self._requires_grad)
        if tensor.is_leaf and tensor.grad is not self._grad:
            tensor.grad = self._grad
        for name, hooks in self._hooks.items():
            if getattr(tensor, name) is not hooks:
                setattr(tensor, name, hooks)
        # Its numbers are those of before, so a graph from before may still be differentiated.
        if self._version is not None and tensor._version != self._version:
            torch._C._autograd._unsafe_set_version_counter((tensor,), (self._version,))


_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_MISSING = object()


def _base(owner: dict[Any, Any]) -> type[dict[Any, Any]]:
    """The class whose methods do what a dictionary does, whatever a subclass makes of them."""
    return OrderedDict if isinstance(owner, OrderedDict) else dict


def _set_items(owner: dict[Any, Any], saved: Mapping[Any, Any]) -> None:
    base = _base(owner)
    if len(owner) == len(saved) and not (
        any(map(operator.is_not, base.values(owner), saved.values()))
        or any(map(operator.is_not, base.keys(owner), saved))
    ):
        return
    base.clear(owner)
    for key, value in saved.items():
        base.__setitem__(owner, key, value)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """What memory ``tensor`` reads, and in which way."""
    if tensor.is_nested and tensor.layout is torch.strided:
        return (object(),)  # it does not say: equal to no other
    parts = map(_place, components(tensor))
    return tensor.shape, tensor.dtype, tensor.layout, tensor.device, *parts


def _place(tensor: Tensor) -> tuple[Any, ...]:
    storage = storage_of(tensor)
    if storage is None:
        return (object(),)
    return storage._cdata, tensor.storage_offset(), tensor.stride(), tensor.is_conj(), tensor.is_neg()


def _is_opaque(tensor: Tensor) -> bool:
    return any(storage_of(part) is None for part in components(tensor))
