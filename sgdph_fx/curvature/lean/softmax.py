"""Softmax and its logarithm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.lean.fallback import apply
from sgdph_fx.curvature.lean.visit import NONLINEAR, Rule, Tensors, Turn, Visit, saved, saved_int, total

__all__ = ["RULES"]


def _push_softmax(visit: Visit) -> Tensors:
    (visit.memo,) = apply(visit.node, visit.tangents)  # its Jacobian is symmetric
    return [visit.memo]


def _pull_softmax(turn: Turn) -> Tensors:
    # by x: y (g - Σ g y)
    (g,), dy = turn.g, turn.visit.memo
    y, dim = saved(turn.node, "result"), saved_int(turn.node, "dim")
    bent = None
    if g is not None and dy is not None:
        bent = dy * (g - (g * y).sum(dim, keepdim=True)) - y * (g * dy).sum(dim, keepdim=True)
    return [total(_passed(turn), bent)]


def _push_log_softmax(visit: Visit) -> Tensors:
    (dx,) = visit.tangents
    if dx is None:
        return [None]
    p = saved(visit.node, "result").exp()
    visit.memo = dx - (p * dx).sum(saved_int(visit.node, "dim"), keepdim=True)
    return [visit.memo]


def _pull_log_softmax(turn: Turn) -> Tensors:
    # by x: g - p Σ g, with p = exp y
    (g,), dy = turn.g, turn.visit.memo
    bent = None
    if g is not None and dy is not None:
        p, dim = saved(turn.node, "result").exp(), saved_int(turn.node, "dim")
        bent = -(p * dy) * g.sum(dim, keepdim=True)
    return [total(_passed(turn), bent)]


def _passed(turn: Turn) -> Tensor | None:
    return None if turn.dg[0] is None else apply(turn.node, turn.dg)[0]


RULES: Mapping[str, Rule] = {
    "LogSoftmaxBackward0": Rule(_push_log_softmax, _pull_log_softmax, NONLINEAR),
    "SoftmaxBackward0": Rule(_push_softmax, _pull_softmax, NONLINEAR),
    "SafeSoftmaxBackward0": Rule(_push_softmax, _pull_softmax, NONLINEAR),
}
"""By node."""
