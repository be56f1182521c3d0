"""torch's own weight norm, W = g V / ‖V‖, which is linear in the gain g.

If the direction V has a tangent, torch's second derivative is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]


def _jvp(fwd: ForwardNode) -> Tensors:
    by_direction, by_gain = fwd.tangents
    if by_direction is not None or by_gain is None:
        return torch_jvp(fwd)[:1]
    compose: Any = torch.ops.aten._weight_norm_interface.default
    return [compose(saved(fwd.node, "v"), by_gain, saved(fwd.node, "dim"))[0]]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    by_direction, _ = bwd.active
    if by_direction:
        return torch_vjp_tangent(bwd)
    return [None, None if bwd.dg[0] is None else apply(bwd.node, bwd.dg)[1]]


RULES: Mapping[str, Rule] = {"WeightNormInterfaceBackward0": Rule(_jvp, _vjp_tangent, NONLINEAR)}
"""Node ↦ rule."""
