"""What tells one value that Python holds from another: a recording that was made with one is not for the other."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LONGEST", "PLAIN", "VALUES", "Several", "seen"]

VALUES: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None))
PLAIN: frozenset[type] = frozenset({*VALUES, torch.dtype, torch.device})
LONGEST = 64
"""How many elements of a list or dict are looked at."""


class Place(NamedTuple):
    """Where a tensor lies, and how; and how often it was written, if kernels of a GPU take its number from a CPU."""

    address: int
    layout: tuple[object, ...]
    written: int = 0


class Identity(NamedTuple):
    """Which object it is."""

    number: int


class Elements(tuple[Any, ...]):
    """Plain values of a list or dict.

    One that has grown at its end counts as the same: it is a record of what was, and nothing is computed from it.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elements) and all(a == b for a, b in zip(self, other, strict=False))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class Several(NamedTuple):
    """What code may read of each object in a list or dict: names and values."""

    each: tuple[tuple[tuple[str, Any], ...], ...]


def seen(value: Any, *, on_gpu: bool) -> object:
    """What tells one value from another that Python would compute something else from.

    Args:
        value: The value.
        on_gpu: Whether the step runs on another device than the CPU.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _place(value, on_gpu)
    if type(value) is OrderedDict:  # hooks, by their numbers
        return tuple(value)
    if isinstance(value, Several):
        return Elements(tuple((name, seen(part, on_gpu=on_gpu)) for name, part in one) for one in value.each)
    if isinstance(value, (list, tuple, dict)) and len(value) <= LONGEST:
        held = (*value, *value.values()) if isinstance(value, dict) else tuple(value)
        if PLAIN.issuperset(map(type, held)):
            return held if isinstance(value, tuple) else Elements(held)
    return value if isinstance(value, (int, float, str)) else Identity(id(value))


def _place(tensor: Tensor, on_gpu: bool) -> Place | Identity:
    if tensor.layout is not torch.strided:
        return Identity(id(tensor))
    counted = on_gpu and tensor.device.type == "cpu" and not tensor.is_inference()
    layout = tensor.dtype, tensor.shape, tensor.stride()
    return Place(tensor.data_ptr(), layout, tensor._version if counted else 0)
