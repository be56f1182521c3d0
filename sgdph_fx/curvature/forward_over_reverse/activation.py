"""Operations on each number by itself, y = f(x): the Jacobian is diagonal, so ẏ = f'(x) ẋ is what passes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)
from sgdph_fx.curvature.forward_over_reverse.shape import linear, linear_vjp_tangent

__all__ = ["RULES"]


def _jvp(fwd: ForwardNode) -> Tensors:
    return apply(fwd.node, fwd.tangents[:1])[:1]


def _smooth(second_derivative: Callable[[Node], Tensor]) -> Rule:
    """The rule of a function with a curvature: ġ by x is f'(x) ġ + f''(x) ẋ g."""

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        (g,), (dg,), (dx,) = bwd.g, bwd.dg, bwd.tangents
        passed = None if dg is None else apply(bwd.node, [dg])[0]
        if g is None or dx is None:
            return [passed]
        bent = torch.mul(dx, g, out=dx) if bwd.fwd.writable[0] else dx * g
        bent.mul_(second_derivative(bwd.node))
        return [bent if passed is None else bent.add_(passed)]

    return Rule(_jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _gelu(node: Node) -> Tensor:
    x: Tensor = saved(node, "self")
    if saved(node, "approximate") == "tanh":
        return _gelu_by_tanh(x)
    square = x * x
    return (square * -0.5).exp_().mul_(square.neg_().add_(2)).mul_(1 / math.sqrt(2 * math.pi))


def _gelu_by_tanh(x: Tensor) -> Tensor:
    """Of x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³): (1 - tanh² u) (u' + x u'' / 2 - x u'² tanh u),
    where x u'' / 2 = u' - √(2/π)."""
    k, c = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = torch.tanh(x * (square * (k * c)).add_(k))
    slope = (square * (3 * k * c)).add_(k)
    return (1 - t * t).mul_(2 * slope - k - x * slope * slope * t)


def _silu(node: Node) -> Tensor:
    x: Tensor = saved(node, "self")
    s = torch.sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


def _sigmoid(node: Node) -> Tensor:
    y: Tensor = saved(node, "result")
    return y * (1 - y) * (1 - 2 * y)


def _tanh(node: Node) -> Tensor:
    y: Tensor = saved(node, "result")
    return -2 * y * (1 - y * y)


def _exp(node: Node) -> Tensor:
    y: Tensor = saved(node, "result")
    return y.clone()


def _power(node: Node) -> Tensor:
    x, e = saved(node, "self"), saved(node, "exponent")
    second: Tensor = torch.zeros_like(x) if e in (0, 1) else x.pow(e - 2).mul_(e * (e - 1))
    return second


def _rsqrt(node: Node) -> Tensor:
    y: Tensor = saved(node, "result")
    return y.pow(5).mul_(0.75)


def _sqrt(node: Node) -> Tensor:
    y: Tensor = saved(node, "result")
    return y.pow(-3).mul_(-0.25)


def _jvp_relu(fwd: ForwardNode) -> Tensors:
    return [_through_relu(fwd.node, fwd.tangents[0], fwd.writable[0])]


def _vjp_tangent_relu(bwd: BackwardNode) -> Tensors:
    return [_through_relu(bwd.node, bwd.dg[0], bwd.writable[0])]


def _through_relu(node: Node, tangent: Tensor | None, writable: bool) -> Tensor | None:
    if tangent is None:
        return None
    y: Tensor = saved(node, "result")
    call: Any = torch.ops.aten.threshold_backward
    passed: Tensor = call.grad_input(tangent, y, 0, grad_input=tangent) if writable else call(tangent, y, 0)
    return passed


_PIECEWISE_LINEAR = Rule(_jvp, linear_vjp_tangent, LINEAR, owns_output=True)

_SCALED = (
    *("AddBackward1", "SubBackward1", "MulBackward1", "DivBackward1", "NegBackward0"),
    *(
        "LeakyReluBackward0",
        "LeakyReluBackward1",
        "HardtanhBackward0",
        "HardsigmoidBackward0",
    ),
    *("ThresholdBackward0", "NativeDropoutBackward0", "TriuBackward0", "TrilBackward0"),
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_SCALED, _PIECEWISE_LINEAR),
    "ExpBackward0": _smooth(_exp),
    "GeluBackward0": _smooth(_gelu),
    "ReluBackward0": Rule(_jvp_relu, _vjp_tangent_relu, LINEAR, owns_output=True),
    "MaskedFillBackward0": linear(lambda node, t: t.masked_fill(saved(node, "mask"), 0)),
    "PowBackward0": _smooth(_power),
    "RsqrtBackward0": _smooth(_rsqrt),
    "SigmoidBackward0": _smooth(_sigmoid),
    "SiluBackward0": _smooth(_silu),
    "SqrtBackward0": _smooth(_sqrt),
    "TanhBackward0": _smooth(_tanh),
}
"""By node."""
