"""A weight of direction and gain, W = γ V / ‖V‖: linear in the gain, which is what it depends on where it is due.

A direction that is itself computed from the due parameter is left to torch's second derivative.
"""

from __future__ import annotations

from typing import Any

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import NONLINEAR, BackwardNode, ForwardNode, Rule, Tensors
from sgdph_fx.transform.filters import along_direction, gradients

__all__ = ["RULE"]


def _jvp(fwd: ForwardNode) -> Tensors:
    by_direction, by_gain = fwd.tangents
    if by_direction is not None or by_gain is None:
        return torch_jvp(fwd)
    node: Any = fwd.node
    direction, _, norm = node.saved_tensors
    return [along_direction(direction, by_gain, norm, node.filters)]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    by_direction, _ = bwd.active
    if by_direction:
        return torch_vjp_tangent(bwd)
    node: Any = bwd.node
    dg = bwd.dg[0]
    if dg is None:
        return [None, None]
    direction, gain, norm = node.saved_tensors
    return [None, gradients(dg, direction, gain, norm, node.filters)[1]]


RULE = Rule(_jvp, _vjp_tangent, NONLINEAR)
