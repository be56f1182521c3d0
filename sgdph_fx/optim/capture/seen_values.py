"""What tells one value that Python holds from another: a recording that was made with one is not for the other."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LONGEST", "PLAIN", "VALUES", "Elements", "Place", "Several", "drawn_from", "seen"]

VALUES: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None))
PLAIN: frozenset[type] = frozenset({*VALUES, torch.dtype, torch.device})
LONGEST = 64
"""How many elements of a list or dict are looked at."""
_LARGEST = 4096


class Place(NamedTuple):
    """Where a tensor lies, and how; and how often it was written, if kernels of a GPU take its number from a CPU."""

    address: int
    layout: tuple[object, ...]
    written: int = 0


class Identity(NamedTuple):
    """Which object it is."""

    number: int


class Elements(tuple[Any, ...]):
    """What a list or dict holds."""

    __slots__ = ()

    def is_record_after(self, before: object) -> bool:
        """Whether it may have come from ``before`` by keeping what there was: tensors in place of others, or more.

        Nothing is computed from such a record: numbers that are others in the same place are no record.
        """
        return isinstance(before, Elements) and all(
            new == old or (isinstance(new, Place) and isinstance(old, Place))
            for new, old in zip(self, before, strict=False)
        )


class Several(NamedTuple):
    """What code may read of each object in a list or dict: names and values."""

    each: tuple[tuple[tuple[str, Any], ...], ...]


def drawn_from(value: Any) -> object:
    """The state of the generator that a function draws from, as ``random.random`` does; None for other functions."""
    return _state(getattr(value, "__self__", None), on_gpu=False)


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
    if isinstance(value, (list, tuple, dict, deque)):
        return _of_elements(value, on_gpu)
    if isinstance(value, (set, frozenset)):
        return frozenset(value) if PLAIN.issuperset(map(type, value)) else Identity(id(value))
    if isinstance(value, (int, float, str)):
        return value
    state = _state(value, on_gpu)
    return Identity(id(value)) if state is None else state


def _of_elements(value: Any, on_gpu: bool) -> object:
    held = (*value, *value.values()) if isinstance(value, dict) else tuple(value)
    if len(value) > LONGEST:
        return Identity(id(value))
    if not PLAIN.issuperset(map(type, held)):
        held = tuple(
            part
            if type(part) in PLAIN
            else _place(part, on_gpu)
            if isinstance(part, Tensor)
            else Identity(id(part))
            for part in held
        )
    return held if isinstance(value, tuple) else Elements(held)


def _state(value: Any, on_gpu: bool) -> object:
    """The state of what is drawn from, and the numbers of NumPy's arrays; None for anything else."""
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, torch.Generator):
        on_host = on_gpu and value.device.type == "cpu"
        return value.get_state().numpy().tobytes() if on_host else None
    numpy = sys.modules.get("numpy")
    if numpy is None or not str(type(value).__module__).startswith("numpy"):
        return None
    if isinstance(value, numpy.ndarray):
        return (value.shape, value.dtype.str, value.tobytes()) if value.size <= _LARGEST else None
    if isinstance(value, numpy.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, numpy.random.RandomState):
        _, keys, *rest = value.get_state()
        return (keys.tobytes(), *rest)
    return None


def _place(tensor: Tensor, on_gpu: bool) -> Place | Identity:
    if tensor.layout is not torch.strided:
        return Identity(id(tensor))
    counted = on_gpu and tensor.device.type == "cpu" and not tensor.is_inference()
    layout = tensor.dtype, tensor.shape, tensor.stride()
    return Place(tensor.data_ptr(), layout, tensor._version if counted else 0)
