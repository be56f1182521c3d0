"""Every tensor in what a model returns, whatever it is packed in."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["tensors_in"]

# Not followed: numbers, code, and modules, whose parameters are no output.
_ATOMS = (int, float, complex, str, bytes, type(None), type, types.FunctionType, types.ModuleType, nn.Module)


def tensors_in(value: Any) -> dict[str, Tensor]:
    """The tensors in ``value`` by the way to each of them.

    Followed are lists, tuples, mappings, data classes and all other objects with attributes, such as a
    distribution.

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
        if isinstance(part, Tensor):
            found[way] = part
        else:
            todo.extend(reversed([(way + step, held) for step, held in _held(part)]))
    return found


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", held) for key, held in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{place}]", held) for place, held in enumerate(value))
    names = {name for kind in type(value).__mro__ for name in _slots(kind)}
    for name in [*sorted(names), *getattr(value, "__dict__", ())]:
        if hasattr(value, name):
            yield f".{name}", getattr(value, name)


def _slots(kind: type) -> tuple[str, ...]:
    own = kind.__dict__.get("__slots__", ())
    return (own,) if isinstance(own, str) else tuple(own)
