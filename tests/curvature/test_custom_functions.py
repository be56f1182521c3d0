"""Functions written in Python: products through those that keep their graph, and refusals of those that do not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature import block_product, differentiable_gradient
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.errors import NoCurvatureError

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)


class Saved(torch.autograd.Function):
    """tanh, with a backward that autograd can follow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class WithoutGrad(Saved):
    """The same under no_grad, as a kernel of its own would be."""

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class ByNumpy(Saved):
    """The same in NumPy."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.from_numpy(g.detach().numpy() * (1 - y.detach().numpy() ** 2))


class Overwriting(Saved):
    """The same, with a part that its own derivative needs overwritten."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        part = g * y
        out = g - part * y
        part.mul_(0)
        return out


class OverwritingTheSlope(Saved):
    """The same again, but what is overwritten only the derivative by the input needs."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        again = y.clone()
        out = g * (1 - again * again)
        again.zero_()
        return out


class Blocked(torch.autograd.Function):
    """A function that rightly passes back a zero without a graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return torch.zeros(g.shape, dtype=g.dtype)


class RunsAutograd(torch.autograd.Function):
    """Computes its inside again and runs autograd over it, as a checkpoint does, with a parameter inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inside: Tensor) -> Tensor:
        ctx.inside = inside
        ctx.save_for_backward(x)
        return (x.detach() * inside.detach()).tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward((x * ctx.inside).tanh(), g)
        return x.grad, None


def leaf() -> Tensor:
    return torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)


def test_a_function_that_keeps_its_graph_has_torchs_product() -> None:
    p, v = leaf(), torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    expected = 0
    for row in X:
        t = torch.tanh(row * p.detach())
        slope, bend = row * (1 - t * t), -2 * row * row * t * (1 - t * t)
        expected = expected + (6 * t * slope * slope + 3 * t * t * bend) * v  # of Σ t³
    why: list[str] = []
    found = backward_with_product(Saved.apply(X * p).pow(3).sum(), p, v, on_give_up=why.append)
    torch.testing.assert_close(found, expected)
    assert why == ["tests.curvature.test_custom_functions.Saved: it is a function written in Python"]


@pytest.mark.parametrize("function", [WithoutGrad, ByNumpy])
@pytest.mark.parametrize("power", [1, 3])
def test_one_that_drops_its_graph_is_refused_by_name(function: Any, power: int) -> None:
    """With power 1 the gradient that reaches the function is a constant, and the product would come out as zero."""
    p = leaf()
    loss = function.apply(X * p).pow(power).sum() + p.pow(4).sum()
    with pytest.raises(NoCurvatureError, match=rf"{function.__name__} returns gradients that do not depend"):
        backward_with_product(loss, p, torch.ones_like(p))
    assert p.grad is None
    with pytest.raises(NoCurvatureError, match=function.__name__):
        differentiable_gradient(loss, p)


@pytest.mark.parametrize("function", [Overwriting, OverwritingTheSlope])
def test_one_that_writes_over_what_its_derivative_needs_is_refused_by_name(function: Any) -> None:
    """As scans that work in place do; no tensor was changed after the forward pass, whose gradient is right."""
    p = leaf()
    loss = function.apply(X * p).pow(3).sum()
    with pytest.raises(
        NoCurvatureError, match=r"Overwriting\w* writes into tensors that its own derivative needs"
    ):
        backward_with_product(loss, p, torch.ones_like(p))
    assert p.grad is None
    loss.backward()
    t = torch.tanh(X * p.detach())
    torch.testing.assert_close(p.grad, (3 * t * t * (1 - t * t) * X).sum(0))


def test_a_zero_without_a_graph_is_a_zero() -> None:
    p = leaf()
    found = backward_with_product((Blocked.apply(X * p) + p.pow(4)).sum(), p, torch.ones_like(p))
    torch.testing.assert_close(found, 4 * 12 * p.detach() ** 2)


def test_one_that_is_not_on_the_way_is_in_nobodys_way() -> None:
    p, q = leaf(), leaf()
    found = backward_with_product((WithoutGrad.apply(X * q) + p.pow(4)).sum(), p, torch.ones_like(p))
    torch.testing.assert_close(found, 4 * 12 * p.detach() ** 2)
    assert q.grad is not None


@pytest.mark.parametrize("before", [None, 2.0])
def test_one_that_writes_gradients_by_itself_is_refused_and_undone(before: float | None) -> None:
    p, inside = leaf(), leaf()
    for t in (p, inside):
        t.grad = None if before is None else torch.full_like(t, before)
    loss = RunsAutograd.apply(X * p, inside).pow(2).sum() + inside.sum()
    with pytest.raises(NoCurvatureError, match=r"RunsAutograd (runs autograd by itself|returns gradients)"):
        backward_with_product(loss, p, torch.ones_like(p))
    for t in (p, inside):
        assert t.grad is None if before is None else torch.equal(t.grad, torch.full_like(t, before))


def test_gradients_that_are_not_finite_already_are_nobodys_write() -> None:
    p = leaf()
    p.grad = torch.tensor([math.nan, math.inf, 1.0], dtype=torch.float64)
    found = backward_with_product((Saved.apply(X).sum() + Saved.apply(p) * p).sum(), p, torch.ones_like(p))
    t = p.detach().tanh()
    torch.testing.assert_close(found, (1 - t * t) * (2 - 2 * p.detach() * t))


def test_a_graph_used_up_is_said_to_be_one() -> None:
    p = leaf()
    loss = p.pow(3).sum()
    loss.backward(retain_graph=False)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        backward_with_product(loss, p, torch.ones_like(p))


def test_a_graph_that_is_kept_serves_again() -> None:
    p = leaf()
    loss = p.pow(3).sum()
    first = backward_with_product(loss, p, torch.ones_like(p), retain_graph=True)
    again = backward_with_product(loss, p, torch.ones_like(p))
    assert torch.equal(first, again)  # type: ignore[arg-type]
    torch.testing.assert_close(first, 6 * p.detach())


def test_a_linear_loss_has_a_zero_hessian_and_no_error() -> None:
    p = leaf()
    gradient = differentiable_gradient(p.sum(), p)
    assert gradient is not None
    assert not block_product(gradient, p)(torch.ones_like(p)).any()


def test_what_torch_says_is_passed_on() -> None:
    """Torch differentiates a transposed convolution with output padding twice, and then no more."""
    p = leaf()
    x = torch.ones(1, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(2, 2, 3, dtype=torch.float64) * p
    out = torch.nn.functional.conv_transpose1d(x * p, weight, stride=2, output_padding=1)
    (gradient,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
    with pytest.raises(
        NoCurvatureError, match=r"cannot differentiate.*It says: output_padding is not supported"
    ):
        backward_with_product(gradient.pow(2).sum(), p, torch.ones_like(p))
    assert p.grad is None


def test_a_dead_end_is_named_by_what_torch_says_of_it() -> None:
    """Torch ends a graph with a node of errors where it knows that the next derivative is not there."""
    p = leaf()
    ends: Any = torch._C._functions.DelayedError("norm does not support 3rd+ order derivatives", 1)
    y = X * p
    y.register_hook(lambda g: ends(g * 1))
    gradient = differentiable_gradient(y.pow(3).sum(), p)
    assert gradient is not None
    with pytest.raises(NoCurvatureError, match=r"no second derivative \(norm does not support 3rd"):
        block_product(gradient, p)
    assert p.grad is None
