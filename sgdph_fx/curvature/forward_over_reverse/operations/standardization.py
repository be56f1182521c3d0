"""What norms share: each row or channel is brought to mean 0 and variance 1, x̂ = r (x - μ).

With P(u) = u - mean(u) - x̂ mean(u x̂) over each row of n numbers, x̂̇ = r P(ẋ). The gradient r P(h) of a gradient h
by x̂ has the tangent r P(ḣ - ċ h - r b ẋ) - r κ x̂, where ċ = r mean(ẋ x̂) (so that ṙ = -r ċ), b = mean(h x̂) and
κ = mean(h x̂̇) = r (mean(h ẋ) - mean(h) mean(ẋ)) - b ċ. An RMS norm subtracts no mean: μ = 0, P(u) = u - x̂ mean(u x̂)
and κ = r mean(h ẋ) - b ċ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import BackwardNode

__all__ = [
    "Rows",
    "batch_norm_backward",
    "channel_sum",
    "channel_sums",
    "laid_out_like",
    "own",
    "per_channel",
]


@dataclass(frozen=True, slots=True)
class Rows:
    """One application of a norm to rows, in single precision at least.

    Args:
        x: ``(R, n)``, each row normalized by itself.
        mean: μ, ``(R, 1)``; None if none is subtracted.
        r: 1/σ, ``(R, 1)``.
    """

    x: Tensor
    mean: Tensor | None
    r: Tensor

    @classmethod
    def of(cls, x: Tensor, shape: tuple[int, int], mean: Tensor | None, r: Tensor) -> Rows:
        """Read the rows of ``x`` and their statistics.

        Args:
            x: Any tensor of R times n numbers.
            shape: (R, n).
            mean: R numbers, or None.
            r: R numbers.
        """
        precise = torch.promote_types(torch.promote_types(x.dtype, r.dtype), torch.float32)
        column = None if mean is None else mean.reshape(-1, 1).to(precise)
        return cls(x.reshape(shape).to(precise), column, r.reshape(-1, 1).to(precise))

    @property
    def normalized(self) -> Tensor:
        """x̂, ``(R, n)``."""
        return (self.x if self.mean is None else self.x - self.mean) * self.r

    def rows(self, t: Tensor) -> Tensor:
        """Reshape a tensor whose numbers are ordered as x's to x's shape and dtype."""
        return t.reshape(self.x.shape).to(self.x.dtype)

    def project(self, u: Tensor) -> Tensor:
        """Compute r P(u), ``(R, n)``, in memory of its own."""
        rows = self.rows(u)
        if not rows.numel():
            return rows.clone()
        if self.mean is None:
            along = self._sums(rows)[1] / rows.shape[1]
            return (rows * self.r).addcmul_(self.x, self.r * self.r * along, value=-1)
        call: Any = torch.ops.aten.native_layer_norm_backward.default
        out: Tensor
        out, _, _ = call(rows, self.x, self.x.shape[1:], self.mean, self.r, None, None, [True, False, False])
        return out

    def vjp_tangent(self, h: Tensor, dh: Tensor | None, dx: Tensor) -> Tensor:
        """Compute the tangent of r P(h), ``(R, n)``; the numbers of h, ḣ and ẋ are ordered as x's.

        ḣ may be overwritten.
        """
        h, dx, share = self.rows(h), self.rows(dx), 1 / max(self.x.shape[1], 1)
        (_, b), (m, c) = self._sums(h), self._sums(dx)
        turned = self.r * c
        # Sums of ẋ without its mean: their difference would lose what a large mean hides.
        along = self._sums(h, dx, None if self.mean is None else m * share)[1]
        kappa = along.addcmul_(b, turned, value=-share).mul_(self.r).mul_(self.r)
        inner = h * (turned * -share) if dh is None else self.rows(dh).addcmul_(h, turned, value=-share)
        out = self.project(inner.addcmul_(dx, b.mul_(self.r), value=-share))
        centred = self.x if self.mean is None else torch.sub(self.x, self.mean, out=inner)
        return out.addcmul_(centred, kappa, value=-share)

    def _sums(
        self, u: Tensor, t: Tensor | None = None, middle: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute Σ u and Σ u x̂ of each row, ``(R, 1)``, or Σ u and r Σ u (t - middle)."""
        x, mean = (self.x, self.mean) if t is None else (t, middle)
        mean = torch.zeros_like(self.r) if mean is None else mean
        first, second = channel_sums(u[None], x[None], mean.view(-1), self.r.view(-1))
        return first.view(-1, 1), second.view(-1, 1)


def own(dh: Tensor | None, bwd: BackwardNode) -> Tensor | None:
    """Copy ḣ, so that it may be overwritten, if it is ġ itself and something else reads that."""
    is_last = bwd.writable[0] and sum(bwd.active) == 1
    return dh if dh is None or dh is not bwd.dg[0] or is_last else dh.clone()


def channel_sums(u: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Σ u and Σ u r (x - μ) of each channel, ``(C,)``, in one pass over two tensors ``(N, C, ...)``."""
    if not x.numel():  # torch's kernel would divide by the number of channels
        return torch.zeros_like(r), torch.zeros_like(r)
    # The weight changes neither sum, but without one CUDA leaves the second undefined.
    _, along, plain = batch_norm_backward(u, x, r, mean, r, [False, True, True])
    return plain, along


def batch_norm_backward(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Call torch's fused backward of batch norm by the statistics of the batch: by x, weight and bias."""
    if x.shape[0] == 1 and x.dim() > 3:
        # Where the channels of one sample lie last under a batch stride of their own, as they do in tokens that were
        # made a map, torch's kernel on a CPU takes them for lying first.
        g = laid_out_like(x, g)
    call: Any = torch.ops.aten.native_batch_norm_backward.default
    # Epsilon is not used, as mean and r are given, but CUDA refuses zero.
    by_x, by_weight, by_bias = call(g, x, weight, None, None, mean, r, True, 1e-5, wanted)
    return by_x, by_weight, by_bias


def laid_out_like(x: Tensor, t: Tensor) -> Tensor:
    """Copy ``t``, of x's shape, to the places of memory that x has, unless it has them already."""
    return t if t.stride() == x.stride() else torch.empty_like(x, dtype=t.dtype).copy_(t)


def per_channel(values: Tensor, dims: int) -> Tensor:
    """Shape one number for each channel, ``(C,)``, to broadcast against ``(N, C, ...)`` of ``dims`` dimensions."""
    return values.view(1, -1, *[1] * (dims - 2))


def channel_sum(t: Tensor | None) -> Tensor | None:
    """Sum over all dimensions but the channels', ``(C,)``; None, a zero, stays None."""
    return None if t is None else t.sum([d for d in range(t.dim()) if d != 1])
