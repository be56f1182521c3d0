"""Functions of each number, piecewise linear and smooth, and of the numbers of two or three tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.products import Operation

__all__ = ["ARITHMETIC", "PIECEWISE", "SMOOTH"]

IMAGE = (2, 4, 5, 6)


def _seeded(function: object, *given: object, **how: object) -> object:
    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return function(x, *given, **how)  # type: ignore[operator,no-any-return]

    return seeded


def _each(**functions: object) -> dict[str, Operation]:
    return {name.replace("_", " "): (function, [IMAGE]) for name, function in functions.items()}  # type: ignore[misc]


PIECEWISE: dict[str, Operation] = _each(
    relu=F.relu,
    relu_in_place=lambda x: F.relu(x * 1, inplace=True),
    leaky_relu=F.leaky_relu,
    leaky_relu_in_place=lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
    relu6=F.relu6,
    hardtanh=lambda x: F.hardtanh(x, -0.5, 2),
    hardsigmoid=F.hardsigmoid,
    hardshrink=F.hardshrink,
    softshrink=F.softshrink,
    threshold=lambda x: F.threshold(x, 0.3, -2),
    random_relu=_seeded(F.rrelu, training=True),
    random_relu_in_place=lambda x: _seeded(F.rrelu, training=True, inplace=True)(x * 1),  # type: ignore[operator]
    random_relu_at_rest=F.rrelu,
    absolute=torch.abs,
    clamp=lambda x: x.clamp(-1, 0.5),
    clamp_from_below=lambda x: x.clamp(min=-0.2),
    clamp_from_above=lambda x: x.clamp_max(0.7),
    dropout=_seeded(F.dropout, 0.4),
    native_dropout=lambda x: _native_dropout(x),
    dropout_of_channels=_seeded(F.dropout2d, 0.4),
    alpha_dropout=_seeded(F.alpha_dropout, 0.4, training=True),
    alpha_dropout_of_channels=_seeded(F.feature_alpha_dropout, 0.4, training=True),
    masked_fill=lambda x: x.masked_fill(torch.eye(5, 6).bool(), 2.0),
    index_fill=lambda x: x.index_fill(2, torch.tensor([0, 3]), 1.5),
    triangles=lambda x: x.tril() * x.triu(1),
    negative_scaled=lambda x: -x * 3 / 2 + 1 - 4,
    from_one=lambda x: 1 - x,
    rsub_scaled=lambda x: torch.rsub(x, 3, alpha=2),
    degrees=lambda x: torch.deg2rad(torch.rad2deg(x) + 1),
    fraction=lambda x: torch.frac(x) + torch.fmod(x, 0.7) + torch.remainder(x, 0.9),
    without_nan=lambda x: torch.nan_to_num(x),
    floors=lambda x: x * (x.floor() + x.ceil() + x.round() + x.trunc() + x.sign()),
    floor_alone=lambda x: x.floor() + 0 * x,
)


def _native_dropout(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return torch.native_dropout(x, 0.4, True)[0]


SMOOTH: dict[str, Operation] = _each(
    gelu=F.gelu,
    gelu_tanh=lambda x: F.gelu(x, approximate="tanh"),
    gelu_twice=lambda x: F.gelu(F.gelu(x)),
    silu=F.silu,
    mish=F.mish,
    hardswish=F.hardswish,
    elu=lambda x: F.elu(x, 0.7),
    elu_in_place=lambda x: F.elu(x * 1, 0.7, inplace=True),
    selu=F.selu,
    selu_in_place=lambda x: F.selu(x * 1, inplace=True),
    celu=lambda x: F.celu(x, 0.7),
    celu_in_place=lambda x: F.celu(x * 1, 0.7, inplace=True),
    softplus=lambda x: F.softplus(x, 2, 3),
    logsigmoid=F.logsigmoid,
    softsign=F.softsign,
    tanhshrink=F.tanhshrink,
    sigmoid=torch.sigmoid,
    tanh=torch.tanh,
    exponentials=lambda x: torch.exp(x / 3) + torch.exp2(x / 2) + torch.expm1(x / 4) + 1.5**x,
    logarithms=lambda x: sum(f(x * x + 0.5) for f in (torch.log, torch.log2, torch.log10, torch.log1p)),
    logit=lambda x: torch.logit(torch.sigmoid(x)) + torch.logit(torch.sigmoid(x), 0.2),
    entropy=lambda x: torch.special.entr(x * x + 0.5),
    power=lambda x: (x * x + 1) ** 1.5,
    whole_powers=lambda x: x**3 + x**2 + x**1 + x**0 + (2 + x * x) ** -1,
    powers_of_zero=lambda x: sum((x - x.detach()) ** e for e in (0, 1, 2)),
    powers_of_numbers=lambda x: 2.5 ** (x / 3),
    square=torch.square,
    square_root=lambda x: torch.sqrt(x * x + 1),
    reciprocals=lambda x: torch.rsqrt(x * x + 1) + torch.reciprocal(x * x + 2),
    sines=lambda x: torch.sin(x) * torch.cos(x) + torch.tan(x / 9),
    hyperbolic_sines=lambda x: torch.sinh(x / 3) + torch.cosh(x / 4),
    arcs=lambda x: sum(f(torch.sin(x) * 0.9) for f in (torch.asin, torch.acos, torch.atan, torch.atanh)),
    hyperbolic_arcs=lambda x: torch.asinh(x) + torch.acosh(x * x + 1.5),
    error_functions=lambda x: torch.erf(x) + 2 * torch.erfc(x),
    gamma_functions=lambda x: torch.lgamma(x * x + 1) + torch.digamma(x * x + 1),
    glu=lambda x: F.glu(x, 1),
    glu_of_the_last=lambda x: F.glu(x),
    normalized=lambda x: F.normalize(x, dim=1),
)
GRADES = torch.arange(6)
ARITHMETIC: dict[str, Operation] = {
    "add": (torch.add, [IMAGE, (4, 1, 6)]),
    "add, scaled": (lambda a, b: torch.add(a, b, alpha=3), [IMAGE, IMAGE]),
    "subtract": (lambda a, b: torch.sub(a, b, alpha=2), [(4, 1, 1), IMAGE]),
    "subtract from": (lambda a, b: torch.rsub(a, b, alpha=2), [IMAGE, (4, 1, 1)]),
    "multiply": (torch.mul, [IMAGE, (1, 4, 1, 1)]),
    "multiply by a number of no dimension": (torch.mul, [IMAGE, ()]),
    "square": (lambda a: a * a, [IMAGE]),
    "divide": (lambda a, b: a / (b * b + 1), [IMAGE, (4, 1, 1)]),
    "divide by itself": (lambda a: a / (a + 9), [IMAGE]),
    "addcmul": (lambda a, b, c: torch.addcmul(a, b, c, value=0.7), [(4, 1, 1), IMAGE, (5, 6)]),
    "addcdiv": (lambda a, b, c: torch.addcdiv(a, b, c * c + 1, value=0.7), [(4, 1, 1), IMAGE, (5, 6)]),
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), [IMAGE, IMAGE]),
    "lerp by a tensor": (torch.lerp, [IMAGE, IMAGE, (5, 6)]),
    "maximum, minimum": (lambda a, b: torch.maximum(a, b) * torch.minimum(a, b * 2), [IMAGE, (5, 6)]),
    "maximum of equals": (lambda a: torch.maximum(a, a * 1), [IMAGE]),
    "fmax, fmin": (lambda a, b: torch.fmax(a, b) * torch.fmin(a, b), [IMAGE, (5, 6)]),
    "where": (lambda a, b: torch.where(a > b, a * b, b), [IMAGE, (5, 6)]),
    "where one is a number": (lambda a: torch.where(a > 0, a, 0.5) + torch.where(a > 0, -1, a), [IMAGE]),
    "clamp by tensors": (lambda a, b, c: torch.clamp(a, b - 1, c + 1), [IMAGE, (5, 6), (5, 6)]),
    "clamp from one side": (lambda a, b: torch.clamp(a, min=b) + torch.clamp(a, max=b), [IMAGE, (5, 6)]),
    "power by a tensor": (lambda a: (a * a + 1) ** torch.linspace(-1, 2, 6).to(a.dtype) + a ** GRADES, [IMAGE]),
    "masked fill with a value": (
        lambda x, v: x.masked_fill(torch.eye(5, 6).bool(), v.reshape(())), [IMAGE, (1,)]
    ),
    "PReLU": (F.prelu, [IMAGE, (1,)]),
    "PReLU of channels": (F.prelu, [IMAGE, (4,)]),
    "nothing": (lambda a, b: a * b + a.exp() / (b * b + 1), [(0, 3), (3,)]),
}  # fmt: skip
