"""Norms of vectors, y = ‖x‖ over some dimensions.

Of order 2: ẏ = Σ x ẋ / y, and the gradient g x / y has the tangent ġ x / y + g (ẋ - x ẏ / y) / y. Norms of
order 0, 1 and ∞ are linear wherever they have a derivative; torch's second derivative is used for all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.linear import linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.reduction import reduced_dims, widened
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]


def _norm(order_name: str) -> Rule:
    def order(node: Node) -> float:
        given = saved(node, order_name)
        return 2.0 if given is None else float(given)

    def jvp(fwd: ForwardNode) -> Tensors:
        (dx,), node = fwd.tangents, fwd.node
        x, y = saved(node, "self"), saved(node, "result")
        if dx is None or order(node) != 2 or x.dtype != y.dtype:
            return torch_jvp(fwd)
        along = (x * dx).sum(reduced_dims(node, x.dim()), keepdim=saved(node, "keepdim"))
        fwd.memo = along.div_(y).masked_fill_(y == 0, 0)
        return [fwd.memo]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        (g,), (dx,), dy, node = bwd.g, bwd.tangents, bwd.fwd.memo, bwd.node
        if order(node) in (0, 1, math.inf, -math.inf):
            return linear_vjp_tangent(bwd)
        if dy is None:
            return torch_vjp_tangent(bwd)
        passed = None if bwd.dg[0] is None else apply(node, bwd.dg)[0]
        if g is None or dx is None:
            return [passed]
        x, y = saved(node, "self"), saved(node, "result")
        scale = (1 / y).masked_fill_(y == 0, 0)
        turned = x * widened(node, dy * scale, x.dim())
        bent = (dx - turned).mul_(widened(node, g * scale, x.dim()))
        return [bent if passed is None else bent.add_(passed)]

    return Rule(jvp, vjp_tangent, NONLINEAR)


RULES: Mapping[str, Rule] = {
    "LinalgVectorNormBackward0": _norm("ord"),
    "NormBackward1": _norm("p"),
}
"""Node ↦ rule."""
