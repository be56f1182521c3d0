"""How many numbers each output of a weight is a sum of, and how many outputs each input goes to."""

from __future__ import annotations

import math

from torch import nn

from sgdph_fx.plan.entries import ParameterEntry
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of

__all__ = ["fans_of"]

# Weights of these modules have inputs first and outputs second.
_INPUTS_FIRST = ("Conv1D",)


def fans_of(entry: ParameterEntry, kind: str, owner: nn.Module) -> tuple[int | None, int | None]:
    """Fan-in and fan-out of a weight; None for what is no matrix, and for matrices whose sides cannot be told.

    A convolution counts the places of its kernel; of a transposed one and with groups, too, fan-in is what one output
    number is a sum of. An embedding has one number of its table's rows in, and its width out.
    """
    shape = entry.shape
    if kind in ("embedding", "tied-embedding") and len(shape) == 2:
        return shape
    rule = rule_of(owner)
    if isinstance(rule, Conv) and len(shape) == rule.dims + 2:
        return _of_convolution(shape, rule, int(getattr(owner, "groups", 1)))
    if len(shape) == 2 and kind in ("linear", "head", "attention-qkv", "recurrent", "router", "direction"):
        return shape if type(owner).__name__ in _INPUTS_FIRST else (shape[1], shape[0])
    if kind == "convolution" and len(shape) > 2:
        return _of_convolution(shape, Conv(len(shape) - 2), 1)
    return None, None


def _of_convolution(shape: tuple[int, ...], rule: Conv, groups: int) -> tuple[int, int]:
    first, second, *kernel = shape
    places = math.prod(kernel)
    if rule.transposed:
        return first // groups * places, second * places
    return second * places, first // groups * places
