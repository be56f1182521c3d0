"""The rows of attention's scores: softmax, its tangent, and what the backward pass makes of both.

Scores are ``(n h, L, S)``, in single precision at least, raw: S = Q Kᵀ without causal mask. Results are
multiplied with V and its likes, and in the dtype of these. On a GPU one Triton kernel makes them in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.operations.softmax import softmax_jacobian
from sgdph_fx.transform.fused import LONGEST_ROW, is_fusible, launch_on_rows

__all__ = ["Scores"]


@dataclass(frozen=True, slots=True)
class BackwardScores:
    """What the products of the backward pass need, ``(n h, L, S)`` each; None is zero, or not asked for.

    Args:
        by_s: P ∘ H, the gradient by the scores.
        dby_s: Its tangent; it may be in the precision of the scores.
        p: P.
        dp: Ṗ.
    """

    by_s: Tensor | None
    dby_s: Tensor | None
    p: Tensor | None
    dp: Tensor | None


@dataclass(slots=True, eq=False)
class Scores:
    """Scores and their tangent.

    Args:
        s: S, in memory of its own.
        ds: Ṡ, in memory of its own; None is zero.
        mask: Added to S, of a shape that broadcasts against ``(n, h, L, S)``; None if there is none.
        heads: h.
        keys: How many columns are keys; those after them are padding.
        queries: How many rows are queries.
        causal: Whether a query sees only the keys up to its own place.
        p: P, once it has been computed.
        dp: Ṗ, once it has been computed; then Ṡ is let go.
    """

    s: Tensor
    ds: Tensor | None
    mask: Tensor | None
    heads: int
    queries: int
    keys: int
    causal: bool
    p: Tensor | None = None
    dp: Tensor | None = None

    def forward(self, dtype: torch.dtype, *, want_p: bool) -> tuple[Tensor | None, Tensor | None]:
        """Compute P, if it is wanted, and Ṗ."""
        if self._is_fusible():
            p, dp = (self._empty(dtype, wanted) for wanted in (want_p, self.ds is not None))
            if self._launch("attention_forward", self.s, self.ds, p, dp, WANT_P=want_p):
                return p, dp
        p, dp = self._turn_into_probabilities()
        return _cast(p if want_p else None, dtype), _cast(dp, dtype)

    def backward(
        self,
        gv: Tensor | None,
        dgv: Tensor | None,
        dots: Callable[[], Tensor],
        dtype: torch.dtype,
        *,
        want_p: bool,
    ) -> BackwardScores:
        """Compute P ∘ H with H = G Vᵀ - Σ G ∘ O, its tangent, P and Ṗ. All scores may be overwritten.

        Args:
            gv: G Vᵀ; None is zero.
            dgv: Ġ Vᵀ + G V̇ᵀ; None is zero.
            dots: Computes Σ G ∘ O, ``(n h, L, 1)``.
            dtype: Of the results.
            want_p: Whether P and Ṗ are wanted.
        """
        return self._backward_fused(gv, dgv, dtype, want_p) or self._backward(gv, dgv, dots, dtype, want_p)

    def _backward_fused(
        self, gv: Tensor | None, dgv: Tensor | None, dtype: torch.dtype, want_p: bool
    ) -> BackwardScores | None:
        if not self._is_fusible():
            return None
        has_ds, has_g = self.ds is not None, gv is not None
        curved = dgv is not None or (has_ds and has_g)
        by_s, dby_s, p, dp = (self._empty(dtype, w) for w in (has_g, curved, want_p, want_p and has_ds))
        given = self.s, self.ds, gv, dgv, by_s, dby_s, p, dp
        constants = {"HAS_G": has_g, "HAS_DGV": dgv is not None, "CURVED": curved, "WANT_P": want_p}
        ran = self._launch("attention_backward", *given, **constants)
        return BackwardScores(by_s, dby_s, p, dp) if ran else None

    def _backward(
        self,
        gv: Tensor | None,
        dgv: Tensor | None,
        dots: Callable[[], Tensor],
        dtype: torch.dtype,
        want_p: bool,
    ) -> BackwardScores:
        p, dp = self._turn_into_probabilities()
        # J(U) is P ∘ U - P Σ P ∘ U, and as P ∘ W is Ṗ, P ∘ U is P ∘ (Ġ Vᵀ + G V̇ᵀ) + Ṗ ∘ H.
        by_s, inner = None, None if dgv is None else dgv.mul_(p)
        if gv is not None:
            h = gv.sub_(dots())
            if dp is not None:
                inner = dp * h if inner is None else inner.addcmul_(dp, h)
            by_s = h.mul_(p)
        dby_s = None if inner is None else inner.addcmul_(p, inner.sum(-1, keepdim=True), value=-1)
        wanted = (p, dp) if want_p else (None, None)
        return BackwardScores(_cast(by_s, dtype), dby_s, *(_cast(t, dtype) for t in wanted))

    def _turn_into_probabilities(self) -> tuple[Tensor, Tensor | None]:
        """Compute P and Ṗ in the precision of the scores, once, in place of S and Ṡ."""
        p = self.probabilities()
        if self.ds is not None:
            self.dp, self.ds = softmax_jacobian(p, self.ds), None
        return p, self.dp

    def probabilities(self) -> Tensor:
        """Compute P in the precision of the scores, once; the scores are overwritten."""
        if self.p is not None:
            return self.p
        if self.causal:
            hidden = torch.ones(self.s.shape[1:], dtype=torch.bool, device=self.s.device).triu_(1)
            self.s.masked_fill_(hidden, -math.inf)
        if self.s.shape[-1] > self.keys:
            self.s[..., self.keys :] = -math.inf
        if self.mask is None:
            self.s = self.p = torch.softmax(self.s, -1)
            return self.p
        by_head = self.s.view(-1, self.heads, *self.s.shape[1:])
        by_head[:, :, : self.queries, : self.keys].add_(self.mask)
        # A row that the mask hides entirely is zero, not 0/0.
        self.s = self.p = torch.ops.aten._safe_softmax.default(self.s, -1)
        return self.p

    def _is_fusible(self) -> bool:
        plain = self.mask is None and self.p is None and self.s.dtype == torch.float32
        return plain and self.s.shape[-1] <= LONGEST_ROW and is_fusible(self.s, self.ds)

    def _launch(self, name: str, *tensors: Tensor | None, **constants: bool) -> bool:
        batches, queries, length = self.s.shape
        numbers = batches * queries, length, queries, self.keys
        constants |= {"CAUSAL": self.causal, "HAS_DS": self.ds is not None}
        return launch_on_rows(name, batches * queries, length, *tensors, *numbers, **constants)

    def _empty(self, dtype: torch.dtype, wanted: bool) -> Tensor | None:
        return torch.empty_like(self.s, dtype=dtype) if wanted else None


def _cast(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(dtype)
