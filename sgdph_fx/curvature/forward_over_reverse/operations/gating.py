"""Gates: y = a σ(b), the halves of one tensor (GLU), and x or w x by the sign of x (PReLU)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)

__all__ = ["RULES"]


def _halves(node: Node, t: Tensor) -> tuple[Tensor, Tensor]:
    first, second = t.chunk(2, saved(node, "dim"))
    return first, second


def _jvp_glu(fwd: ForwardNode) -> Tensors:
    (dx,), node = fwd.tangents, fwd.node
    if dx is None:
        return [None]
    a, b = _halves(node, saved(node, "self"))
    da, db = _halves(node, dx)
    s = torch.sigmoid(b)
    return [(a * (1 - s) * db + da) * s]


def _vjp_tangent_glu(bwd: BackwardNode) -> Tensors:
    """Compute by a: ġ σ + g σ' ḃ; by b: ġ a σ' + g (ȧ σ' + a σ'' ḃ), where σ'' = σ' (1 - 2 σ)."""
    (g,), (dg,), (dx,), node = bwd.g, bwd.dg, bwd.tangents, bwd.node
    passed = None if dg is None else apply(node, [dg])[0]
    if g is None or dx is None:
        return [passed]
    a, b = _halves(node, saved(node, "self"))
    da, db = _halves(node, dx)
    s = torch.sigmoid(b)
    slope = g * s * (1 - s)
    bent = torch.cat([slope * db, slope * (da + a * (1 - 2 * s) * db)], saved(node, "dim"))
    return [bent if passed is None else bent.add_(passed)]


def _jvp_prelu(fwd: ForwardNode) -> Tensors:
    (dx, dw), node = fwd.tangents, fwd.node
    x = saved(node, "self")
    passed = None if dx is None else torch.where(x > 0, dx, dx * saved(node, "weight"))
    return [total(passed, None if dw is None else x.clamp(max=0) * dw)]


def _vjp_tangent_prelu(bwd: BackwardNode) -> Tensors:
    (g,), (dg,), (dx, dw), node = bwd.g, bwd.dg, bwd.tangents, bwd.node
    by_x, by_w = (None, None) if dg is None else apply(node, [dg])
    if g is not None and (dx is not None or dw is not None):
        below = g.masked_fill(saved(node, "self") > 0, 0)
        by_x = total(by_x, None if dw is None else below * dw)
        by_w = total(by_w, None if dx is None else below * dx)
    return [by_x, by_w]


RULES: Mapping[str, Rule] = {
    "GluBackward0": Rule(_jvp_glu, _vjp_tangent_glu, NONLINEAR, owns_output=True),
    "PreluKernelBackward0": Rule(_jvp_prelu, _vjp_tangent_prelu, BILINEAR, owns_output=True),
}
"""Node ↦ rule."""
