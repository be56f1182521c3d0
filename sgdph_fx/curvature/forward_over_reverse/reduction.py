"""Sums and means, and the loss functions that are linear in their input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import Rule, saved, saved_int, saved_ints
from sgdph_fx.curvature.forward_over_reverse.shape import linear

__all__ = ["RULES"]


def _sum(node: Node, t: Tensor) -> Tensor:
    return t.sum()


def _mean(node: Node, t: Tensor) -> Tensor:
    return t.mean()


def _sum_over(node: Node, t: Tensor) -> Tensor:
    return t.sum(_dims(node, t), saved(node, "keepdim"))


def _mean_over(node: Node, t: Tensor) -> Tensor:
    return t.mean(_dims(node, t), saved(node, "keepdim"))


def _dims(node: Node, t: Tensor) -> list[int]:
    return saved_ints(node, "dim") or list(range(t.dim()))


def _nll(node: Node, t: Tensor) -> Tensor:
    return _nll_loss(torch.ops.aten.nll_loss_forward.default, node, t)


def _nll2d(node: Node, t: Tensor) -> Tensor:
    return _nll_loss(torch.ops.aten.nll_loss2d_forward.default, node, t)


def _nll_loss(forward: Any, node: Node, t: Tensor) -> Tensor:
    out: Tensor
    out, _ = forward(
        t,
        saved(node, "target"),
        saved(node, "weight"),
        saved_int(node, "reduction"),
        saved_int(node, "ignore_index"),
    )
    return out


RULES: Mapping[str, Rule] = {
    "MeanBackward0": linear(_mean),
    "MeanBackward1": linear(_mean_over),
    "NllLoss2DBackward0": linear(_nll2d),
    "NllLossBackward0": linear(_nll),
    "SumBackward0": linear(_sum),
    "SumBackward1": linear(_sum_over),
}
"""By node."""
