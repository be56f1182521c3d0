"""Sums and means, and the losses that are linear in their input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.linear import TRANSPOSED, by_call, linear
from sgdph_fx.curvature.forward_over_reverse.rule import Rule, output_dtype, saved, saved_ints

__all__ = ["RULES", "reduced_dims", "widened"]


def reduced_dims(node: Node, dims: int) -> list[int]:
    """Return the dimensions that an operation reduces: all ``dims`` of them if none were given."""
    return saved_ints(node, "dim") or list(range(dims))


def widened(node: Node, t: Tensor, dims: int) -> Tensor:
    """Shape a result of the operation to broadcast against its input, which has ``dims`` dimensions."""
    if saved(node, "keepdim") or not dims:
        return t
    for dim in sorted(d % dims for d in reduced_dims(node, dims)):
        t = t.unsqueeze(dim)
    return t


def _sum(node: Node, t: Tensor) -> Tensor:
    return t.sum(dtype=output_dtype(node))


def _mean(node: Node, t: Tensor) -> Tensor:
    return t.mean(dtype=output_dtype(node))


def _sum_over(node: Node, t: Tensor) -> Tensor:
    return t.sum(reduced_dims(node, t.dim()), saved(node, "keepdim"), dtype=output_dtype(node))


def _mean_over(node: Node, t: Tensor) -> Tensor:
    return t.mean(reduced_dims(node, t.dim()), saved(node, "keepdim"), dtype=output_dtype(node))


def _cumsum(node: Node, t: Tensor) -> Tensor:
    return t.cumsum(saved(node, "dim"), dtype=output_dtype(node))


def _nll(node: Node, t: Tensor) -> Tensor:
    return _nll_loss(torch.ops.aten.nll_loss_forward.default, node, t)


def _nll2d(node: Node, t: Tensor) -> Tensor:
    return _nll_loss(torch.ops.aten.nll_loss2d_forward.default, node, t)


def _nll_loss(forward: Any, node: Node, t: Tensor) -> Tensor:
    arguments = (saved(node, name) for name in ("target", "weight", "reduction", "ignore_index"))
    out: Tensor
    out, _ = forward(t, *arguments)
    return out


RULES: Mapping[str, Rule] = {
    "CumsumBackward0": linear(_cumsum),
    "MeanBackward0": linear(_mean),
    "MeanBackward1": linear(_mean_over),
    "NansumBackward0": TRANSPOSED,
    "NllLoss2DBackward0": linear(_nll2d),
    "NllLossBackward0": linear(_nll),
    "SumBackward0": linear(_sum),
    "SumBackward1": linear(_sum_over),
    "TraceBackward0": by_call("trace"),
}
"""Node ↦ rule."""
