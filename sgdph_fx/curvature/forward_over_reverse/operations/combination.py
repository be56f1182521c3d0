"""Operations on each number of two or three tensors: a choice, the larger one, an interpolation, a power."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.linear import TRANSPOSED, linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    LINEAR,
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_shape,
    saved,
    total,
)

__all__ = ["RULES"]


def _jvp_where(fwd: ForwardNode) -> Tensors:
    chosen, other = fwd.tangents
    some = other if chosen is None else chosen
    if some is None:
        return [None]
    zero, condition = some.new_zeros(()), saved(fwd.node, "condition")
    return [torch.where(condition, zero if chosen is None else chosen, zero if other is None else other)]


def _jvp_power(fwd: ForwardNode) -> Tensors:
    dx, _ = fwd.tangents
    if fwd.active[1] or dx is None:
        return torch_jvp(fwd)
    return apply(fwd.node, [dx.expand(output_shape(fwd.node))])[:1]


def _vjp_tangent_power(bwd: BackwardNode) -> Tensors:
    """Compute by x, for a given exponent e: f' ġ + e (e - 1) xᵉ⁻² ẋ g."""
    (g,), (dg,), dx = bwd.g, bwd.dg, bwd.tangents[0]
    if bwd.active[1]:
        return torch_vjp_tangent(bwd)
    bent = None
    if g is not None and dx is not None:
        x, e = saved(bwd.node, "self"), saved(bwd.node, "exponent")
        factor = e * (e - 1)
        bent = (x.pow(e - 2) * factor).masked_fill_(factor == 0, 0) * dx * g
    return [total(None if dg is None else apply(bwd.node, [dg])[0], bent), None]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            *("MaximumBackward0", "MinimumBackward0", "FmaxBackward0", "FminBackward0", "LerpBackward0"),
            *("ClampBackward0", "ClampMinBackward1", "ClampMaxBackward1", "MaskedFillBackward1"),
        ),
        TRANSPOSED,
    ),
    "LerpBackward1": Rule(torch_jvp, torch_vjp_tangent, BILINEAR),
    "PowBackward1": Rule(_jvp_power, _vjp_tangent_power, NONLINEAR),
    "WhereBackward0": Rule(_jvp_where, linear_vjp_tangent, LINEAR, owns_output=True),
}
"""Node ↦ rule."""
