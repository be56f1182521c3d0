"""Softmax, its logarithm, and the logarithm of a sum of exponentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.operations.reduction import reduced_dims, widened
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)

__all__ = ["RULES", "softmax_jacobian"]


def softmax_jacobian(y: Tensor, u: Tensor, dim: int = -1) -> Tensor:
    """Compute J u = y (u - Σ y u); the Jacobian J is symmetric, so forward and backward are the same."""
    call: Any = torch.ops.aten._softmax_backward_data.default
    through: Tensor = call(u.to(y.dtype), y, dim, y.dtype)
    return through


def _jvp_softmax(fwd: ForwardNode) -> Tensors:
    (dx,) = fwd.tangents
    fwd.memo = None if dx is None else softmax_jacobian(saved(fwd.node, "result"), dx, saved(fwd.node, "dim"))
    return [fwd.memo]


def _vjp_tangent_softmax(bwd: BackwardNode) -> Tensors:
    # by x: y (g - Σ g y)
    (g,), dy = bwd.g, bwd.fwd.memo
    y, dim = saved(bwd.node, "result"), saved(bwd.node, "dim")
    bent = None
    if g is not None and dy is not None:
        bent = dy * (g - (g * y).sum(dim, keepdim=True)) - y * (g * dy).sum(dim, keepdim=True)
    return [total(_passed(bwd), bent)]


def _jvp_log_softmax(fwd: ForwardNode) -> Tensors:
    (dx,) = fwd.tangents
    if dx is None:
        return [None]
    p = saved(fwd.node, "result").exp()
    fwd.memo = dx - (p * dx).sum(saved(fwd.node, "dim"), keepdim=True)
    return [fwd.memo]


def _vjp_tangent_log_softmax(bwd: BackwardNode) -> Tensors:
    # by x: g - p Σ g, with p = exp y
    (g,), dy = bwd.g, bwd.fwd.memo
    bent = None
    if g is not None and dy is not None:
        p, dim = saved(bwd.node, "result").exp(), saved(bwd.node, "dim")
        bent = -(p * dy) * g.sum(dim, keepdim=True)
    return [total(_passed(bwd), bent)]


def _jvp_log_sum_exp(fwd: ForwardNode) -> Tensors:
    (dx,), node = fwd.tangents, fwd.node
    if dx is None:
        return [None]
    x = saved(node, "self")
    y = widened(node, saved(node, "result"), x.dim())
    fwd.memo = ((x - y).exp_() * dx).sum(reduced_dims(node, x.dim()), keepdim=saved(node, "keepdim"))
    return [fwd.memo]


def _vjp_tangent_log_sum_exp(bwd: BackwardNode) -> Tensors:
    # by x: p g, with p = exp(x - y)
    (g,), (dx,), dy, node = bwd.g, bwd.tangents, bwd.fwd.memo, bwd.node
    bent = None
    if g is not None and dx is not None:
        x = saved(node, "self")
        p = (x - widened(node, saved(node, "result"), x.dim())).exp_()
        bent = p.mul_(widened(node, g, x.dim())).mul_(dx - widened(node, dy, x.dim()))
    return [total(_passed(bwd), bent)]


def _jvp_log_cumulative(fwd: ForwardNode) -> Tensors:
    (dx,), node = fwd.tangents, fwd.node
    if dx is None:
        return [None]
    x, y, dim = (saved(node, name) for name in ("self", "result", "dim"))
    # Positive and negative parts, as logarithms, so that no exponential overflows.
    parts = (torch.logcumsumexp(x + part.clamp(min=0).log(), dim) for part in (dx, -dx))
    positive, negative = ((part - y).exp_() for part in parts)
    fwd.memo = positive - negative
    return [fwd.memo]


def _vjp_tangent_log_cumulative(bwd: BackwardNode) -> Tensors:
    # by x_j: Σ g_i p_ij over i ≥ j, with p_ij = exp(x_j - y_i), so that ṗ_ij = p_ij (ẋ_j - ẏ_i)
    (g,), (dg,), (dx,), dy = bwd.g, bwd.dg, bwd.tangents, bwd.fwd.memo
    turned = None if g is None or dy is None else -g * dy
    inner = total(dg, turned)
    passed = None if inner is None else apply(bwd.node, [inner])[0]
    by_x = bwd.by_inputs[0]
    return [total(passed, None if by_x is None or dx is None else by_x * dx)]


def _passed(bwd: BackwardNode) -> Tensor | None:
    return None if bwd.dg[0] is None else apply(bwd.node, bwd.dg)[0]


RULES: Mapping[str, Rule] = {
    "LogcumsumexpBackward0": Rule(_jvp_log_cumulative, _vjp_tangent_log_cumulative, NONLINEAR),
    "LogSoftmaxBackward0": Rule(_jvp_log_softmax, _vjp_tangent_log_softmax, NONLINEAR),
    "LogsumexpBackward0": Rule(_jvp_log_sum_exp, _vjp_tangent_log_sum_exp, NONLINEAR),
    "SoftmaxBackward0": Rule(_jvp_softmax, _vjp_tangent_softmax, NONLINEAR),
    "SafeSoftmaxBackward0": Rule(_jvp_softmax, _vjp_tangent_softmax, NONLINEAR),
}
"""Node ↦ rule."""
