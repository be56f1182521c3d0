"""Scaled dot-product attention, O = P V with P = softmax(S) and S = Q Kᵀ + mask, the softmax over each row.

The backward of torch's fused kernels has no derivative, so the formula is used, and P is computed anew each time
rather than kept, unless it is small. Q is the query times the scale. With J(U) = P ∘ (U - Σ P ∘ U), the softmax's
Jacobian, Ṡ = Q̇ Kᵀ + Q K̇ᵀ plus the tangent of the mask, if it has one, and G = ∂L/∂O,

    Ṗ = J(Ṡ) = P ∘ W  with  W = Ṡ - Σ P ∘ Ṡ,        O:     P V,    whose tangent is   Ṗ V + P V̇
    H = G Vᵀ - Σ P ∘ G Vᵀ = G Vᵀ - Σ G ∘ O,          by S:  P ∘ H,  whose tangent is   J(Ġ Vᵀ + G V̇ᵀ + W ∘ H)

from which the gradients by Q, K and V and their tangents are products of matrices; by the mask it is that by S.
Scores are in single precision at least; what multiplies Q, K, V and their likes is in the dtype of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.attention_scores import Scores
from sgdph_fx.curvature.forward_over_reverse.operations.matmul import sum_of_products, transposed
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

_MASKS: Mapping[str, str | None] = {
    "ScaledDotProductCudnnAttentionBackward0": "attn_bias",
    "ScaledDotProductEfficientAttentionBackward0": "attn_bias",
    "ScaledDotProductFlashAttentionBackward0": None,
    "ScaledDotProductFlashAttentionForCpuBackward0": "attn_mask",
}
"""torch's kernels: node ↦ the name under which it saves the mask added to the scores, None if it takes no mask."""


@dataclass(frozen=True, slots=True)
class _Attention:
    """One application: n batches of h heads, Q ``(n h, L, E)``, K and V spread to as many heads, and the scale.

    L and S may be padded with zeros, which add nothing to any product.
    """

    node: Node
    n: int
    h: int
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float

    @classmethod
    def of(cls, node: Node) -> _Attention:
        query = saved(node, "query")
        n, h = query.shape[:2]
        q, k, v = (_spread(saved(node, name), h) for name in ("query", "key", "value"))
        given = saved(node, "scale")
        scale = 1 / math.sqrt(q.shape[-1]) if given is None else given
        return cls(node, n, h, q * scale, k, v, scale)

    def scores(self, dq: Tensor | None, dk: Tensor | None, dmask: Tensor | None) -> Scores:
        """Compute S and Ṡ, ``(n h, L, S)``."""
        s = _scores((self.q, self.k))
        assert s is not None
        name = _MASKS[type(self.node).__name__]
        mask = None if name is None else saved(self.node, name)
        queries, keys = (saved(self.node, side).shape[2] for side in ("query", "key"))
        causal = bool(saved(self.node, "is_causal"))
        return Scores(s, self._ds(dq, dk, dmask), mask, self.h, queries, keys, causal)

    def _ds(self, dq: Tensor | None, dk: Tensor | None, dmask: Tensor | None) -> Tensor | None:
        ds = _scores((dq, self.k), (self.q, dk))
        if dmask is None:
            return ds
        if ds is None:
            shape = (self.n * self.h, self.q.shape[1], self.k.shape[1])
            ds = dmask.new_zeros(shape, dtype=_precise(dmask.dtype))
        queries, keys = dmask.shape[2:]
        self.by_head(ds)[:, :, :queries, :keys].add_(dmask)
        return ds

    def scores_are_small(self) -> bool:
        """Whether P and Ṡ take no more memory than Q, K, V and O, which autograd keeps."""
        scores = 2 * self.q.shape[1] * self.k.shape[1] * _precise(self.q.dtype).itemsize
        return scores <= sum(t[0].numel() * t.element_size() for t in (self.q, self.k, self.v, self.q))

    def by_head(self, t: Tensor) -> Tensor:
        """View ``(n h, ...)`` as ``(n, h, ...)``."""
        return t.view(self.n, self.h, *t.shape[1:])


def _jvp(fwd: ForwardNode) -> Tensors:
    _refuse_dropout(fwd.node)
    one = _Attention.of(fwd.node)
    dq, dk, dv, dmask = _tangents(fwd.tangents, one)
    scores = one.scores(dq, dk, dmask)
    p, dp = scores.forward(one.v.dtype, want_p=dv is not None)
    if one.scores_are_small():
        fwd.memo = scores
    out = sum_of_products((dp, one.v), (p, dv))
    return [None if out is None else one.by_head(out)[:, :, : scores.queries]]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    one = _Attention.of(bwd.node)
    dq, dk, dv, dmask = _tangents(bwd.tangents, one)
    g, dg = (None if t is None else _spread(t, one.h) for t in (bwd.g[0], bwd.dg[0]))
    scores: Scores = bwd.fwd.memo or one.scores(dq, dk, dmask)
    found = scores.backward(
        None if g is None else _scores((g, one.v)),
        _scores((dg, one.v), (g, dv)),
        lambda: _row_dots(g, _spread(saved(bwd.node, "output"), one.h)),
        one.v.dtype,
        want_p=bwd.active[2],
    )
    rows, drows = found.by_s, None if found.dby_s is None else found.dby_s.to(one.v.dtype)
    return _by_inputs(
        bwd,
        one,
        _times(sum_of_products((drows, one.k), (rows, dk)), one.scale),
        sum_of_products((transposed(drows), one.q), (transposed(rows), dq)),
        sum_of_products((transposed(found.dp), g), (transposed(found.p), dg)),
        found.dby_s,
    )


def _by_inputs(bwd: BackwardNode, one: _Attention, *found: Tensor | None) -> Tensors:
    """Shape the results like Q, K, V and the mask; a head of K or V that several heads of Q share gets their sum."""
    made = [None if t is None else one.by_head(t) for t in found]
    lengths = [saved(bwd.node, name).shape[2] for name in ("query", "key", "value")]
    made = [
        None if t is None else t[:, :, :length]
        for t, length in zip(made, (*lengths, lengths[0]), strict=True)
    ]
    by_mask = made[3]
    made[3] = None if by_mask is None else by_mask[..., : lengths[1]]
    for number, name in ((1, "key"), (2, "value")):
        heads, t = saved(bwd.node, name).shape[1], made[number]
        if t is not None and heads != one.h:
            made[number] = t.reshape(one.n, heads, -1, *t.shape[2:]).sum(2)
    return [t if active else None for t, active in zip(made, bwd.active, strict=False)]


def _refuse_dropout(node: Node) -> None:
    dropout = saved(node, "dropout_p")
    if dropout:
        raise no_second_derivative(
            f"torch's fused attention with dropout {dropout:g}, whose kernel keeps no mask of what it dropped"
        )
    if saved(node, "query").dim() != 4:
        raise GiveUp("fused attention of tensors that are not (N, H, L, E)")


def _tangents(tangents: Tensors, one: _Attention) -> tuple[Tensor | None, ...]:
    """Read the tangents of Q, K and V, and of the mask if the kernel differentiates by it."""
    dq, dk, dv = (None if t is None else _spread(t, one.h) for t in tangents[:3])
    dmask = tangents[3] if len(tangents) > 3 else None
    return None if dq is None else dq * one.scale, dk, dv, dmask


def _spread(t: Tensor, heads: int) -> Tensor:
    """Repeat each head for every head of Q that shares it, join batches and heads, and pad: ``(n h, L, E)``."""
    t = t if t.shape[1] >= heads else t.repeat_interleave(heads // t.shape[1], dim=1)
    length = t.shape[2]
    padded = -(-length // (multiple := _length_multiple(t))) * multiple
    if padded == length:
        return t.reshape(-1, *t.shape[2:])
    out = t.new_empty((*t.shape[:2], padded, t.shape[3]))
    out[:, :, :length].copy_(t)
    out[:, :, length:].zero_()
    return out.view(-1, *out.shape[2:])


def _length_multiple(t: Tensor) -> int:
    """What the length of a sequence is padded to: tensor cores want rows of scores that begin at aligned addresses."""
    return 16 if t.is_cuda else 1


def _scores(*pairs: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
    """Add up the products A Bᵀ, as one product of what is side by side, in single precision at least; None is zero."""
    present = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not present:
        return None
    a, b = (sides[0] if len(sides) == 1 else torch.cat(sides, -1) for sides in zip(*present, strict=True))
    return _precise_product(a, b.mT, _precise(a.dtype))


def _precise_product(a: Tensor, b: Tensor, precise: torch.dtype) -> Tensor:
    if a.dtype == precise:
        return torch.bmm(a, b)
    # NVIDIA's tensor cores multiply halves into floats; elsewhere torch has no such product.
    if a.is_cuda and torch.version.hip is None:
        return torch.bmm(a, b, out_dtype=precise)
    return torch.bmm(a.to(precise), b.to(precise))


def _row_dots(a: Tensor | None, b: Tensor) -> Tensor:
    assert a is not None
    precise = _precise(a.dtype)
    return (a.to(precise) * b.to(precise)).sum(-1, keepdim=True)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _times(t: Tensor | None, factor: float) -> Tensor | None:
    return None if t is None else t.mul_(factor)


RULES: Mapping[str, Rule] = dict.fromkeys(_MASKS, Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True))
"""Node ↦ rule."""
