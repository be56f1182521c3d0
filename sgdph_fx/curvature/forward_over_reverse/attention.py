"""Scaled dot-product attention, O = P V with P = softmax(S) and S = s Q Kᵀ + mask, the softmax over each row.

The backward of torch's fused kernels has no derivative, so the formula is used, P being computed anew each time
rather than kept. With J(U) = P ∘ (U - Σ P ∘ U), the softmax's Jacobian, G = ∂L/∂O and Ṗ = J(Ṡ), where
Ṡ = s (Q̇ Kᵀ + Q K̇ᵀ) and the tangent of the mask, if it has one,

    O:     P V,        whose tangent is   Ṗ V + P V̇
    by S:  J(G Vᵀ),    whose tangent is   J(Ġ Vᵀ + G V̇ᵀ) + Ṗ ∘ (G Vᵀ - Σ P ∘ G Vᵀ) - P ∘ Σ Ṗ ∘ G Vᵀ

from which the gradients by Q, K and V and their tangents are products of matrices; by the mask it is that by S.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.matmul import matrix_product, transposed
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)
from sgdph_fx.curvature.hvp import no_second_derivative

__all__ = ["RULES"]

_MASKS: Mapping[str, str | None] = {
    "ScaledDotProductCudnnAttentionBackward0": "attn_bias",
    "ScaledDotProductEfficientAttentionBackward0": "attn_bias",
    "ScaledDotProductFlashAttentionBackward0": None,
    "ScaledDotProductFlashAttentionForCpuBackward0": "attn_mask",
}
"""torch's kernels, by node ↦ under what name each saves the mask that is added to the scores, if it takes one."""


@dataclass(frozen=True, slots=True)
class _Attention:
    """One application: Q ``(N, H, L, E)``, K and V spread to as many heads, P ``(N, H, L, S)``, the scale s."""

    q: Tensor
    k: Tensor
    v: Tensor
    p: Tensor
    scale: float

    @classmethod
    def of(cls, node: Node) -> _Attention:
        q = _spread_heads(saved(node, "query"), 1)
        k, v = (_spread_heads(saved(node, name), q.shape[1]) for name in ("key", "value"))
        given = saved(node, "scale")
        scale = 1 / math.sqrt(q.shape[-1]) if given is None else given
        return cls(q, k, v, _probabilities(node, q @ k.transpose(-2, -1) * scale), scale)

    def through_softmax(self, u: Tensor) -> Tensor:
        """J(U), which is symmetric: forward and backward are the same."""
        call: Any = torch.ops.aten._softmax_backward_data.default
        through: Tensor = call(u, self.p, -1, self.p.dtype)
        return through

    def dp(self, dq: Tensor | None, dk: Tensor | None, dmask: Tensor | None) -> Tensor | None:
        """Ṗ."""
        ds = total(matrix_product(dq, transposed(self.k)), matrix_product(self.q, transposed(dk)))
        ds = total(None if ds is None else ds * self.scale, dmask)
        return None if ds is None else self.through_softmax(ds.expand_as(self.p))


def _jvp(fwd: ForwardNode) -> Tensors:
    _refuse_dropout(fwd.node)
    one = _Attention.of(fwd.node)
    dq, dk, dv, dmask = _tangents(fwd.tangents, one)
    out = total(matrix_product(one.dp(dq, dk, dmask), one.v), matrix_product(one.p, dv))
    return [out, *[None] * (len(fwd.node._input_metadata) - 1)]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    one = _Attention.of(bwd.node)
    dq, dk, dv, dmask = _tangents(bwd.tangents, one)
    g, dg = (None if t is None else _spread_heads(t, 1) for t in (bwd.g[0], bwd.dg[0]))
    dp, by_p = one.dp(dq, dk, dmask), matrix_product(g, transposed(one.v))
    by_s = None if by_p is None else one.through_softmax(by_p) * one.scale
    by_mask = _tangent_by_scores(
        one, dp, by_p, total(matrix_product(dg, transposed(one.v)), matrix_product(g, transposed(dv)))
    )
    dby_s = None if by_mask is None else by_mask * one.scale
    found = (
        total(matrix_product(dby_s, one.k), matrix_product(by_s, dk)),
        total(matrix_product(transposed(dby_s), one.q), matrix_product(transposed(by_s), dq)),
        total(matrix_product(transposed(dp), g), matrix_product(transposed(one.p), dg)),
    )
    heads = (saved(bwd.node, name).shape[1] for name in ("query", "key", "value"))
    narrow = [_narrow(t, count) for t, count in zip(found, heads, strict=True)]
    return [t if active else None for t, active in zip((*narrow, by_mask), bwd.active, strict=False)]


def _tangent_by_scores(
    one: _Attention, dp: Tensor | None, by_p: Tensor | None, dby_p: Tensor | None
) -> Tensor | None:
    straight = None if dby_p is None else one.through_softmax(dby_p)
    bent = None
    if dp is not None and by_p is not None:
        bent = dp * (by_p - (one.p * by_p).sum(-1, keepdim=True)) - one.p * (dp * by_p).sum(-1, keepdim=True)
    return total(straight, bent)


def _refuse_dropout(node: Node) -> None:
    dropout = saved(node, "dropout_p")
    if dropout:
        raise no_second_derivative(
            f"torch's fused attention with dropout {dropout:g}, whose kernel keeps no mask of what it dropped"
        )


def _probabilities(node: Node, scores: Tensor) -> Tensor:
    name = _MASKS[type(node).__name__]
    mask = None if name is None else saved(node, name)
    if mask is not None:
        scores = scores + mask
    if saved(node, "is_causal"):
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    p = torch.softmax(scores, -1)
    # A row that the mask leaves nothing of is zero, not 0/0.
    return p if mask is None else p.masked_fill(scores.isneginf().all(-1, keepdim=True), 0)


def _tangents(tangents: Tensors, one: _Attention) -> tuple[Tensor | None, ...]:
    """Of Q, K and V, and of the mask where the kernel differentiates by it."""
    heads = [None if t is None else _spread_heads(t, one.q.shape[1]) for t in tangents[:3]]
    return *heads, tangents[3] if len(tangents) > 3 else None


def _spread_heads(t: Tensor, heads: int) -> Tensor:
    """In single precision at least, as scores need it, and each head as often as its group of queries asks for it."""
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    return t if t.shape[1] >= heads else t.repeat_interleave(heads // t.shape[1], dim=1)


def _narrow(t: Tensor | None, heads: int) -> Tensor | None:
    return t if t is None or t.shape[1] == heads else t.reshape(t.shape[0], heads, -1, *t.shape[2:]).sum(2)


RULES: Mapping[str, Rule] = dict.fromkeys(_MASKS, Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True))
"""By node."""
