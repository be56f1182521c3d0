"""Selective activation checkpoints, whose region torch allows one backward pass through.

Reading what an operation in such a region saved, once outside of the backward pass, uses that one up, and not even the
gradients could be had. So they are recognized without reading: a saved tensor gives away the function that unpacks it,
and that holds the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.curvature.saved_values import unpack_hooks
from sgdph_fx.errors import NoCurvatureError

__all__ = ["refuse_selective_checkpoints"]


def refuse_selective_checkpoints(among: Iterable[Node]) -> None:
    """Refuse them before anything is read.

    Args:
        among: Operations that a product would pass.

    Raises:
        NoCurvatureError: if one of them lies in such a region.
    """
    known: dict[int, bool] = {}
    for node in among:
        for unpack in unpack_hooks(node):
            if _is_selective(unpack, known):
                raise NoCurvatureError(
                    f"{type(node).__name__} lies in a selective activation checkpoint (context_fn of "
                    "torch.utils.checkpoint), which torch allows one backward pass through, and curvature takes a "
                    "second. Use a checkpoint without context_fn, or put the parameters inside and below it into a "
                    "group with order=1."
                )


def _is_selective(unpack: Any, known: dict[int, bool]) -> bool:
    frame = _enclosed(unpack).get("frame")
    if frame is None:
        return False
    if id(frame) not in known:
        context = _enclosed(getattr(frame, "recompute_fn", None)).get("recompute_context")
        known[id(frame)] = isinstance(context, TorchDispatchMode)
    return known[id(frame)]


def _enclosed(function: Any) -> dict[str, Any]:
    """What a function written in Python has closed over, by name."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    names = () if code is None else code.co_freevars
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True) if _is_filled(cell)}


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
