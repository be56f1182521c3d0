"""What layer and group norm share: rows brought to mean 0 and variance 1, x̂ = r (x - μ).

With P(u) = u - mean(u) - x̂ mean(u x̂) over each row, x̂̇ = r P(ẋ). The backward r P(h) of a gradient h by x̂ has the
tangent r P(ḣ - ċ h) - r b x̂̇ - r κ x̂, where ċ = mean(x̂̇' x̂) with x̂̇' = r ẋ (so that ṙ = -r ċ), b = mean(h x̂) and
κ = mean(h x̂̇).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Rows", "channel_sum", "per_channel"]


@dataclass(frozen=True, slots=True)
class Rows:
    """One application.

    Args:
        x: ``(R, D)``, each row normalized by itself.
        mean: μ, ``(R, 1)``.
        r: 1/σ, ``(R, 1)``.
    """

    x: Tensor
    mean: Tensor
    r: Tensor

    @property
    def normalized(self) -> Tensor:
        """x̂, ``(R, D)``."""
        return (self.x - self.mean) * self.r

    def project(self, u: Tensor) -> Tensor:
        """r P(u) by torch's fused backward, of any tensor that has the elements of x in its order."""
        call: Any = torch.ops.aten.native_layer_norm_backward.default
        x = self.x
        out: Tensor
        out, _, _ = call(
            u.reshape(x.shape), x, x.shape[1:], self.mean, self.r, None, None, [True, False, False]
        )
        return out.view(u.shape)

    def vjp_tangent(self, h: Tensor | None, dh: Tensor | None, dx: Tensor) -> Tensor | None:
        """The tangent of r P(h), of the shape of ``dx``."""
        if h is None:
            return None if dh is None else self.project(dh)
        normalized, pushed = self.normalized, self.project(dx).view_as(self.x)
        rows = h.reshape(self.x.shape)
        turned = self.r * (dx.reshape(self.x.shape) * normalized).mean(1, keepdim=True)
        b = (rows * normalized).mean(1, keepdim=True)
        kappa = (rows * pushed).mean(1, keepdim=True)
        inner = rows * -turned if dh is None else dh.reshape(self.x.shape) - rows * turned
        out = self.project(inner) - (pushed.mul_(b) + normalized.mul_(kappa)).mul_(self.r)
        return out.view(dx.shape)


def per_channel(values: Tensor, dims: int) -> Tensor:
    """One number for each channel, ``(C,)``, shaped to broadcast against ``(N, C, ...)`` of ``dims`` dimensions."""
    return values.view(1, -1, *[1] * (dims - 2))


def channel_sum(t: Tensor | None) -> Tensor | None:
    """The sum over all dimensions but the channels', ``(C,)``; None, a zero, stays None."""
    return None if t is None else t.sum([d for d in range(t.dim()) if d != 1])
