"""Functions written in Python whose backward has an input, and beside it numbers that the forward pass made of it.

What is right is told by finite differences of the gradient in float64, which see every dependence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.errors import NoCurvatureError

pytestmark = pytest.mark.usefixtures("one_thread")

Function = Callable[[Tensor], Tensor]

X = torch.linspace(-1.1, 1, 12, dtype=torch.float64).view(4, 3)
V = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)


class Slope(torch.autograd.Function):
    """x σ(x), with σ(x) from the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *ignored: object) -> Tensor:
        ctx.save_for_backward(x, x.sigmoid())
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, s = ctx.saved_tensors
        return g * (s + x * s * (1 - s)), *[None] * (len(ctx.needs_input_grad) - 1)


class Norm(torch.autograd.Function):
    """x / ‖x‖ by rows, with the norms from the forward pass; the second argument leaves no sign whether it is data."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        size = x.norm(dim=1, keepdim=True)
        ctx.save_for_backward(x, weight, size)
        return x / size * weight

    @staticmethod
    def size(x: Tensor, saved: Tensor) -> Tensor:
        return saved

    @classmethod
    def by_x(cls, ctx: Any, g: Tensor) -> Tensor:
        x, weight, saved = ctx.saved_tensors
        size, h = cls.size(x, saved), g * weight
        u = x / size
        found: Tensor = (h - u * (u * h).sum(1, keepdim=True)) / size
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return Norm.by_x(ctx, g), None


class NormAgain(Norm):
    @staticmethod
    def size(x: Tensor, saved: Tensor) -> Tensor:
        size: Tensor = x.norm(dim=1, keepdim=True)
        return size

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return NormAgain.by_x(ctx, g), None


class Product(torch.autograd.Function):
    """x² y², where y may be data, x, or what follows from x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * x * y * y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return 2 * g * x * y * y, 2 * g * x * x * y if ctx.needs_input_grad[1] else None


def calling(kind: Any, *others: Any) -> Function:
    def called(x: Tensor) -> Tensor:
        found: Tensor = kind.apply(x, *others)
        return found

    return called


def product_with(y: Function) -> Function:
    def called(x: Tensor) -> Tensor:
        found: Tensor = Product.apply(x, y(x))  # type: ignore[no-untyped-call]
        return found

    return called


REFUSED: dict[str, tuple[Function, str]] = {
    "a slope": (calling(Slope), r"\.Slope multiplies gradients by numbers"),
    "a slope, beside an option": (calling(Slope, 1.5), r"\.Slope multiplies gradients by numbers"),
    "a norm, beside data": (calling(Norm, X.exp()), r"\.Norm is not the derivative of any function"),
}
RIGHT: dict[str, Function] = {
    "a norm computed again": calling(NormAgain, X.exp()),
    "data": product_with(lambda x: X.exp()),
    "itself": product_with(lambda x: x),
    "what follows from it": product_with(torch.exp),
    "a function of itself": lambda x: product_with(torch.cos)(product_with(torch.exp)(x)),
}


def leaf() -> Tensor:
    return torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)


def loss_of(function: Function, p: Tensor) -> Tensor:
    return function((X * p).sin()).pow(2).sum() + p.pow(4).sum()


def by_differences(function: Function, p: Tensor) -> Tensor:
    def gradient(step: float) -> Tensor:
        at = (p.detach() + step * V).requires_grad_()
        (found,) = torch.autograd.grad(loss_of(function, at), at)
        return found

    return (gradient(1e-5) - gradient(-1e-5)) / 2e-5


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_forward_pass_made_of_an_input_is_refused_by_name(case: str) -> None:
    function, message = REFUSED[case]
    p = leaf()
    (gradient,) = torch.autograd.grad(loss_of(function, p), p, create_graph=True)
    (torchs,) = torch.autograd.grad(gradient, p, V)
    assert (torchs - by_differences(function, p)).norm() > 0.1  # torch's own is silently wrong
    with pytest.raises(NoCurvatureError, match=message):
        backward_with_product(loss_of(function, p), p, V)
    assert p.grad is None


@pytest.mark.parametrize("case", RIGHT)
def test_data_and_other_inputs_are_no_sign(case: str) -> None:
    p = leaf()
    expected = by_differences(RIGHT[case], p)
    found = backward_with_product(loss_of(RIGHT[case], p), p, V)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_sign(dtype: torch.dtype) -> None:
    p = torch.linspace(-2, 2, 512).to(dtype).requires_grad_()
    x = torch.linspace(-1, 1, 8 * 512).view(8, 512).to(dtype)
    loss = calling(NormAgain, torch.ones_like(x))(x * p.sin()).mul(x.cos()).sum()
    assert backward_with_product(loss, p, torch.ones_like(p)) is not None
