"""Linear operations, y = A x: ẏ = A ẋ, and ġ passes back as g does.

An operation with several inputs counts if it is linear in all of them together, such as a concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["TRANSPOSED", "by_call", "linear", "linear_vjp_tangent", "part_by_call"]


def linear_vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Pass ġ back as g passes, by the operation's own backward."""
    return apply(bwd.node, bwd.dg)


def linear(forward: Callable[[Node, Tensor], Tensor | Sequence[Tensor]]) -> Rule:
    """Make the rule of a linear operation, given what it does to its first input."""

    def jvp(fwd: ForwardNode) -> Tensors:
        tangent, *others = fwd.tangents
        if tangent is None or any(t is not None for t in others):
            return torch_jvp(fwd)
        out = forward(fwd.node, tangent)
        return [out] if isinstance(out, Tensor) else list(out)

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def by_call(name: str, *arguments: str) -> Rule:
    """Make the rule of a linear operation that can simply be called again, on the tangent.

    Args:
        name: Its name in ``torch.ops.aten``, with the overload unless that is the default one.
        arguments: The names under which autograd saves the arguments after the first, in order.
    """
    call = _call(name, arguments)
    return TRANSPOSED if call is None else linear(call)


def part_by_call(name: str, *arguments: str) -> Rule:
    """As :func:`by_call`, for an operation that returns a view of a part of its input."""
    return replace(by_call(name, *arguments), part=_call(name, arguments))


def _call(name: str, arguments: Sequence[str]) -> Callable[[Node, Tensor], Tensor] | None:
    """The operation as it was called, but for its first argument; None if this version of torch does not have it."""
    packet, _, overload = name.partition(".")
    operation: Any = getattr(torch.ops.aten, packet, None)
    if operation is None:
        return None
    call = getattr(operation, overload or "default")
    return lambda node, t: call(t, *(saved(node, argument) for argument in arguments))


TRANSPOSED = Rule(torch_jvp, linear_vjp_tangent, LINEAR, owns_output=True)
"""The rule of any linear operation, by its backward alone: that computes Aᵀ g, whose derivative by g is A."""
