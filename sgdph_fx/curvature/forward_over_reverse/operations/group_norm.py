"""Group norm, y = γ x̂ + β, with γ and β of each channel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.standardization import (
    Rows,
    channel_sum,
    own,
    per_channel,
)
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
    group = saved(node, "group")
    shape = saved(node, "N") * group, saved(node, "C") // group * saved(node, "HxW")
    x, mean, r = (saved(node, name) for name in ("input", "result1", "result2"))
    return Rows.of(x, shape, mean, r)


def _jvp(fwd: ForwardNode) -> Tensors:
    dx, dgain, dbias = fwd.tangents
    rows, shape = _rows(fwd.node), output_shape(fwd.node)
    out = None if dx is None else _scaled(rows.project(dx).view(shape), saved(fwd.node, "weight"))
    beside = None if dgain is None else _scaled(rows.normalized.view(shape), dgain)
    return [total(out, beside, None if dbias is None else per_channel(dbias, len(shape)).expand(shape))]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    g, dg, dx = bwd.g[0], bwd.dg[0], bwd.tangents[0]
    by_x, by_gain, by_bias = bwd.active
    rows, shape = _rows(bwd.node), output_shape(bwd.node)
    found: list[Tensor | None] = [None, None, channel_sum(dg) if by_bias else None]
    if by_x:
        by_rows = _by_x(bwd, rows)
        found[0] = None if by_rows is None else by_rows.view(shape)
    if by_gain:
        passed = None if dg is None else dg * rows.normalized.view(shape)
        bent = None if g is None or dx is None else g * rows.project(dx).view(shape)
        found[1] = channel_sum(total(passed, bent))
    return found


def _by_x(bwd: BackwardNode, rows: Rows) -> Tensor | None:
    """Compute the tangent of r P(γ g), in rows."""
    g, dg, (dx, dgain, _) = bwd.g[0], bwd.dg[0], bwd.tangents
    weight = saved(bwd.node, "weight")
    dh = total(_scaled(dg, weight), None if dgain is None else _scaled(g, dgain))
    if g is None or dx is None:
        return None if dh is None else rows.project(dh)
    return rows.vjp_tangent(g if weight is None else g * per_channel(weight, g.dim()), own(dh, bwd), dx)


def _scaled(t: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return t if t is None or weight is None else t * per_channel(weight, t.dim())


RULES: Mapping[str, Rule] = {
    "NativeGroupNormBackward0": Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True)
}
"""Node ↦ rule."""
