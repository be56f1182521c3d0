"""Layer norm and RMS norm as Triton kernels, where there is a GPU: each half of a norm that is not due, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import saved
from sgdph_fx.transform.fused import LONGEST_ROW, is_fusible, launch_on_rows

__all__ = ["jvp", "vjp_tangent"]


def jvp(node: Node, dx: Tensor) -> Tensor | None:
    """Compute γ r P(ẋ); None where no kernel takes it."""
    norm = _Norm.of(node, dx)
    if norm is None:
        return None
    out = torch.empty(norm.x.shape, dtype=norm.x.dtype, device=norm.x.device)
    x, moved = norm.rows(norm.x), norm.rows(dx)
    ran = launch_on_rows(
        *("layer_norm_forward", norm.count, norm.length),
        *(x, moved, norm.weight, norm.mean, norm.r, out, norm.count, norm.length, x.shape[1]),
        *_strides(x, moved),
        CENTRED=norm.mean is not None,
        HAS_WEIGHT=norm.weight is not None,
    )
    return out if ran else None


def vjp_tangent(node: Node, g: Tensor, dg: Tensor | None, dx: Tensor) -> Tensor | None:
    """Compute the tangent of r P(γ g); None where no kernel takes it."""
    norm = _Norm.of(node, g, dg, dx)
    if norm is None:
        return None
    out = torch.empty(norm.x.shape, dtype=norm.x.dtype, device=norm.x.device)
    x, passed, moved = (norm.rows(t) for t in (norm.x, g, dx))
    turned = None if dg is None else norm.rows(dg)
    ran = launch_on_rows(
        *("layer_norm_backward", norm.count, norm.length),
        *(x, passed, turned, moved, norm.weight, norm.mean, norm.r, out, norm.count, norm.length, x.shape[1]),
        *_strides(x, passed, turned, moved),
        CENTRED=norm.mean is not None,
        HAS_WEIGHT=norm.weight is not None,
        HAS_DG=dg is not None,
    )
    return out if ran else None


@dataclass(frozen=True, slots=True)
class _Norm:
    """One application.

    Args:
        x: The input.
        count: How many rows it has.
        length: Numbers in a row.
        last: Whether a row is the last dimension alone.
        weight: γ, ``(length,)``, or None.
        mean: μ of each row, ``(count,)``; None of an RMS norm.
        r: 1/σ of each row, ``(count,)``.
    """

    x: Tensor
    count: int
    length: int
    last: bool
    weight: Tensor | None
    mean: Tensor | None
    r: Tensor

    @classmethod
    def of(cls, node: Node, *others: Tensor | None) -> _Norm | None:
        """Read a node, if a kernel takes its tensors and the others."""
        x, weight, shape = saved(node, "input"), saved(node, "weight"), saved(node, "normalized_shape")
        names = ("result1", "result2") if hasattr(node, "_saved_result2") else ("result1",)
        *mean, r = (saved(node, name) for name in names)  # an RMS norm saves 1/σ alone
        length = math.prod(shape)
        if length > LONGEST_ROW or not is_fusible(x, weight, r, *mean, *others):
            return None
        flat = None if weight is None else weight.reshape(-1).contiguous()  # one number may stand for all
        means = mean[0].reshape(-1) if mean else None
        return cls(x, x.numel() // length, length, len(shape) == 1, flat, means, r.reshape(-1))

    def rows(self, t: Tensor) -> Tensor:
        """View a tensor as ``(outer, inner, length)`` with the numbers of a row side by side; copy it if need be."""
        t = t if t.dim() == 3 and self.last else t.reshape(1, -1, self.length)
        return t if t.stride(-1) == 1 else t.contiguous()


def _strides(*rows: Tensor | None) -> list[int]:
    return [stride for t in rows for stride in ((0, 0) if t is None else t.stride()[:2])]
