"""Attention by its scores in memory: O = P V with P = softmax(S) and S = Q Kᵀ + mask, the softmax over each row.

P is computed anew each time rather than kept, unless it is small. Q is the query times the scale. With
J(U) = P ∘ (U - Σ P ∘ U), the softmax's Jacobian, Ṡ = Q̇ Kᵀ + Q K̇ᵀ plus the tangent of the mask, if it has one, and
G = ∂L/∂O,

    Ṗ = J(Ṡ) = P ∘ W  with  W = Ṡ - Σ P ∘ Ṡ,        O:     P V,    whose tangent is   Ṗ V + P V̇
    H = G Vᵀ - Σ P ∘ G Vᵀ = G Vᵀ - Σ G ∘ O,          by S:  P ∘ H,  whose tangent is   J(Ġ Vᵀ + G V̇ᵀ + W ∘ H)

from which the gradients by Q, K and V and their tangents are products of matrices; by the mask it is that by S.
Scores are in single precision at least; what multiplies Q, K, V and their likes is in the dtype of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.attention_nodes import mask_of, scale_of
from sgdph_fx.curvature.forward_over_reverse.operations.attention_products import (
    Pair,
    precise,
    row_dots,
    scores_of,
    tangent_of_scores,
)
from sgdph_fx.curvature.forward_over_reverse.operations.attention_scores import Scores
from sgdph_fx.curvature.forward_over_reverse.operations.matmul import sum_of_products, transposed
from sgdph_fx.curvature.forward_over_reverse.rule import (
    BackwardNode,
    ForwardNode,
    Tensors,
    saved,
)

__all__ = ["jvp", "vjp_tangent"]


@dataclass(frozen=True, slots=True)
class _Attention:
    """One application, or a part of its batches: n of h heads, with Q, K and V spread to as many heads.

    L and S may be padded with zeros, which add nothing to any product.

    Args:
        node: The operation's node.
        part: Which batches; None for all.
        n: How many they are.
        h: Heads of Q.
        q: [Q̇ Q].
        k: [K K̇].
        v: [V V̇].
        dmask: The tangent of the mask, if it has one.
        scale: What Q has been multiplied by.
    """

    node: Node
    part: slice | None
    n: int
    h: int
    q: Pair
    k: Pair
    v: Pair
    dmask: Tensor | None
    scale: float

    @classmethod
    def of(cls, node: Node, tangents: Tensors, part: slice | None) -> _Attention:
        query, key, value = (_taken(saved(node, name), part) for name in ("query", "key", "value"))
        dq, dk, dv = (None if t is None else _taken(t, part) for t in tangents[:3])
        n, h = query.shape[:2]
        scale = scale_of(node)
        q, k, v = Pair.of(dq, query, h, scale), Pair.of(key, dk, h), Pair.of(value, dv, h)
        return cls(node, part, n, h, q, k, v, tangents[3] if len(tangents) > 3 else None, scale)

    def scores(self) -> Scores:
        """Compute S and Ṡ, ``(n h, L, S)``."""
        s = scores_of(self.q.second, self.k.first)
        assert s is not None
        mask = mask_of(self.node)
        if mask is not None and mask.dim() == 4 and mask.shape[0] > 1:
            mask = _taken(mask, self.part)
        queries, keys = (saved(self.node, side).shape[2] for side in ("query", "key"))
        causal = bool(saved(self.node, "is_causal"))
        return Scores(s, self._ds(s), mask, self.h, queries, keys, causal)

    def _ds(self, s: Tensor) -> Tensor | None:
        ds = tangent_of_scores(self.q, self.k)
        if self.dmask is None:
            return ds
        ds = torch.zeros_like(s) if ds is None else ds
        queries, keys = self.dmask.shape[2:]
        self.by_head(ds)[:, :, :queries, :keys].add_(self.dmask)
        return ds

    def by_head(self, t: Tensor) -> Tensor:
        """View ``(n h, ...)`` as ``(n, h, ...)``."""
        return t.view(self.n, self.h, *t.shape[1:])


def _scores_are_kept(node: Node) -> bool:
    """Whether P and Ṡ are few, and take no more memory than Q, K, V and O, which autograd keeps."""
    query, key = saved(node, "query"), saved(node, "key")
    lengths = 2 * query.shape[2] + 2 * key.shape[2]
    scores = 2 * query.shape[2] * key.shape[2] * precise(query.dtype).itemsize
    few = query.shape[0] * _bytes_of_scores(node) <= (1 << 26 if query.is_cuda else 1 << 21)
    return few and bool(scores <= lengths * query.shape[3] * query.element_size())


def jvp(fwd: ForwardNode) -> Tensors:
    """Compute Ȯ."""
    kept: list[Scores] | None = [] if _scores_are_kept(fwd.node) else None
    made = [_jvp_of_part(fwd, part, kept) for part in _parts(fwd)]
    fwd.memo = kept
    return [_joined(made)]


def _jvp_of_part(fwd: ForwardNode, part: slice | None, kept: list[Scores] | None) -> Tensor | None:
    one = _Attention.of(fwd.node, fwd.tangents, part)
    scores, (v, dv) = one.scores(), (one.v.first, one.v.second)
    p, dp = scores.forward(saved(fwd.node, "value").dtype, want_p=dv is not None)
    if kept is not None:
        kept.append(scores)
    out = sum_of_products((dp, v), (p, dv))
    return None if out is None else one.by_head(out)[:, :, : scores.queries]


def vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Compute the tangents of the gradients by Q, K, V and the mask, as far as they are active."""
    parts = _parts(bwd.fwd)
    kept: Sequence[Scores | None] = bwd.fwd.memo or [None] * len(parts)
    by_part = [_vjp_tangent_of_part(bwd, *each) for each in zip(parts, kept, strict=True)]
    return [_joined(found) for found in zip(*by_part, strict=True)]


def _joined(found: Sequence[Tensor | None]) -> Tensor | None:
    present = [t for t in found if t is not None]
    if len(present) == 1 == len(found):
        return present[0]
    return torch.cat(present) if present else None


def _parts(fwd: ForwardNode) -> Sequence[slice | None]:
    """Batches to take at once: at the peak of the backward pass, scores of all could be a fifth of the memory."""
    query, scores = saved(fwd.node, "query"), _bytes_of_scores(fwd.node)
    n = query.shape[0]
    if fwd.active[3:] == (True,) or n * scores <= _bytes_at_once(query):
        return [None]
    at_most = max(1, _bytes_at_once(query) // scores)
    size = -(-n // -(-n // at_most))  # all as large as the last one, or nearly
    return [slice(first, first + size) for first in range(0, n, size)]


def _bytes_of_scores(node: Node) -> int:
    """How large the scores of one batch are."""
    query, key = saved(node, "query"), saved(node, "key")
    return int(math.prod(query.shape[1:3]) * key.shape[2] * precise(query.dtype).itemsize)


def _taken(t: Tensor, part: slice | None) -> Tensor:
    return t if part is None else t[part]


def _bytes_at_once(query: Tensor) -> int:
    """How large the scores of the batches that are taken at once may be: what a core caches, or enough for a GPU."""
    return 1 << 26 if query.is_cuda else 1 << 19


def _vjp_tangent_of_part(bwd: BackwardNode, part: slice | None, kept: Scores | None) -> Tensors:
    one = _Attention.of(bwd.node, bwd.tangents, part)
    q, k, v, dtype = one.q, one.k, one.v, saved(bwd.node, "value").dtype
    dg, plain = (None if t is None else _taken(t, part) for t in (bwd.dg[0], bwd.g[0]))
    g = Pair.of(dg, plain, one.h)
    scores = kept or one.scores()
    found = scores.backward(
        scores_of(g.second, v.first),
        tangent_of_scores(g, v),
        lambda: row_dots(g.second, Pair.of(_taken(saved(bwd.node, "output"), part), None, one.h).first),
        dtype,
        want_p=bwd.active[2],
    )
    rows, drows = found.by_s, None if found.dby_s is None else found.dby_s.to(dtype)
    return _by_inputs(
        bwd,
        one,
        _times(sum_of_products((drows, k.first), (rows, k.second)), one.scale),
        sum_of_products((transposed(drows), q.second), (transposed(rows), q.first)),
        sum_of_products((transposed(found.dp), g.second), (transposed(found.p), g.first)),
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


def _times(t: Tensor | None, factor: float) -> Tensor | None:
    return None if t is None else t.mul_(factor)
