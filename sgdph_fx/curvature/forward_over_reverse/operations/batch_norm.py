"""Batch norm by the statistics of the batch: y = γ x̂ + β, x̂ = r (x - μ), r = 1/σ.

With n values a channel and P(u) = u - mean(u) - x̂ mean(u x̂), x̂̇ = r P(ẋ) and ṙ = -r² c, so that

    by x:  γ r P(g),   whose tangent is   γ r P(ġ) + (γ̇ r - γ r² c) P(g) - γ r² b P(ẋ) - γ r² κ x̂
    by γ:  Σ g x̂,     whose tangent is   Σ ġ x̂ + n r κ
    by β:  Σ g,        whose tangent is   Σ ġ

where c = mean(ẋ x̂), b = mean(g x̂) and κ = mean(g P(ẋ)) = mean(g ẋ) - mean(g) mean(ẋ) - b c. γ r P(ẋ) is torch's
fused backward applied to ẋ, which gives ẋ's sums beside it; the rest is one pass for each of ġ, g, ẋ and x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations import frozen_norm
from sgdph_fx.curvature.forward_over_reverse.operations.fused_batch_norm import is_combinable
from sgdph_fx.curvature.forward_over_reverse.operations.fused_batch_norm import (
    vjp_tangent as fused_vjp_tangent,
)
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import (
    batch_norm_backward,
    channel_sums,
    per_channel,
)
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
    """One application: x, the statistics μ and r of each channel, ``(C,)``, and γ, None without affine."""

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
        """Compute γ r P(u), Σ u and Σ u x̂."""
        weight = torch.ones_like(self.r) if self.weight is None else self.weight
        out, along, plain = batch_norm_backward(u, self.x, weight, self.mean, self.r, [True] * 3)
        return out, plain, along

    def sums(self, u: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute Σ u and Σ u x̂ of each channel; None is zero."""
        if u is None:
            return torch.zeros_like(self.r), torch.zeros_like(self.r)
        return channel_sums(u, self.x, self.mean, self.r)

    @property
    def count(self) -> int:
        """How many numbers a channel has."""
        return self.x.numel() // self.x.shape[1]

    def affine(self, slope: Tensor, offset: Tensor) -> Tensor:
        """Compute slope x̂ + offset in one pass over x, in x's dtype."""
        by_value = slope * self.r
        start = per_channel(offset - by_value * self.mean, self.x.dim())
        return torch.addcmul(start, self.x, per_channel(by_value, self.x.dim())).to(self.x.dtype)

    def over_channels(self, *coefficients: Tensor) -> list[Tensor]:
        """Shape numbers for each channel to broadcast against x, in x's dtype."""
        each: Sequence[Tensor] = coefficients
        if any(t.dtype != self.x.dtype for t in coefficients):
            each = torch.stack(coefficients).to(self.x.dtype).unbind()  # one cast for all
        return [per_channel(t, self.x.dim()) for t in each]


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
        (shift,) = norm.over_channels(dbias)
        return [shift.expand_as(norm.x) if out is None else out.add_(shift)]
    return [out]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    if not saved(bwd.node, "training"):
        return frozen_norm.vjp_tangent(bwd)
    norm = _Norm.of(bwd.node)
    if [*bwd.active] == [True, False, False]:
        by_x = _fused(bwd, norm)
        by_x = _by_x_alone(bwd, norm) if by_x is None else by_x
        if by_x is not None:
            return [by_x, None, None]
    sums = _Sums.of(bwd, norm)
    has_x, by_gain, by_bias = bwd.active
    return [
        _by_x(bwd, norm, sums) if has_x else None,
        sums.dg_x + sums.kappa if by_gain else None,
        sums.dg if by_bias else None,
    ]


def _fused(bwd: BackwardNode, norm: _Norm) -> Tensor | None:
    """Compute the tangent by x of a norm that is not due by two kernels; None where none takes it."""
    (g,), (dg,), dx, memo = bwd.g[:1], bwd.dg[:1], bwd.tangents[0], bwd.fwd.memo
    if g is None or dx is None or memo is None or not is_combinable(norm.x, g, dg, dx):
        return None
    channels = (norm.weight, norm.mean, norm.r, *_of_gradient(bwd, norm), *memo)
    free = bwd.writable[0] and dg is not None and (dg.dtype, dg.stride()) == (norm.x.dtype, norm.x.stride())
    return fused_vjp_tangent(norm.x, (g, dg, dx), channels, dg if free else None)


def _by_x_alone(bwd: BackwardNode, norm: _Norm) -> Tensor | None:
    """Compute the tangent by x of a norm that is not due; None if something is missing.

    γ r P(g) is what autograd has just found. So γ r κ is its mean with ẋ, and all else is γ r P(u).
    """
    g, dg, dx, memo, by_x = bwd.g[0], bwd.dg[0], bwd.tangents[0], bwd.fwd.memo, bwd.by_inputs[0]
    if g is None or dx is None or memo is None or by_x is None:
        return None
    r, share = norm.r * (1 / norm.count), 1 / norm.count
    # Without the mean of ẋ, which would hide the rest where it is large.
    _, along = channel_sums(by_x, dx, (memo[0] * share).to(r.dtype), r)
    turned, bent = norm.over_channels(r * memo[1], r * _of_gradient(bwd, norm)[1])
    if dg is None:
        u = g * -turned
    else:
        u = torch.addcmul(dg, g, turned, value=-1, out=dg if _is_writable(bwd, norm) else None)
    sum_u, u_x = channel_sums(u.addcmul_(dx, bent, value=-1), norm.x, norm.mean, r)
    factor = norm.r if norm.weight is None else norm.weight * norm.r
    by_value = torch.addcmul(along, factor, u_x).mul_(norm.r)
    offset = (by_value * norm.mean).addcmul_(factor, sum_u, value=-share)
    start, factor, by_value = norm.over_channels(offset, factor, by_value)
    return torch.addcmul(start, u, factor, out=u).addcmul_(norm.x, by_value, value=-1)


def _is_writable(bwd: BackwardNode, norm: _Norm) -> bool:
    dg = bwd.dg[0]
    return bwd.writable[0] and dg is not None and dg.dtype == norm.x.dtype


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over each channel, ``(C,)``: of ġ, ġ x̂, g, g x̂, ẋ, ẋ x̂; and n r κ."""

    dg: Tensor
    dg_x: Tensor
    g: Tensor
    g_x: Tensor
    dx: Tensor
    dx_x: Tensor
    kappa: Tensor

    @classmethod
    def of(cls, bwd: BackwardNode, norm: _Norm) -> _Sums:
        g, dx = bwd.g[0], bwd.tangents[0]
        # Gradients by γ and β are in γ's dtype, which may be a half that their products would overflow.
        precise = torch.promote_types(norm.r.dtype, torch.float32)
        of_g, of_dx = _of_gradient(bwd, norm), bwd.fwd.memo or norm.sums(None)
        sum_g, g_x, sum_dx, dx_x = (t.to(precise) for t in (*of_g, *of_dx))
        if g is None or dx is None:
            kappa = torch.zeros_like(norm.r)
        else:
            # Without the mean of ẋ, which would hide the rest where it is large.
            _, along = channel_sums(g, dx, (sum_dx / norm.count).to(norm.r.dtype), norm.r)
            kappa = torch.addcmul(along, g_x * dx_x, norm.r, value=-1 / norm.count)
        return cls(*norm.sums(bwd.dg[0]), sum_g, g_x, sum_dx, dx_x, kappa)


def _of_gradient(bwd: BackwardNode, norm: _Norm) -> tuple[Tensor, Tensor]:
    """Take Σ g and Σ g x̂ from autograd where it has just summed up gradients by β and γ."""
    _, by_gain, by_bias = bwd.by_inputs
    return norm.sums(bwd.g[0]) if by_gain is None or by_bias is None else (by_bias, by_gain)


def _by_x(bwd: BackwardNode, norm: _Norm, sums: _Sums) -> Tensor:
    """Add up ġ, g, ẋ and x, each times a factor, and an offset; write over ġ if that is allowed."""
    r, share, dgain = norm.r, 1 / norm.count, bwd.tangents[1]
    by_dg = r if norm.weight is None else norm.weight * r
    bent = (by_dg * r).mul_(-share)
    by_g, by_dx = bent * sums.dx_x, bent * sums.g_x
    if dgain is not None:
        by_g.addcmul_(dgain, r)
    by_x = by_dg * (sums.kappa + sums.dg_x)
    by_x.addcmul_(by_g, sums.g_x).addcmul_(by_dx, sums.dx_x).mul_(r).mul_(-share)
    offset = (by_dg * sums.dg).addcmul_(by_g, sums.g).addcmul_(by_dx, sums.dx).mul_(-share)
    offset.addcmul_(by_x, norm.mean, value=-1)
    terms = [(bwd.dg[0], by_dg), (bwd.g[0], by_g), (bwd.tangents[0], by_dx), (norm.x, by_x)]
    return _added_up(norm, offset, [(t, f) for t, f in terms if t is not None], _is_writable(bwd, norm))


def _added_up(norm: _Norm, offset: Tensor, terms: list[tuple[Tensor, Tensor]], writable: bool) -> Tensor:
    first, *others = (t for t, _ in terms)
    start, factor, *factors = norm.over_channels(offset, *(factor for _, factor in terms))
    out = torch.addcmul(start, first, factor, out=first if writable else None)
    for other, factor in zip(others, factors, strict=True):
        out.addcmul_(other, factor)
    return out


# cuDNN and MIOpen save mean and 1/σ as torch's own kernels do; torch's second derivative relies on that, too.
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
"""Node ↦ rule."""
