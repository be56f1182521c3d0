"""What the operations of a graph saved in the forward pass: simply there, or computed or fetched at each reading.

Activation checkpoints and offloading give a saved value a function that unpacks it. It may allow one reading in each
backward pass, which autograd itself needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["saved_as_it_is", "saved_tensors", "unpack_hooks"]

# Older versions of torch do not say whether a function unpacks a saved value.
_SAVED_VALUE: Any = torch._C._autograd.SavedTensor
_TELLS = hasattr(_SAVED_VALUE, "unpack_hook")


def unpack_hooks(node: Node) -> Iterator[Callable[..., Any]]:
    """The functions that unpack what an operation saved; nothing is read."""
    for name in _raw_names(type(node)):
        raw = getattr(node, name)
        for value in raw if isinstance(raw, list | tuple) else (raw,):
            hook = getattr(value, "unpack_hook", None)
            if hook is not None:
                yield hook


def saved_as_it_is(node: Node) -> bool:
    """Whether what the operation saved is simply there, and not recomputed or fetched at each reading.

    Raises:
        TypeError: if it saved a tensor that is not dense, which no rule takes.
        RuntimeError: of torch, if the graph has been used up.
    """
    found = saved_tensors(node)
    for t in found:
        if t.layout is not torch.strided:
            raise TypeError(f"it saved a tensor of layout {t.layout}")
    if _TELLS and next(unpack_hooks(node), None) is None:
        return True
    return list(map(_address, found)) == list(map(_address, saved_tensors(node)))


def saved_tensors(node: Node) -> list[Tensor]:
    """The tensors that an operation saved, each read once."""
    if not callable(node):
        return [t for t in node.saved_tensors if t is not None]  # type: ignore[attr-defined]
    values = [getattr(node, name) for name in _names(node.__class__)]
    return [value for value in values if isinstance(value, Tensor)]


@lru_cache(maxsize=1024)
def _raw_names(kind: type) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))


@lru_cache(maxsize=1024)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_saved_") and "_sym_" not in name)


def _address(t: Tensor) -> int:
    """The memory of a tensor, by its storage: tensors that only describe a device have no address of data."""
    address: int = t.untyped_storage()._cdata
    return address
