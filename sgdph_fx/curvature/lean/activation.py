"""Operations on each number by itself, y = f(x): the Jacobian is diagonal, so ẏ = f'(x) ẋ is what passes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.lean.fallback import apply
from sgdph_fx.curvature.lean.shape import linear, pull_linear
from sgdph_fx.curvature.lean.visit import LINEAR, NONLINEAR, Rule, Tensors, Turn, Visit, saved

__all__ = ["RULES"]


def _push(visit: Visit) -> Tensors:
    return apply(visit.node, visit.tangents[:1])[:1]


def _smooth(second_derivative: Callable[[Node], Tensor]) -> Rule:
    """The rule of a function with a curvature: ġ by x is f'(x) ġ + f''(x) ẋ g."""

    def pull(turn: Turn) -> Tensors:
        (g,), (dg,), (dx,) = turn.g, turn.dg, turn.tangents
        passed = None if dg is None else apply(turn.node, [dg])[0]
        if g is None or dx is None:
            return [passed]
        bent = torch.mul(dx, g, out=dx) if turn.visit.spare[0] else dx * g
        bent.mul_(second_derivative(turn.node))
        return [bent if passed is None else bent.add_(passed)]

    return Rule(_push, pull, NONLINEAR, makes=True)


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


def _push_relu(visit: Visit) -> Tensors:
    return [_through_relu(visit.node, visit.tangents[0], visit.spare[0])]


def _pull_relu(turn: Turn) -> Tensors:
    return [_through_relu(turn.node, turn.dg[0], turn.spare[0])]


def _through_relu(node: Node, tangent: Tensor | None, spare: bool) -> Tensor | None:
    if tangent is None:
        return None
    y: Tensor = saved(node, "result")
    call: Any = torch.ops.aten.threshold_backward
    passed: Tensor = call.grad_input(tangent, y, 0, grad_input=tangent) if spare else call(tangent, y, 0)
    return passed


_PIECEWISE_LINEAR = Rule(_push, pull_linear, LINEAR, makes=True)

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
    "ReluBackward0": Rule(_push_relu, _pull_relu, LINEAR, makes=True),
    "MaskedFillBackward0": linear(lambda node, t: t.masked_fill(saved(node, "mask"), 0)),
    "PowBackward0": _smooth(_power),
    "RsqrtBackward0": _smooth(_rsqrt),
    "SigmoidBackward0": _smooth(_sigmoid),
    "SiluBackward0": _smooth(_silu),
    "SqrtBackward0": _smooth(_sqrt),
    "TanhBackward0": _smooth(_tanh),
}
"""By node."""
