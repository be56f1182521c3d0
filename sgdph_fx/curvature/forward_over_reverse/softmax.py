"""Softmax and its logarithm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    saved_int,
    total,
)

__all__ = ["RULES"]


def _jvp_softmax(fwd: ForwardNode) -> Tensors:
    (fwd.memo,) = apply(fwd.node, fwd.tangents)  # its Jacobian is symmetric
    return [fwd.memo]


def _vjp_tangent_softmax(bwd: BackwardNode) -> Tensors:
    # by x: y (g - Σ g y)
    (g,), dy = bwd.g, bwd.fwd.memo
    y, dim = saved(bwd.node, "result"), saved_int(bwd.node, "dim")
    bent = None
    if g is not None and dy is not None:
        bent = dy * (g - (g * y).sum(dim, keepdim=True)) - y * (g * dy).sum(dim, keepdim=True)
    return [total(_passed(bwd), bent)]


def _jvp_log_softmax(fwd: ForwardNode) -> Tensors:
    (dx,) = fwd.tangents
    if dx is None:
        return [None]
    p = saved(fwd.node, "result").exp()
    fwd.memo = dx - (p * dx).sum(saved_int(fwd.node, "dim"), keepdim=True)
    return [fwd.memo]


def _vjp_tangent_log_softmax(bwd: BackwardNode) -> Tensors:
    # by x: g - p Σ g, with p = exp y
    (g,), dy = bwd.g, bwd.fwd.memo
    bent = None
    if g is not None and dy is not None:
        p, dim = saved(bwd.node, "result").exp(), saved_int(bwd.node, "dim")
        bent = -(p * dy) * g.sum(dim, keepdim=True)
    return [total(_passed(bwd), bent)]


def _passed(bwd: BackwardNode) -> Tensor | None:
    return None if bwd.dg[0] is None else apply(bwd.node, bwd.dg)[0]


RULES: Mapping[str, Rule] = {
    "LogSoftmaxBackward0": Rule(_jvp_log_softmax, _vjp_tangent_log_softmax, NONLINEAR),
    "SoftmaxBackward0": Rule(_jvp_softmax, _vjp_tangent_softmax, NONLINEAR),
    "SafeSoftmaxBackward0": Rule(_jvp_softmax, _vjp_tangent_softmax, NONLINEAR),
}
"""By node."""
