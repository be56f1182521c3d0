"""Batch norm with running statistics, which are constants: y = γ r (x - μ) + β, bilinear in γ and x."""

from __future__ import annotations

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.operations.standardization import channel_sum, per_channel
from sgdph_fx.curvature.forward_over_reverse.rule import BackwardNode, ForwardNode, Tensors, saved, total

__all__ = ["jvp", "vjp_tangent"]


def jvp(fwd: ForwardNode) -> Tensors:
    """Compute γ r ẋ + γ̇ x̂ + β̇; drop the tangents if the backward does not need them."""
    dx, dgain, dbias = fwd.tangents
    slope, normalized = _slope(fwd), _normalized(fwd)
    if not fwd.active[1]:
        fwd.tangents = [None, None, None]
    return [
        total(
            None if dx is None else dx * slope,
            None if dgain is None else normalized * per_channel(dgain, normalized.dim()),
            None if dbias is None else per_channel(dbias, normalized.dim()).expand_as(normalized),
        )
    ]


def vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Compute by x: γ r ġ + γ̇ r g; by γ: Σ ġ x̂ + g r ẋ; by β: Σ ġ."""
    g, dg, (dx, dgain, _) = bwd.g[0], bwd.dg[0], bwd.tangents
    by_x, by_gain, by_bias = bwd.active
    r, normalized = _r(bwd.fwd), _normalized(bwd.fwd)
    found: list[Tensor | None] = [None, None, None]
    if by_x:
        bent = None if g is None or dgain is None else g * per_channel(dgain, g.dim()) * r
        found[0] = total(None if dg is None else dg * _slope(bwd.fwd), bent)
    if by_gain:
        bent = None if g is None or dx is None else g * r * dx
        found[1] = channel_sum(total(None if dg is None else dg * normalized, bent))
    if by_bias:
        found[2] = channel_sum(dg)
    return found


def _r(fwd: ForwardNode) -> Tensor:
    eps = saved(fwd.node, "eps" if hasattr(fwd.node, "_saved_eps") else "epsilon")
    return per_channel(torch.rsqrt(saved(fwd.node, "running_var") + eps), _x(fwd).dim())


def _slope(fwd: ForwardNode) -> Tensor:
    weight = saved(fwd.node, "weight")
    return _r(fwd) if weight is None else _r(fwd) * per_channel(weight, _x(fwd).dim())


def _normalized(fwd: ForwardNode) -> Tensor:
    x = _x(fwd)
    return (x - per_channel(saved(fwd.node, "running_mean"), x.dim())) * _r(fwd)


def _x(fwd: ForwardNode) -> Tensor:
    x: Tensor = saved(fwd.node, "input")
    return x
