"""torch's own weight norm, W = g V / ‖V‖, which is linear in the gain g.

If the direction V depends on the parameter, the operation runs again as plain arithmetic: torch's own second
derivative takes ‖V‖ for a constant, and is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.operations.recomputation import Recomputed, recomputed
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]


def _again(fwd: ForwardNode) -> Recomputed:
    direction, gain = saved(fwd.node, "v"), saved(fwd.node, "g")
    dim = saved(fwd.node, "dim")
    return Recomputed.of((direction, gain), fwd.active, lambda leaves: [_compose(leaves[0], leaves[1], dim)])


def _compose(direction: torch.Tensor, gain: torch.Tensor, dim: int) -> torch.Tensor:
    return direction * (gain / torch.norm_except_dim(direction, 2, dim))


_BY_DIRECTION = recomputed(_again)


def _jvp(fwd: ForwardNode) -> Tensors:
    if fwd.active[0]:
        return _BY_DIRECTION.jvp(fwd)
    by_gain = fwd.tangents[1]
    if by_gain is None:
        return [None]
    compose: Any = torch.ops.aten._weight_norm_interface.default
    # The kernel reads memory as it lies, whatever the strides.
    return [compose(saved(fwd.node, "v"), by_gain.contiguous(), saved(fwd.node, "dim"))[0]]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    if bwd.active[0]:
        return _BY_DIRECTION.vjp_tangent(bwd)
    return [None, None if bwd.dg[0] is None else apply(bwd.node, bwd.dg)[1]]


RULES: Mapping[str, Rule] = {"WeightNormInterfaceBackward0": Rule(_jvp, _vjp_tangent, NONLINEAR)}
"""Node ↦ rule."""
