"""GELU, y = x Φ(x), with the normal distribution's Φ and its density φ: the second derivative is (2 - x²) φ(x).

Its tangents are the largest of a transformer, so they are computed in memory that is already there: fresh memory for
a map of many megabytes takes longer than several passes over it. GELU's tanh form has a derivative of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.scaling import diagonal_jvp
from sgdph_fx.curvature.forward_over_reverse.rule import NONLINEAR, BackwardNode, Rule, Tensors, saved
from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["RULES"]

_BLOCK = 1024
_PEAK = 1 / math.sqrt(2 * math.pi)
_LEAST_EXPONENT = -746.0
"""Its exponential is zero in every dtype, and so are those of all numbers below."""


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Compute f' ġ + f'' ẋ g."""
    (g,), (dg,), (dx,) = bwd.g, bwd.dg, bwd.tangents
    if g is None or dx is None:
        return [None if dg is None else _pass_back(bwd.node, dg, bwd.writable[0])]
    in_one_pass = _fused(bwd.node, g, dg, dx)
    if in_one_pass is not None:
        return [in_one_pass]
    passed = None if dg is None else _pass_back(bwd.node, dg, bwd.writable[0])
    bent = torch.mul(dx, g, out=dx) if bwd.fwd.writable[0] else dx * g
    x = saved(bwd.node, "self")
    if saved(bwd.node, "approximate") == "tanh":
        bent.mul_(_bend_of_tanh_form(x))
        return [bent if passed is None else passed.add_(bent)]
    # With s = 1 - x² / 2, (2 - x²) φ(x) is 2 s exp(s - 1) / √(2 π). Where x² overflows, s must not: its exponential
    # is zero.
    scratch = torch.addcmul(x.new_ones(()), x, x, value=-0.5).clamp_(min=_LEAST_EXPONENT)
    bent.mul_(scratch)
    scratch.exp_()
    if passed is None:
        return [bent.mul_(scratch).mul_(2 * _PEAK / math.e)]
    return [passed.addcmul_(bent, scratch, value=2 * _PEAK / math.e)]


def _fused(node: Node, g: Tensor, dg: Tensor | None, dx: Tensor) -> Tensor | None:
    x = saved(node, "self")
    given = [x, g, dx, *([] if dg is None else [dg])]
    if saved(node, "approximate") == "tanh" or not is_fusible(*given):
        return None
    # Dense alike, so that the same place in memory is the same number of each.
    if any(t.stride() != x.stride() for t in given) or not torch.ops.aten.is_non_overlapping_and_dense(x):
        return None
    out = torch.empty_like(x)
    constants = {"HAS_DG": dg is not None, "BLOCK": _BLOCK}
    ran = launch("gelu_backward", -(-x.numel() // _BLOCK), (x, g, dg, dx, out, x.numel()), constants)
    return out if ran else None


def _pass_back(node: Node, dg: Tensor, writable: bool) -> Tensor:
    call: Any = torch.ops.aten.gelu_backward
    x, approximate = saved(node, "self"), saved(node, "approximate")
    passed: Tensor
    if writable and dg.dtype == x.dtype and dg.stride() == x.stride():
        passed = call.grad_input(dg, x, approximate=approximate, grad_input=dg)
    else:
        passed = call(dg, x, approximate=approximate)
    return passed


def _bend_of_tanh_form(x: Tensor) -> Tensor:
    """Compute the second derivative of x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³).

    It is (1 - tanh² u) (u' + x u'' / 2 - x u'² tanh u), where x u'' / 2 = u' - √(2/π).
    """
    k, c = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = torch.mul(square, k * c).add_(k).mul_(x).tanh_()
    slope = square.mul_(3 * k * c).add_(k)
    bend = torch.mul(slope, slope).mul_(t).mul_(x).neg_().add_(slope, alpha=2).sub_(k)
    return bend.addcmul_(bend, t.square_(), value=-1)


RULES: Mapping[str, Rule] = {
    "GeluBackward0": Rule(diagonal_jvp, _vjp_tangent, NONLINEAR, owns_output=True),
}
"""Node ↦ rule."""
