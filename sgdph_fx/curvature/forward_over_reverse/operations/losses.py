"""Losses of an input x and a target t: ℓ(x, t) for each number, and then all of these, their mean or their sum.

Let s be each number's share in the result: 1/n for a mean, else 1. The gradient by x is s g ℓ', and its tangent is
s ġ ℓ' + s g ℓ'' ẋ. If ℓ depends on x - t alone, ẋ - ṫ replaces ẋ, and t gets the opposite of what x gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_dtype,
    output_shape,
    saved,
)

__all__ = ["BENDS", "OF_DIFFERENCES", "RULES", "Bend"]

Bend: TypeAlias = "Callable[[Node], Tensor | float]"
_NONE, _MEAN = 0, 1


def _differences(bend: Bend) -> Rule:
    """Make the rule of a loss of x - t, given ℓ''."""

    def jvp(fwd: ForwardNode) -> Tensors:
        return [_pushed(fwd.node, _difference(fwd.tangents))]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        by_x, by_t = _passed(bwd)
        bent = _bent(bwd, bend, _difference(bwd.tangents))
        if bent is None:
            return [by_x, by_t]
        to_x, to_t = (*bwd.active, False)[:2]
        return [
            (bent if by_x is None else by_x.add_(bent)) if to_x else None,
            (-bent if by_t is None else by_t.sub_(bent)) if to_t else None,
        ]

    return Rule(jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _by_input(bend: Bend) -> Rule:
    """Make the rule of a loss, given ℓ'' by its input; torch differentiates it if the target has a tangent."""

    def jvp(fwd: ForwardNode) -> Tensors:
        dx, *others = fwd.tangents
        if any(t is not None for t in others):
            return torch_jvp(fwd)
        return [_pushed(fwd.node, dx)]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        if any(bwd.active[1:]):
            return torch_vjp_tangent(bwd)
        by_x = _passed(bwd)[0]
        bent = _bent(bwd, bend, bwd.tangents[0])
        return [by_x if bent is None else bent if by_x is None else by_x.add_(bent)]

    return Rule(jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _difference(tangents: Tensors) -> Tensor | None:
    dx, dt = (*tangents, None)[:2]
    return dx if dt is None else -dt if dx is None else dx - dt


def _pushed(node: Node, d: Tensor | None) -> Tensor | None:
    """Compute Σ s ℓ' d, or ℓ' d for each number: the backward multiplies by s ℓ'."""
    if d is None:
        return None
    if saved(node, "reduction") == _NONE:
        return _slope(node, d.to(output_dtype(node)))
    one = torch.ones(output_shape(node), dtype=output_dtype(node), device=d.device)
    return (_slope(node, one) * d).sum()


def _slope(node: Node, g: Tensor) -> Tensor:
    by_x, by_t = (*apply(node, [g]), None)[:2]
    if by_x is not None:
        return by_x
    assert by_t is not None
    return -by_t


def _passed(bwd: BackwardNode) -> tuple[Tensor | None, Tensor | None]:
    if bwd.dg[0] is None:
        return None, None
    by_x, by_t = (*apply(bwd.node, bwd.dg), None)[:2]
    return by_x, by_t


def _bent(bwd: BackwardNode, bend: Bend, d: Tensor | None) -> Tensor | None:
    (g,) = bwd.g
    if g is None or d is None:
        return None
    share = 1 / max(d.numel(), 1) if saved(bwd.node, "reduction") == _MEAN else 1
    return (d * (g * share)).mul_(bend(bwd.node))


def _distance(node: Node) -> Tensor:
    distance: Tensor = (saved(node, "self") - saved(node, "target")).abs()
    return distance


def _smooth_l1(node: Node) -> Tensor:
    distance, beta = _distance(node), float(saved(node, "beta"))
    near: Tensor = distance < beta
    return near.to(distance.dtype).div_(beta or 1)


def _huber(node: Node) -> Tensor:
    distance = _distance(node)
    near: Tensor = distance < float(saved(node, "delta"))
    return near.to(distance.dtype)


def _cross_entropy(node: Node) -> Tensor:
    """Compute ℓ'' of -t log x - (1 - t) log(1 - x), guarded against division by zero as torch's gradient is."""
    x, t = saved(node, "self"), saved(node, "target")
    bend: Tensor = (t * (1 - x) ** 2 + (1 - t) * x**2) / (x * (1 - x)).clamp_(min=1e-12).square_()
    return _weighted(node, bend)


def _cross_entropy_of_logits(node: Node) -> Tensor:
    """Compute σ (1 - σ), times 1 + (p - 1) t if positive targets weigh p."""
    s, p = torch.sigmoid(saved(node, "self")), saved(node, "pos_weight")
    bend = torch.addcmul(s, s, s, value=-1)
    if p is not None:
        bend = bend * (1 + (p - 1) * saved(node, "target"))
    return _weighted(node, bend)


def _soft_margin(node: Node) -> Tensor:
    x, t = saved(node, "self"), saved(node, "target")
    s = torch.sigmoid(x * t)
    return torch.addcmul(s, s, s, value=-1).mul_(t * t)


def _weighted(node: Node, bend: Tensor) -> Tensor:
    weight = saved(node, "weight")
    return bend if weight is None else bend * weight


BENDS: Mapping[str, Bend] = {
    "BinaryCrossEntropyBackward0": _cross_entropy,
    "BinaryCrossEntropyWithLogitsBackward0": _cross_entropy_of_logits,
    "HuberLossBackward0": _huber,
    "MseLossBackward0": lambda node: 2.0,
    "SmoothL1LossBackward0": _smooth_l1,
    "SoftMarginLossBackward0": _soft_margin,
}
"""Node ↦ ℓ'' of each number by its input."""

OF_DIFFERENCES = ("HuberLossBackward0", "MseLossBackward0", "SmoothL1LossBackward0")
"""Those that depend on the difference of input and target alone."""

RULES: Mapping[str, Rule] = {
    name: _differences(bend) if name in OF_DIFFERENCES else _by_input(bend) for name, bend in BENDS.items()
}
"""Node ↦ rule."""
