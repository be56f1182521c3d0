"""What norms share: numbers brought to mean 0 and variance 1, x̂ = r (x - μ), each row or channel by itself.

With P(u) = u - mean(u) - x̂ mean(u x̂) over each row, x̂̇ = r P(ẋ). The gradient r P(h) of a gradient h by x̂ has the
tangent r P(ḣ - ċ h - r b ẋ) - r κ x̂, where ċ = r mean(ẋ x̂) (so that ṙ = -r ċ), b = mean(h x̂) and
κ = mean(h x̂̇) = r (mean(h ẋ) - mean(h) mean(ẋ)) - b ċ. An RMS norm subtracts no mean: μ = 0, P(u) = u - x̂ mean(u x̂),
and κ = r mean(h ẋ) - b ċ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Rows", "channel_moments", "channel_sum", "per_channel"]


@dataclass(frozen=True, slots=True)
class Rows:
    """One application of a norm to rows, in single precision at least.

    Args:
        x: ``(R, D)``, each row normalized by itself.
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
            x: Any tensor of R times D numbers.
            shape: (R, D).
            mean: R numbers, or None.
            r: R numbers.
        """
        precise = torch.promote_types(torch.promote_types(x.dtype, r.dtype), torch.float32)
        column = None if mean is None else mean.reshape(-1, 1).to(precise)
        return cls(x.reshape(shape).to(precise), column, r.reshape(-1, 1).to(precise))

    @property
    def normalized(self) -> Tensor:
        """x̂, ``(R, D)``."""
        return self._centred() * self.r

    def project(self, u: Tensor) -> Tensor:
        """Compute r P(u), of any tensor that has the numbers of x in its order; of the same shape."""
        rows = self._rows(u)
        if not rows.numel():
            return rows.view(u.shape)
        if self.mean is None:
            along = self._moments(rows)[1]
            return (rows * self.r).addcmul_(self.x, -self.r * self.r * along).view(u.shape)
        call: Any = torch.ops.aten.native_layer_norm_backward.default
        out: Tensor
        out, _, _ = call(rows, self.x, self.x.shape[1:], self.mean, self.r, None, None, [True, False, False])
        return out.view(u.shape)

    def vjp_tangent(self, h: Tensor | None, dh: Tensor | None, dx: Tensor) -> Tensor | None:
        """Compute the tangent of r P(h), of the shape of ``dx``."""
        if h is None:
            return None if dh is None else self.project(dh)
        h_rows, dx_rows, r = self._rows(h), self._rows(dx), self.r
        (a, b), (m, c) = self._moments(h_rows), self._moments(dx_rows)
        turned = r * c
        kappa = r * _row_means(h_rows, dx_rows) - b * turned
        if self.mean is not None:
            kappa = kappa - r * a * m
        inner = h_rows * -turned if dh is None else torch.addcmul(self._rows(dh), h_rows, turned, value=-1)
        out = self.project(inner.addcmul_(dx_rows, r * b, value=-1))
        return out.addcmul_(self._centred(), r * r * kappa, value=-1).view(dx.shape)

    def _centred(self) -> Tensor:
        return self.x if self.mean is None else self.x - self.mean

    def _rows(self, t: Tensor) -> Tensor:
        return t.reshape(self.x.shape).to(self.x.dtype)

    def _moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean(u) and mean(u x̂) of each row, ``(R, 1)``."""
        mean = torch.zeros_like(self.r) if self.mean is None else self.mean
        first, second = channel_moments(rows[None], self.x[None], mean.view(-1), self.r.view(-1))
        return first.view(-1, 1), second.view(-1, 1)


def _row_means(a: Tensor, b: Tensor) -> Tensor:
    """Compute mean(a b) of each row, ``(R, 1)``, without a tensor for the products."""
    one = torch.ones(a.shape[0], dtype=a.dtype, device=a.device)
    return channel_moments(a[None], b[None], torch.zeros_like(one), one)[1].view(-1, 1)


def channel_moments(u: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean(u) and mean(u r (x - μ)) of each channel, ``(C,)``, in one pass, of ``(N, C, ...)``."""
    if not x.numel():
        return torch.zeros_like(r), torch.zeros_like(
            r
        )  # torch's kernel would divide by the number of channels
    call: Any = torch.ops.aten.native_batch_norm_backward.default
    # Without a weight, CUDA leaves the gradient by the weight undefined, which the CPU computes all the same.
    # CUDA takes no epsilon of zero; none is used where mean and r are given.
    _, along, plain = call(u, x, torch.ones_like(r), None, None, mean, r, True, 1e-5, [False, True, True])
    count = x.numel() // x.shape[1]
    return plain / count, along / count


def per_channel(values: Tensor, dims: int) -> Tensor:
    """Shape one number for each channel, ``(C,)``, to broadcast against ``(N, C, ...)`` of ``dims`` dimensions."""
    return values.view(1, -1, *[1] * (dims - 2))


def channel_sum(t: Tensor | None) -> Tensor | None:
    """Sum over all dimensions but the channels', ``(C,)``; None, a zero, stays None."""
    return None if t is None else t.sum([d for d in range(t.dim()) if d != 1])
