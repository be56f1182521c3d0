"""Operations on each number of two or three tensors: a choice, the larger one, an interpolation."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.linear import TRANSPOSED, linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import BILINEAR, LINEAR, ForwardNode, Rule, Tensors, saved

__all__ = ["RULES"]


def _jvp_where(fwd: ForwardNode) -> Tensors:
    chosen, other = fwd.tangents
    zero = next(t for t in fwd.tangents if t is not None).new_zeros(())
    condition = saved(fwd.node, "condition")
    return [torch.where(condition, zero if chosen is None else chosen, zero if other is None else other)]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            *("MaximumBackward0", "MinimumBackward0", "FmaxBackward0", "FminBackward0", "LerpBackward0"),
            *("ClampBackward0", "ClampMinBackward1", "ClampMaxBackward1", "MaskedFillBackward1"),
        ),
        TRANSPOSED,
    ),
    "LerpBackward1": Rule(torch_jvp, torch_vjp_tangent, BILINEAR),
    "WhereBackward0": Rule(_jvp_where, linear_vjp_tangent, LINEAR, owns_output=True),
}
"""By node."""
