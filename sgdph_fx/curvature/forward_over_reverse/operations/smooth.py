"""Smooth functions of each number, y = f(x): ẏ = f' ẋ, and the gradient f' g has the tangent f' ġ + f'' ẋ g."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.operations.scaling import diagonal_jvp
from sgdph_fx.curvature.forward_over_reverse.rule import NONLINEAR, BackwardNode, Rule, Tensors, saved

__all__ = ["RULES", "second_derivative"]

_Formula = Callable[..., "Tensor | float"]


def _smooth(second_derivative: _Formula, *names: str) -> Rule:
    """Make the rule of a function, given f'' of what autograd saved under ``names``."""

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        (g,), (dg,), (dx,) = bwd.g, bwd.dg, bwd.tangents
        passed = None if dg is None else apply(bwd.node, [dg])[0]
        if g is None or dx is None:
            return [passed]
        bent = torch.mul(dx, g, out=dx) if bwd.fwd.writable[0] else dx * g
        second = second_derivative(*(saved(bwd.node, name) for name in names))
        if passed is None:
            return [bent.mul_(second)]
        return [
            passed.addcmul_(bent, second) if isinstance(second, Tensor) else passed.add_(bent, alpha=second)
        ]

    return Rule(diagonal_jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _number(value: float, like: Tensor) -> Tensor:
    """Make a constant that a fused operation on ``like`` can start from, which saves a pass."""
    return like.new_full((), value)


def _silu(x: Tensor) -> Tensor:
    """Compute (1 - t²) (2 - x t) / 4 with t = tanh(x / 2)."""
    t = torch.mul(x, 0.5).tanh_()
    return torch.addcmul(_number(0.25, x), t, t, value=-0.25).mul_(
        torch.addcmul(_number(2, x), x, t, value=-1)
    )


def _mish(x: Tensor) -> Tensor:
    """Compute 2 t' + x t' (1 - s - 2 t s), with s = σ(x), t = tanh(softplus(x)) and t' = (1 - t²) s."""
    s, t = torch.sigmoid(x), torch.tanh(torch.nn.functional.softplus(x))
    return (1 - t * t) * s * (2 + x * (1 - s - 2 * t * s))


def _hardswish(x: Tensor) -> Tensor:
    return ((x > -3) & (x < 3)).to(x.dtype).div_(3)


def _softplus(x: Tensor, beta: float, threshold: float) -> Tensor:
    s = torch.sigmoid(x * beta)
    return (s * (1 - s)).mul_(beta).masked_fill_(x * beta >= threshold, 0)


def _log_sigmoid(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (s - 1)


def _elu(x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    bend = torch.exp(x * input_scale).mul_(alpha * scale * input_scale**2)
    return bend.masked_fill_(x >= 0, 0)


def _elu_in_place(y: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    return (y + alpha * scale).mul_(input_scale**2).masked_fill_(y >= 0, 0)


def _celu(x: Tensor, alpha: float) -> Tensor:
    return _elu(x, alpha, 1, 1 / alpha)


def _celu_in_place(y: Tensor, alpha: float) -> Tensor:
    return _elu_in_place(y, alpha, 1, 1 / alpha)


def _power(x: Tensor, exponent: float) -> Tensor | float:
    if exponent in (0, 1, 2):
        return 2.0 if exponent == 2 else 0.0
    return x.pow(exponent - 2).mul_(exponent * (exponent - 1))


def _exponential(base: float, y: Tensor) -> Tensor:
    return y * (math.log(base) ** 2 if base > 0 else 0.0 if base == 0 else math.nan)


def _logit(x: Tensor, eps: float | None) -> Tensor:
    bend = (2 * x - 1) / (x * (1 - x)).square_()
    return bend if eps is None else bend.masked_fill_((x < eps) | (x > 1 - eps), 0)


def _entropy(x: Tensor) -> Tensor:
    """Compute f'' of -x log x."""
    return -1 / x


_BY_INPUT: Mapping[str, _Formula] = {
    "Acos": lambda x: -x * (1 - x * x).pow_(-1.5),
    "Acosh": lambda x: -x * (x * x - 1).pow_(-1.5),
    "Asin": lambda x: x * (1 - x * x).pow_(-1.5),
    "Asinh": lambda x: -x * (1 + x * x).pow_(-1.5),
    "Atan": lambda x: -2 * x / (1 + x * x).square_(),
    "Atanh": lambda x: 2 * x / (1 - x * x).square_(),
    "Cos": lambda x: torch.cos(x).neg_(),
    "Cosh": torch.cosh,
    "Digamma": lambda x: torch.polygamma(2, x),
    "Erf": lambda x: torch.exp(-x * x).mul_(x).mul_(-4 / math.sqrt(math.pi)),
    "Erfc": lambda x: torch.exp(-x * x).mul_(x).mul_(4 / math.sqrt(math.pi)),
    "Hardswish": _hardswish,
    "Lgamma": lambda x: torch.polygamma(1, x),
    "Log": lambda x: -1 / (x * x),
    "Log10": lambda x: -1 / (x * x * math.log(10)),
    "Log1P": lambda x: -1 / (1 + x).square_(),
    "Log2": lambda x: -1 / (x * x * math.log(2)),
    "LogSigmoid": _log_sigmoid,
    "Mish": _mish,
    "Silu": _silu,
    "Sin": lambda x: torch.sin(x).neg_(),
    "Sinh": torch.sinh,
    "SpecialEntr": _entropy,
}
"""f'' by x."""

_BY_RESULT: Mapping[str, _Formula] = {
    "Exp": lambda y: y,
    "Exp2": lambda y: y * math.log(2) ** 2,
    "Expm1": lambda y: y + 1,
    "Reciprocal": lambda y: y.pow(3).mul_(2),
    "Rsqrt": lambda y: y.pow(5).mul_(0.75),
    "Sigmoid": lambda y: torch.addcmul(y, y, y, value=-1).mul_(torch.add(_number(1, y), y, alpha=-2)),
    "Sqrt": lambda y: y.pow(-3).mul_(-0.25),
    "Tan": lambda y: 2 * y * (1 + y * y),
    "Tanh": lambda y: torch.addcmul(_number(-2, y), y, y, value=2).mul_(y),
}
"""f'' by y."""

_FORMULAS: Mapping[str, tuple[Any, ...]] = {
    **{f"{name}Backward0": (formula, "self") for name, formula in _BY_INPUT.items()},
    **{f"{name}Backward0": (formula, "result") for name, formula in _BY_RESULT.items()},
    "CeluBackward0": (_celu, "self", "alpha"),
    "CeluBackward1": (_celu_in_place, "result", "alpha"),
    "EluBackward0": (_elu, "self", "alpha", "scale", "input_scale"),
    "EluBackward1": (_elu_in_place, "result", "alpha", "scale", "input_scale"),
    "LogitBackward0": (_logit, "self", "eps"),
    "PowBackward0": (_power, "self", "exponent"),
    "PowBackward2": (_exponential, "self", "result"),
    "SoftplusBackward0": (_softplus, "self", "beta", "threshold"),
}

RULES: Mapping[str, Rule] = {name: _smooth(*row) for name, row in _FORMULAS.items()}
"""Node ↦ rule."""


def second_derivative(node: Node) -> Tensor | float:
    """f'' at what the operation ``node`` read; it must be one of :data:`RULES`."""
    formula, *names = _FORMULAS[type(node).__name__]
    found: Tensor | float = formula(*(saved(node, name) for name in names))
    return found
