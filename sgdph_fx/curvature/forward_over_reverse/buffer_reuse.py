"""Find tangents that are read for the last time, so that an operation may write its result over them.

A feature map of tens of megabytes is taken from the system anew at each allocation, and its pages are filled with
zeros before the first number is written: that takes longer than a pass over memory that is there already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import Rule, Tensors

__all__ = ["owned_results"]


def owned_results(rule: Rule, made: Tensors, given: Tensors, writable: Sequence[bool]) -> list[bool]:
    """Of each result of an operation, whether it may be overwritten by its one reader.

    Args:
        rule: The operation's.
        made: Its results.
        given: The tangents that it had.
        writable: Of each of these, whether it was the operation's to overwrite.

    Returns:
        True for a result that fills its memory, entry by entry, and shares it with no other result, and with no
        tangent but a writable one; False for all of a rule that may give away memory of others, and where a tensor is
        of a subclass, which need not have an address.
    """
    none = [False] * len(made)
    if not rule.owns_output:
        return none
    held: list[int] = []  # by a tangent of others, or by a result; what is there twice is nobody's own
    for t, free in zip(given, writable, strict=True):
        if t is not None:
            if not _has_memory(t):
                return none
            if not free:
                held.append(t.untyped_storage().data_ptr())
    places = [-1] * len(made)
    for number, t in enumerate(made):
        if t is not None:
            if not _has_memory(t):
                return none
            places[number] = t.untyped_storage().data_ptr()
    held += places
    return [
        t is not None and held.count(place) == 1 and _fills_its_memory(t)
        for t, place in zip(made, places, strict=True)
    ]


def _has_memory(t: Tensor) -> bool:
    """Whether it is a plain tensor; a zero that autograd never filled in, for one, lies nowhere."""
    return type(t) is Tensor and t.layout is torch.strided and not t._is_zerotensor()


def _fills_its_memory(t: Tensor) -> bool:
    """Whether each number of its memory belongs to one entry: windows that overlap may be as many as their base."""
    if t.untyped_storage().nbytes() != t.numel() * t.element_size():
        return False
    return t.is_contiguous() or bool(torch._debug_has_internal_overlap(t) == _NO_OVERLAP)


_NO_OVERLAP = 0
