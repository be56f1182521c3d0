"""Operations that multiply each number by a constant, which may depend on its range: ReLU, clamp, dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.operations.linear import linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_dtype,
    saved,
)

__all__ = ["RULES", "diagonal_jvp"]


def diagonal_jvp(fwd: ForwardNode) -> Tensors:
    """Compute ẏ = f'(x) ẋ by the backward, which multiplies by f' as well: the Jacobian is diagonal."""
    (dx,) = fwd.tangents[:1]
    return apply(fwd.node, [None if dx is None else dx.to(output_dtype(fwd.node))])[:1]


def _jvp_relu(fwd: ForwardNode) -> Tensors:
    return [_through_relu(fwd.node, fwd.tangents[0], fwd.writable[0])]


def _vjp_tangent_relu(bwd: BackwardNode) -> Tensors:
    return [_through_relu(bwd.node, bwd.dg[0], bwd.writable[0])]


def _through_relu(node: Node, tangent: Tensor | None, writable: bool) -> Tensor | None:
    if tangent is None:
        return None
    y: Tensor = saved(node, "result")
    call: Any = torch.ops.aten.threshold_backward
    passed: Tensor = call.grad_input(tangent, y, 0, grad_input=tangent) if writable else call(tangent, y, 0)
    return passed


_CONSTANT = Rule(lambda fwd: [None], lambda bwd: [None], LINEAR, owns_output=True)
_SCALED = Rule(diagonal_jvp, linear_vjp_tangent, LINEAR, owns_output=True)

_BY_A_NUMBER = ("AddBackward1", "SubBackward1", "RsubBackward1", "MulBackward1", "DivBackward1")
_PIECEWISE = (
    *("AbsBackward0", "ClampBackward1", "ClampMinBackward0", "ClampMaxBackward0", "ThresholdBackward0"),
    *("ThresholdBackward1", "LeakyReluBackward0", "LeakyReluBackward1", "HardtanhBackward0"),
    *("HardsigmoidBackward0", "HardshrinkBackward0", "SoftshrinkBackward0", "RreluWithNoiseBackward0"),
    *("RreluWithNoiseBackward1", "RreluWithNoiseFunctionalBackward0", "NanToNumBackward0"),
)
_SIMPLE = (
    *("NegBackward0", "Deg2RadBackward0", "Rad2DegBackward0", "FracBackward0", "FmodBackward0"),
    "DivBackward3",
    *("RemainderBackward0", "NativeDropoutBackward0", "FusedDropoutBackward0", "MaskedFillBackward0"),
    *("IndexFillBackward0", "TriuBackward0", "TrilBackward0"),
)
_FLAT = (
    *("SignBackward0", "SgnBackward0", "FloorBackward0", "CeilBackward0", "TruncBackward0"),
    *("RoundBackward0", "RoundBackward1", "ZeroBackward0"),
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*_BY_A_NUMBER, *_PIECEWISE, *_SIMPLE), _SCALED),
    **dict.fromkeys(_FLAT, _CONSTANT),
    "ReluBackward0": Rule(_jvp_relu, _vjp_tangent_relu, LINEAR, owns_output=True),
}
"""Node ↦ rule."""
