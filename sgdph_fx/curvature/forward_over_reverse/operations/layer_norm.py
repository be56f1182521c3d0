"""Layer norm, y = γ x̂ + β, and RMS norm, y = γ x̂, with γ and β of the normalized shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations import fused_layer_norm
from sgdph_fx.curvature.forward_over_reverse.operations.arithmetic import times
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import Rows, own
from sgdph_fx.curvature.forward_over_reverse.rule import (
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


def _rows(node: Node) -> Rows:
    x, length = saved(node, "input"), math.prod(saved(node, "normalized_shape"))
    names = ("result1", "result2") if hasattr(node, "_saved_result2") else ("result1",)
    *mean, r = (saved(node, name) for name in names)  # an RMS norm saves 1/σ alone
    return Rows.of(x, (x.numel() // max(length, 1), length), mean[0] if mean else None, r)


def _jvp(fwd: ForwardNode) -> Tensors:
    dx, dgain, dbias = (*fwd.tangents, None)[:3]
    if dx is not None and dgain is None and dbias is None:
        in_one_pass = fused_layer_norm.jvp(fwd.node, dx)
        if in_one_pass is not None:
            return [in_one_pass]
    rows, shape, weight = _rows(fwd.node), output_shape(fwd.node), saved(fwd.node, "weight")
    out = None if dx is None else rows.project(dx).view(shape)
    if out is not None and weight is not None:
        out.mul_(weight)
    beside = None if dgain is None else rows.normalized.view(shape) * dgain
    return [total(out, beside, None if dbias is None else dbias.expand(shape))]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    g, dg, dx = bwd.g[0], bwd.dg[0], bwd.tangents[0]
    by_x, by_gain, by_bias = (*bwd.active, False)[:3]
    shape = output_shape(bwd.node)
    found: list[Tensor | None] = [None, None, dg if by_bias else None]
    if by_x:
        by_rows = _by_x(bwd)
        found[0] = None if by_rows is None else by_rows.view(shape)
    if by_gain:
        rows = _rows(bwd.node)
        passed = None if dg is None else dg * rows.normalized.view(shape)
        found[1] = total(passed, None if g is None or dx is None else g * rows.project(dx).view(shape))
    return found[: len(bwd.active)]


def _by_x(bwd: BackwardNode) -> Tensor | None:
    """Compute the tangent of r P(γ g); its numbers are in the order of the rows."""
    g, dg, (dx, dgain) = bwd.g[0], bwd.dg[0], bwd.tangents[:2]
    weight = saved(bwd.node, "weight")
    if g is not None and dx is not None and dgain is None:
        in_one_pass = fused_layer_norm.vjp_tangent(bwd.node, g, dg, dx)
        if in_one_pass is not None:
            return in_one_pass
    rows = _rows(bwd.node)
    dh = total(dg if weight is None else times(dg, weight), times(g, dgain))
    if g is None or dx is None:
        return None if dh is None else rows.project(dh)
    return rows.vjp_tangent(g if weight is None else g * weight, own(dh, bwd), dx)


RULES: Mapping[str, Rule] = dict.fromkeys(
    ("NativeLayerNormBackward0", "FusedRmsNormBackward0"),
    Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True),
)
"""Node ↦ rule."""
