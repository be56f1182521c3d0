"""Batch norm by the statistics of the batch: y = γ x̂ + β, x̂ = r (x - μ), r = 1/σ.

With n values a channel and P(u) = u - mean(u) - x̂ mean(u x̂), x̂̇ = r P(ẋ) and ṙ = -r² c, so that

    by x:  γ r P(g),   whose tangent is   γ r P(ġ) + (γ̇ r - γ r² c) P(g) - γ r² b P(ẋ) - γ r² κ x̂
    by γ:  Σ g x̂,     whose tangent is   Σ ġ x̂ + n r κ
    by β:  Σ g,        whose tangent is   Σ ġ

where m = mean(ẋ), c = mean(ẋ x̂), a = mean(g), b = mean(g x̂), κ = mean(g P(ẋ)) = mean(g ẋ) - a m - b c. γ r P(ẋ) is
torch's fused backward applied to ẋ, which gives m and c beside it; the rest is one pass for each of ġ, g, ẋ, x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations import frozen_norm
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import channel_moments, per_channel
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]


@dataclass(frozen=True, slots=True)
class _Norm:
    """One application: x, μ, r, and γ (None without affine), statistics ``(C,)``."""

    x: Tensor
    mean: Tensor
    r: Tensor
    weight: Tensor | None

    @classmethod
    def of(cls, node: Node) -> _Norm:
        return cls(
            saved(node, "input"), saved(node, "result1"), saved(node, "result2"), saved(node, "weight")
        )

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute γ r P(u), mean(u) and mean(u x̂)."""
        call: Any = torch.ops.aten.native_batch_norm_backward.default
        weight = torch.ones_like(self.r) if self.weight is None else self.weight
        out, along, plain = call(u, self.x, weight, None, None, self.mean, self.r, True, 1e-5, [True] * 3)
        return out, plain / self.count, along / self.count

    def moments(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean(u) and mean(u x̂)."""
        return channel_moments(u, self.x, self.mean, self.r)

    def dot(self, u: Tensor, t: Tensor) -> Tensor:
        """Compute mean(u t) of each channel."""
        return channel_moments(u, t, torch.zeros_like(self.r), torch.ones_like(self.r))[1]

    @property
    def count(self) -> int:
        """How many numbers a channel has."""
        return self.x.numel() // self.x.shape[1]

    def affine(self, slope: Tensor, offset: Tensor) -> Tensor:
        """slope x̂ + offset, in one pass over x, of x's dtype."""
        by_value = slope * self.r
        start = per_channel(offset - by_value * self.mean, self.x.dim())
        return torch.addcmul(start, self.x, per_channel(by_value, self.x.dim())).to(self.x.dtype)

    def over_channels(self, coefficient: Tensor) -> Tensor:
        """A number for each channel, shaped to be multiplied with x."""
        return per_channel(coefficient, self.x.dim()).to(self.x.dtype)


def _jvp(fwd: ForwardNode) -> Tensors:
    if not saved(fwd.node, "training"):
        return frozen_norm.jvp(fwd)
    norm = _Norm.of(fwd.node)
    dx, dgain, dbias = fwd.tangents
    out = None
    if dx is not None:
        out, *fwd.memo = norm.project(dx)
    if dgain is not None:
        beside = norm.affine(dgain, torch.zeros_like(norm.r) if dbias is None else dbias)
        return [beside if out is None else out.add_(beside)]
    if dbias is not None:
        shift = norm.over_channels(dbias)
        return [shift.expand_as(norm.x) if out is None else out.add_(shift)]
    return [out]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    if not saved(bwd.node, "training"):
        return frozen_norm.vjp_tangent(bwd)
    norm = _Norm.of(bwd.node)
    g, dg, dx = bwd.g[0], bwd.dg[0], bwd.tangents[0]
    zero = torch.zeros_like(norm.r)
    sums = _Sums(
        *((zero, zero) if dg is None else norm.moments(dg)),
        *((zero, zero) if g is None else _moments_of_gradient(bwd, norm, g)),
        *((zero, zero) if dx is None else bwd.fwd.memo),
    )
    kappa = zero if g is None or dx is None else norm.dot(g, dx) - sums.a * sums.m - sums.b * sums.c
    by_x, by_gain, by_bias = bwd.active
    return [
        _by_x(bwd, norm, sums, kappa) if by_x else None,
        norm.count * (sums.dg_x + norm.r * kappa) if by_gain else None,
        norm.count * sums.dg if by_bias else None,
    ]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Means over each channel: of ġ, ġ x̂, g, g x̂, ẋ, ẋ x̂."""

    dg: Tensor
    dg_x: Tensor
    a: Tensor
    b: Tensor
    m: Tensor
    c: Tensor


def _moments_of_gradient(bwd: BackwardNode, norm: _Norm, g: Tensor) -> tuple[Tensor, Tensor]:
    _, by_gain, by_bias = bwd.by_inputs
    if by_gain is None or by_bias is None:
        return norm.moments(g)
    return by_bias / norm.count, by_gain / norm.count


def _by_x(bwd: BackwardNode, norm: _Norm, sums: _Sums, kappa: Tensor) -> Tensor:
    dgain = bwd.tangents[1]
    r = norm.r
    gain = torch.ones_like(r) if norm.weight is None else norm.weight
    bent = gain * r * r
    by_g = -bent * sums.c if dgain is None else dgain * r - bent * sums.c
    factors = (gain * r, by_g, -bent * sums.b)
    means = ((sums.dg, sums.dg_x), (sums.a, sums.b), (sums.m, sums.c))
    offset = -sum((f * mean for f, (mean, _) in zip(factors, means, strict=True)), torch.zeros_like(r))
    slope = -sum((f * along for f, (_, along) in zip(factors, means, strict=True)), bent * kappa)
    return _combined(bwd, norm, factors, slope, offset)


def _combined(
    bwd: BackwardNode, norm: _Norm, factors: tuple[Tensor, Tensor, Tensor], slope: Tensor, offset: Tensor
) -> Tensor:
    """slope x̂ + offset + the factors times ġ, g and ẋ: written over ġ where it is to writable."""
    dg, g, dx = bwd.dg[0], bwd.g[0], bwd.tangents[0]
    terms = [*zip((dg, g, dx), factors, strict=True)]
    if dg is not None and bwd.writable[0] and dg.dtype == norm.r.dtype:
        by_value = slope * norm.r
        rest = norm.over_channels(offset - by_value * norm.mean)
        out = torch.addcmul(rest, dg, norm.over_channels(factors[0]), out=dg)
        terms = [*terms[1:], (norm.x, by_value)]
    else:
        out = norm.affine(slope, offset)
    for term, factor in terms:
        if term is not None:
            out.addcmul_(term, norm.over_channels(factor))
    return out


# torch's own second derivative reads what cuDNN and MIOpen saved as what its own kernels did: mean and 1/σ.
_BY_LIBRARY = (
    *("NativeBatchNormBackward0", "NativeBatchNormLegitBackward0", "NativeBatchNormLegitBackward1"),
    *("CudnnBatchNormBackward0", "MiopenBatchNormBackward0"),
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_BY_LIBRARY, Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True)),
    "NativeBatchNormLegitNoTrainingBackward0": Rule(
        frozen_norm.jvp, frozen_norm.vjp_tangent, NONLINEAR, owns_output=True
    ),
}
"""By node."""
