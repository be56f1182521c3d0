"""Backwards that autograd follows in part: refused where the product would be wrong, let through where it is right.

What is right is told by finite differences of the gradient in float64, which see every dependence.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.errors import NoCurvatureError

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.linspace(-1.1, 1, 12, dtype=torch.float64).view(4, 3)


class Cube(torch.autograd.Function):
    """x³, with its slope 3x² computed where ``slope`` says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class SlopeInForward(Cube):
    """As fused losses do: the forward pass computes the gradient, the backward scales it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(3 * x * x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.saved_tensors[0]


class SlopeAsAttribute(SlopeInForward):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 3 * x * x
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.slope


class SlopeByNumpy(Cube):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * torch.from_numpy(3 * ctx.saved_tensors[0].detach().numpy() ** 2)


class SlopeOfACopy(Cube):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(x**3, x, g, create_graph=True)[0]


class GradientCut(Cube):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g.detach() * 3 * x * x


class LossAndGradient(torch.autograd.Function):
    """Σ x³ as one number, its gradient from the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.gradient = 3 * x * x
        return (x**3).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.gradient


class Masked(torch.autograd.Function):
    """ReLU, by a mask of numbers: the mask is a constant, and rightly so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mask = (x > 0).to(x.dtype)
        return x * ctx.mask

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.mask


class ByMatrix(torch.autograd.Function):
    """x A for a constant A, as quantized layers are."""

    A = torch.linspace(-1, 2, 6, dtype=torch.float64).view(3, 2)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        product: Tensor = x @ ByMatrix.A
        return product

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g @ ByMatrix.A.mT


class ByParameter(torch.autograd.Function):
    """x w for a parameter w that only the backward knows."""

    w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64).expand(4, 3).clone())

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        product: Tensor = x * ByParameter.w.detach()
        return product

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ByParameter.w


REFUSED = {
    SlopeInForward: "multiplies gradients by numbers",
    SlopeAsAttribute: "multiplies gradients by numbers",
    SlopeByNumpy: "multiplies gradients by numbers",
    SlopeOfACopy: "multiplies gradients by numbers",
    LossAndGradient: "multiplies gradients by numbers",
    GradientCut: "returns gradients that do not depend",
}
RIGHT = [Cube, Masked, ByMatrix, ByParameter]


def leaf() -> Tensor:
    return torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)


def loss_of(function: Any, p: Tensor) -> Tensor:
    loss: Tensor = function.apply((X * p).sin()).pow(2).sum() + p.pow(4).sum()
    return loss


def by_differences(function: Any, p: Tensor, v: Tensor) -> Tensor:
    def gradient(step: float) -> Tensor:
        at = (p.detach() + step * v).requires_grad_()
        (found,) = torch.autograd.grad(loss_of(function, at), at)
        return found

    return (gradient(1e-5) - gradient(-1e-5)) / 2e-5


V = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)


@pytest.mark.parametrize("function", REFUSED)
def test_what_autograd_takes_for_a_constant_is_refused_by_name(function: Any) -> None:
    p = leaf()
    (gradient,) = torch.autograd.grad(loss_of(function, p), p, create_graph=True)
    (torchs,) = torch.autograd.grad(gradient, p, V)
    assert (torchs - by_differences(function, p, V)).norm() > 0.1  # torch's own is silently wrong
    with pytest.raises(NoCurvatureError, match=rf"\.{function.__name__} {REFUSED[function]}"):
        backward_with_product(loss_of(function, p), p, V)
    assert p.grad is None


@pytest.mark.parametrize("function", RIGHT)
def test_constants_that_are_constant_are_not(function: Any) -> None:
    p = leaf()
    expected = by_differences(function, p, V)
    found = backward_with_product(loss_of(function, p), p, V)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_torchs_own_operations_are_watched_as_well() -> None:
    """The backward of a sparse tensor's constructor cuts the graph: its product lacks 2 (Σ e^p v) e^p."""
    p = leaf()
    places = torch.tensor([[0, 1, 2], [1, 0, 2]])
    sparse = torch.sparse_coo_tensor(places, p.exp(), (3, 3), check_invariants=True)
    with pytest.raises(NoCurvatureError, match=r"The backward of SparseCooTensor.* returns gradients"):
        backward_with_product(torch.sparse.sum(sparse).square(), p, V)
    assert p.grad is None


def test_in_single_precision_rounding_is_no_sign() -> None:
    p = torch.linspace(-2, 2, 512, requires_grad=True)
    found = backward_with_product(Cube.apply(p.sin()).sum(), p, torch.ones(512))
    s, c = p.detach().sin(), p.detach().cos()
    torch.testing.assert_close(found, 6 * s * c * c - 3 * s**3)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_tell_nothing(number: float) -> None:
    """One bad batch is no reason to say that a function has no second derivative."""
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = (Cube.apply(X * p) * number).sum()
    found = backward_with_product(loss, p, torch.ones_like(p))
    assert found is not None
    assert not found.isfinite().any()
