"""Scaled dot-product attention by torch's fused kernels, whose backward has no derivative.

Where there is a GPU, kernels that keep the scores to themselves make the tangents. Elsewhere, and for what they do not
take, the scores are written to memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations import attention_by_scores
from sgdph_fx.curvature.forward_over_reverse.operations.attention_nodes import MASKS, mask_of, scale_of
from sgdph_fx.curvature.forward_over_reverse.operations.fused_attention import Applied, Rows
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    GiveUp,
    Rule,
    Tensors,
    saved,
)
from sgdph_fx.curvature.hvp import no_second_derivative

__all__ = ["RULES"]


def _jvp(fwd: ForwardNode) -> Tensors:
    _refuse_dropout(fwd.node)
    applied = _applied(fwd)
    found = None if applied is None else applied.output_tangent(saved(fwd.node, "output"))
    if found is None:
        return attention_by_scores.jvp(fwd)
    out, fwd.memo = found
    return [out]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    memo = bwd.fwd.memo
    if isinstance(memo, Rows):
        applied, g = _applied(bwd.fwd), bwd.g[0]
        found = None if applied is None or g is None else applied.gradient_tangents(g, bwd.dg[0], memo)
        if found is not None:
            return [t if active else None for t, active in zip(found, bwd.active, strict=False)]
        bwd.fwd.memo = None
    return attention_by_scores.vjp_tangent(bwd)


def _applied(fwd: ForwardNode) -> Applied | None:
    """Read what the kernels take; None where they do not."""
    node = fwd.node
    if mask_of(node) is not None:
        return None
    inputs = saved(node, "query"), saved(node, "key"), saved(node, "value")
    return Applied.of(inputs, tuple(fwd.tangents[:3]), bool(saved(node, "is_causal")), scale_of(node))


def _refuse_dropout(node: Node) -> None:
    dropout = saved(node, "dropout_p")
    if dropout:
        raise no_second_derivative(
            f"torch's fused attention with dropout {dropout:g}, whose kernel keeps no mask of what it dropped"
        )
    if saved(node, "query").dim() != 4:
        raise GiveUp("fused attention of tensors that are not (N, H, L, E)")


RULES: Mapping[str, Rule] = dict.fromkeys(MASKS, Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True))
"""Node ↦ rule."""
