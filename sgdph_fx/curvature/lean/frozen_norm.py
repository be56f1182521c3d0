"""Batch norm by running statistics, which no input changes: y = γ r (x - μ) + β, bilinear in γ and x."""

from __future__ import annotations

import torch
from torch import Tensor

from sgdph_fx.curvature.lean.visit import Tensors, Turn, Visit, saved, total

__all__ = ["pull", "push"]


def push(visit: Visit) -> Tensors:
    """ẏ = γ r ẋ + γ̇ x̂ + β̇."""
    dx, dgain, dbias = visit.tangents
    slope, normalized = _slope(visit), _normalized(visit)
    if not visit.active[1]:
        visit.tangents = [None, None, None]
    return [
        total(
            None if dx is None else dx * slope,
            None if dgain is None else normalized * _wide(dgain, normalized),
            None if dbias is None else _wide(dbias, normalized).expand_as(normalized),
        )
    ]


def pull(turn: Turn) -> Tensors:
    """By x: γ r ġ + γ̇ r g; by γ: Σ ġ x̂ + g r ẋ; by β: Σ ġ."""
    g, dg, (dx, dgain, _) = turn.g[0], turn.dg[0], turn.tangents
    by_x, by_gain, by_bias = turn.active
    r, normalized = _r(turn.visit), _normalized(turn.visit)
    found: list[Tensor | None] = [None, None, None]
    if by_x:
        bent = None if g is None or dgain is None else g * _wide(dgain, g) * r
        found[0] = total(None if dg is None else dg * _slope(turn.visit), bent)
    if by_gain:
        bent = None if g is None or dx is None else g * r * dx
        found[1] = _channel_sum(total(None if dg is None else dg * normalized, bent))
    if by_bias:
        found[2] = _channel_sum(dg)
    return found


def _r(visit: Visit) -> Tensor:
    eps = saved(visit.node, "eps" if hasattr(visit.node, "_saved_eps") else "epsilon")
    return _wide(torch.rsqrt(saved(visit.node, "running_var") + eps), _x(visit))


def _slope(visit: Visit) -> Tensor:
    weight = saved(visit.node, "weight")
    return _r(visit) if weight is None else _r(visit) * _wide(weight, _x(visit))


def _normalized(visit: Visit) -> Tensor:
    x = _x(visit)
    return (x - _wide(saved(visit.node, "running_mean"), x)) * _r(visit)


def _x(visit: Visit) -> Tensor:
    x: Tensor = saved(visit.node, "input")
    return x


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _channel_sum(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.sum([d for d in range(t.dim()) if d != 1])
