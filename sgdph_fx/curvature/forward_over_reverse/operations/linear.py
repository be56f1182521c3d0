"""Linear operations, y = A x: ẏ = A ẋ, and ġ passes back as g does.

An operation of several inputs that is linear in all of them together is one too: a concatenation, or a choice of
numbers from two tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

__all__ = ["TRANSPOSED", "by_call", "linear", "linear_vjp_tangent"]


def linear_vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Pass ġ back as g passes, by the operation's own backward."""
    return apply(bwd.node, bwd.dg)


def linear(forward: Callable[[Node, Tensor], Tensor | Sequence[Tensor]]) -> Rule:
    """Make the rule of a linear operation from what it does to its first input."""

    def jvp(fwd: ForwardNode) -> Tensors:
        tangent, *others = fwd.tangents
        if tangent is None or any(t is not None for t in others):
            return torch_jvp(fwd)
        out = forward(fwd.node, tangent)
        return [out] if isinstance(out, Tensor) else list(out)

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def by_call(name: str, *arguments: str) -> Rule:
    """Make the rule of a linear operation from its own name, given the names that its arguments are saved under.

    Args:
        name: As in ``torch.ops.aten``, with the overload where that is not the default one.
        arguments: In the order of the call, without the first, which is the tangent.
    """
    packet, _, overload = name.partition(".")
    operation: Any = getattr(torch.ops.aten, packet, None)
    if operation is None:
        return TRANSPOSED  # in another version of torch
    call = getattr(operation, overload or "default")
    return linear(lambda node, t: call(t, *(saved(node, argument) for argument in arguments)))


TRANSPOSED = Rule(torch_jvp, linear_vjp_tangent, LINEAR, owns_output=True)
"""Any linear operation, by its backward alone: Aᵀ is what autograd keeps, and A the derivative of Aᵀ g by g."""
