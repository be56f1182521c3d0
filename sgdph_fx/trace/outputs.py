"""Every tensor in what a model returns, whatever it is packed in."""

from __future__ import annotations

import collections
import sys
import types
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["tensors_in"]

# Not followed: numbers, code, and modules, whose parameters are no output.
_ATOMS = (int, float, complex, str, bytes, type(None), type, types.FunctionType, types.ModuleType, nn.Module)
_SEQUENCES = (list, tuple, collections.deque, KeysView, ValuesView, ItemsView)


def tensors_in(value: Any) -> dict[str, Tensor]:
    """The tensors in ``value`` by the way to each of them.

    Followed are lists, tuples, queues, mappings, data classes and all other objects with attributes, such as a
    distribution. NumPy's arrays of numbers count as tensors, and a tensor that wraps others counts as those.

    >>> import torch
    >>> list(tensors_in({"scores": torch.zeros(2), "boxes": [torch.zeros(4)]}))
    ["['scores']", "['boxes'][0]"]
    """
    found: dict[str, Tensor] = {}
    seen: dict[int, Any] = {}
    todo = [("", value)]
    while todo:
        way, part = todo.pop()
        if isinstance(part, _ATOMS) or id(part) in seen:
            continue
        seen[id(part)] = part
        tensor = _as_tensor(part)
        if tensor is None:
            todo.extend(reversed([(way + step, held) for step, held in _held(part)]))
        else:
            found[way] = tensor
    return found


def _as_tensor(value: Any) -> Tensor | None:
    """``value`` as one tensor that can be calculated with; None if it only holds some."""
    if isinstance(value, Tensor):
        return None if _wraps_others(value) else value
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    try:
        return torch.as_tensor(numpy.array(value))
    except TypeError:  # objects, text, dates
        return None


def _wraps_others(tensor: Tensor) -> bool:
    """Whether a tensor has no numbers of its own, as a masked one, and may not even allow to calculate with them."""
    dispatch = type(tensor).__torch_dispatch__
    return dispatch is not Tensor.__torch_dispatch__ and not tensor.is_nested and bool(vars(tensor))


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", held) for key, held in value.items())
    elif isinstance(value, _SEQUENCES) or _holds_objects(value):
        yield from ((f"[{place}]", held) for place, held in enumerate(value))
    names = {name for kind in type(value).__mro__ for name in _slots(kind)}
    for name in [*sorted(names), *getattr(value, "__dict__", ())]:
        if hasattr(value, name):
            yield f".{name}", getattr(value, name)


def _holds_objects(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.hasobject


def _slots(kind: type) -> tuple[str, ...]:
    own = kind.__dict__.get("__slots__", ())
    return (own,) if isinstance(own, str) else tuple(own)
