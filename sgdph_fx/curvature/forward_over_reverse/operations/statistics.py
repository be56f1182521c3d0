"""Variance and standard deviation, with or without the mean beside them.

With n numbers in a row, the correction k and c = 2 / (n - k), the variance is y = (c / 2) Σ (x - μ)², so that
ẏ = c Σ (x - μ) ẋ, and its gradient c g (x - μ) has the tangent c ġ (x - μ) + c g (ẋ - mean ẋ). The standard deviation
s = √y has ṡ = ẏ / 2s, and the gradient c g (x - μ) / 2s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
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


@dataclass(frozen=True, slots=True)
class _Spread:
    """One application: x - μ, the dimensions reduced, and c."""

    centred: Tensor
    dims: list[int]
    keepdim: bool
    c: float

    @classmethod
    def of(cls, node: Node) -> _Spread:
        x = saved(node, "self")
        dims = reduced_dims(node, x.dim())
        count = math.prod(x.shape[d] for d in dims)
        given = saved(node, "correction")
        left = count - (1 if given is None else given)
        return cls(
            x - x.mean(dims, keepdim=True), dims, saved(node, "keepdim"), 2 / left if left > 0 else math.nan
        )

    def sum(self, t: Tensor) -> Tensor:
        return t.sum(self.dims, keepdim=self.keepdim)

    def mean(self, t: Tensor) -> Tensor:
        return t.mean(self.dims, keepdim=self.keepdim)


def _variance(with_mean: bool) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        (dx,) = fwd.tangents
        if dx is None:
            return [None, None][: 1 + with_mean]
        spread = _Spread.of(fwd.node)
        dy = spread.sum(spread.centred * dx) * spread.c
        return [dy, spread.mean(dx)] if with_mean else [dy]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        g, (dx,) = bwd.g[0], bwd.tangents
        spread = _Spread.of(bwd.node)
        bent = None
        if g is not None and dx is not None:
            bent = widened(bwd.node, g * spread.c, dx.dim()) * (dx - dx.mean(spread.dims, keepdim=True))
        return _with_passed(bwd, bent)

    return Rule(jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _deviation(result: str, with_mean: bool) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        (dx,) = fwd.tangents
        if dx is None:
            return [None, None][: 1 + with_mean]
        spread = _Spread.of(fwd.node)
        fwd.memo = spread.sum(spread.centred * dx) * _over(spread.c / 2, saved(fwd.node, result))
        return [fwd.memo, spread.mean(dx)] if with_mean else [fwd.memo]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        g, (dx,), ds = bwd.g[0], bwd.tangents, bwd.fwd.memo
        spread = _Spread.of(bwd.node)
        bent = None
        if g is not None and dx is not None:
            scale = _over(1, saved(bwd.node, result))
            turned = spread.centred * widened(bwd.node, ds * scale, dx.dim())
            moved = (dx - dx.mean(spread.dims, keepdim=True)).sub_(turned)
            bent = moved.mul_(widened(bwd.node, g * scale * (spread.c / 2), dx.dim()))
        return _with_passed(bwd, bent)

    return Rule(jvp, vjp_tangent, NONLINEAR)


def _over(factor: float, deviation: Tensor) -> Tensor:
    """Compute factor / s, or 0 where s is 0: autograd takes the gradient as 0 there."""
    return (factor / deviation).masked_fill_(deviation == 0, 0)


def _with_passed(bwd: BackwardNode, bent: Tensor | None) -> Tensors:
    passed = apply(bwd.node, bwd.dg)[0] if any(t is not None for t in bwd.dg) else None
    return [bent if passed is None else passed if bent is None else passed + bent]


RULES: Mapping[str, Rule] = {
    "StdBackward0": _deviation("result", with_mean=False),
    "StdMeanBackward0": _deviation("result0", with_mean=True),
    "VarBackward0": _variance(with_mean=False),
    "VarMeanBackward0": _variance(with_mean=True),
}
"""Node ↦ rule."""
