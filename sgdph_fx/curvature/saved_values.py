"""What the operations of a graph saved in the forward pass: simply there, or computed or fetched at each reading.

Activation checkpoints and offloading give a saved value a function that unpacks it. It may allow one reading in each
backward pass, which autograd itself needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.checkpoint import checkpoint

__all__ = ["is_packed", "require_dense", "saved_as_it_is", "unpack_hooks"]

# Older versions of torch do not say whether a function unpacks a saved value.
_SAVED_VALUE: Any = torch._C._autograd.SavedTensor
_TELLS = hasattr(_SAVED_VALUE, "unpack_hook")


def unpack_hooks(node: Node) -> list[Callable[..., Any]]:
    """The functions that unpack what an operation saved; nothing is read."""
    found = []
    for raw in _reader(type(node), "_raw_saved_")(node):
        for value in raw if type(raw) in _SEVERAL else (raw,):
            hook = getattr(value, "unpack_hook", None)
            if hook is not None:
                found.append(hook)
    return found


_SEVERAL = (list, tuple)


def is_packed(node: Node) -> bool:
    """Whether a function unpacks something that the operation saved, or torch does not tell."""
    return not _TELLS or bool(unpack_hooks(node))


def saved_as_it_is(node: Node) -> bool:
    """Whether what the operation saved is simply there, and not recomputed or fetched at each reading.

    Raises:
        RuntimeError: of torch, if the graph has been used up, or a tensor has no memory.
    """
    # Each reading would run the part of the model again, and its batch norms count that.
    if any(getattr(hook, "__module__", "") == checkpoint.__module__ for hook in unpack_hooks(node)):
        return False
    return list(map(_address, _saved_tensors(node))) == list(map(_address, _saved_tensors(node)))


def require_dense(node: Node) -> None:
    """Refuse what no rule takes, and a graph that has been used up.

    Raises:
        TypeError: if the operation saved a tensor that is not dense.
        RuntimeError: of torch, if the graph has been used up.
    """
    for t in _saved_tensors(node):
        if t.layout is not torch.strided:
            raise TypeError(f"it saved a tensor of layout {t.layout}")


def _saved_tensors(node: Node) -> list[Tensor]:
    """The tensors that an operation saved, each read once."""
    if not callable(node):
        return [t for t in node.saved_tensors if t is not None]  # type: ignore[attr-defined]
    return [value for value in _reader(type(node), "_saved_")(node) if isinstance(value, Tensor)]


@lru_cache(maxsize=2048)
def _reader(kind: type, prefix: str) -> Callable[[Node], tuple[Any, ...]]:
    """What reads the tensors that operations of a kind save: in one call, as each product asks each operation.

    Args:
        kind: The type of a node.
        prefix: ``_saved_`` for the tensors, ``_raw_saved_`` for what has not been unpacked.
    """
    # Only tensors have a name for what has not been unpacked.
    raw = [name for name in dir(kind) if name.startswith("_raw_saved_")]
    names = [name.replace("_raw_saved_", prefix, 1) for name in raw]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda node: tuple(getattr(node, name) for name in names)


def _address(t: Tensor) -> int:
    """The memory of a tensor, by its storage: tensors that only describe a device have no address of data."""
    address: int = t.untyped_storage()._cdata
    return address
