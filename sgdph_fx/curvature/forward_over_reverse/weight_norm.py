"""A weight of direction and gain, W = γ V / ‖V‖: linear in the gain, which is what it depends on where it is due.

A direction that is itself computed from the due parameter is left to torch's second derivative.
"""

from __future__ import annotations

from typing import Any

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import NONLINEAR, BackwardNode, ForwardNode, Rule, Tensors
from sgdph_fx.transform.filters import compose

__all__ = ["RULE"]


def _jvp(fwd: ForwardNode) -> Tensors:
    by_direction, by_gain = fwd.tangents
    if by_direction is not None or by_gain is None:
        return torch_jvp(fwd)
    node: Any = fwd.node
    direction, _ = node.saved_tensors
    return [compose(direction, by_gain, node.filters)]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    by_direction, _ = bwd.active
    if by_direction:
        return torch_vjp_tangent(bwd)
    return [None, None if bwd.dg[0] is None else apply(bwd.node, bwd.dg)[1]]


RULE = Rule(_jvp, _vjp_tangent, NONLINEAR)
