"""Derivatives that torch gets wrong without an error are refused, before any gradient is written, and no others are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature import differentiable_gradient, product_by_double_backward
from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.errors import NoCurvatureError
from tests.products import difference_of_gradients

pytestmark = pytest.mark.usefixtures("one_thread")

Loss = Callable[[Tensor], Tensor]

X = torch.linspace(-1, 2, 15, dtype=torch.float64).cos().view(5, 3)
V = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def due() -> Tensor:
    return torch.tensor([0.8, -0.6, 1.1], dtype=torch.float64, requires_grad=True)


def penalty(network: Loss) -> Loss:
    """The squared gradient of a network by its input, the input being X times the parameter."""

    def loss(p: Tensor) -> Tensor:
        x = X.clone().requires_grad_()
        out = network(x * p).pow(3).sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        return gradient.pow(2).sum()

    return loss


def batch_norm(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True, eps=0.1)


def layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (3,), eps=0.1)


def weight_norm(p: Tensor) -> Tensor:
    return torch._weight_norm(X * p, torch.ones(5, 1, dtype=p.dtype), 0).pow(3).sum()


def plain_weight_norm(p: Tensor) -> Tensor:
    return (X * p / torch.norm_except_dim(X * p, 2, 0)).pow(3).sum()


WEIGHT = torch.linspace(-2, 1, 12, dtype=torch.float64).sin().view(4, 3)
LABELS = torch.tensor([0, 1, 3, 2, 3])


def in_chunks(p: Tensor) -> Tensor:
    options = nn.LinearCrossEntropyOptions(allow_retain_graph=True)
    return F.linear_cross_entropy(X * p, WEIGHT, LABELS, options=options)


def plain_cross_entropy(p: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(X * p, WEIGHT), LABELS)


# What torch gets wrong, and the same loss as the message says to write it.
WRONG: dict[str, tuple[Loss, Loss]] = {
    "a weight norm": (weight_norm, plain_weight_norm),
}
if hasattr(nn, "LinearCrossEntropyOptions"):
    WRONG["linear_cross_entropy in chunks"] = (in_chunks, plain_cross_entropy)
LEFT_TO_TORCH = [name for name in WRONG if name != "a weight norm"]


def by_differences(loss: Loss) -> Tensor:
    p = due()
    return difference_of_gradients(lambda: loss(p), p, V, step=2.0**-9)


def by_double_backward(loss: Loss) -> Tensor:
    p = due()
    with product_by_double_backward(loss(p), p) as product:
        assert product is not None
        return product(V)


@pytest.mark.parametrize("name", WRONG)
def test_torchs_double_backward_is_refused(name: str) -> None:
    p = due()
    with pytest.raises(NoCurvatureError, match=f"a derivative of {name}.* that torch gets wrong"):
        differentiable_gradient(WRONG[name][0](p), p)
    assert p.grad is None


@pytest.mark.parametrize("name", LEFT_TO_TORCH)
def test_the_sweep_leaves_it_to_torch_and_is_refused(name: str) -> None:
    p = due()
    with pytest.raises(NoCurvatureError, match="that torch gets wrong"):
        backward_with_product(WRONG[name][0](p), p, V)
    assert p.grad is None


@pytest.mark.parametrize("name", WRONG)
def test_torch_is_wrong_or_refuses(name: str) -> None:
    """A version of torch that has the derivative needs no refusal."""
    p, (loss, _) = due(), WRONG[name]
    value = loss(p)
    seed = torch.ones_like(value, requires_grad=True)
    (gradient,) = torch.autograd.grad(value, p, seed, create_graph=True)
    if any(type(node).__name__ == "Error" for node in nodes(gradient)):
        with pytest.raises(RuntimeError, match=r"does not support 3rd\+ order"):
            torch.autograd.grad(gradient, p, V)
        return
    (found,) = torch.autograd.grad(gradient, p, V, allow_unused=True)
    expected = by_differences(loss)
    assert found is None or (found - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("name", WRONG)
def test_what_the_message_says_to_write_has_the_product(name: str) -> None:
    loss, plain = WRONG[name]
    expected = by_differences(loss)
    torch.testing.assert_close(by_double_backward(plain), expected, rtol=1e-7, atol=1e-8)


def test_the_sweep_knows_the_weight_norm() -> None:
    p = due()
    found = backward_with_product(weight_norm(p), p, V)
    torch.testing.assert_close(found, by_differences(weight_norm), rtol=1e-7, atol=1e-8)


def running(x: Tensor) -> Tensor:
    return F.batch_norm(x, X[0], X[1].abs() + 0.5)


ABOVE = torch.linspace(-0.5, 0.9, 15, dtype=torch.float64).view(5, 3)


def with_its_own_scale(norm: Callable[..., Tensor]) -> Loss:
    def loss(p: Tensor) -> Tensor:
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(norm(x, p).pow(3).sum(), x, create_graph=True)
        return gradient.pow(2).sum()

    return loss


RIGHT: dict[str, Loss] = {
    "batch norm by running statistics": penalty(running),
    "batch norm": penalty(batch_norm),
    "layer norm": penalty(layer_norm),
    "group norm": penalty(lambda x: F.group_norm(x, 1, eps=0.1)),
    "layer norm by its own scale": with_its_own_scale(lambda x, p: F.layer_norm(x, (3,), p, eps=0.1)),
    "layer norm without a penalty": lambda p: layer_norm(X * p).pow(3).sum(),
    "batch norm without a penalty": lambda p: batch_norm(X * p).pow(3).sum(),
    "weight norm by its gain": lambda p: torch._weight_norm(ABOVE, p[:1].expand(5, 1), 0).pow(3).sum(),
    "beside the way": lambda p: penalty(layer_norm)(V.clone().requires_grad_()) + p.pow(3).sum(),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_torch_gets_right_is_not_refused(name: str) -> None:
    loss, p = RIGHT[name], due()
    expected = by_differences(loss)
    torch.testing.assert_close(by_double_backward(loss), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(backward_with_product(loss(p), p, V), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("place", ["inside", "below"])
def test_a_reentrant_checkpoint_does_not_hide_it(place: str) -> None:
    def inside(x: Tensor) -> Tensor:
        return torch._weight_norm(x * p, torch.ones(5, 1, dtype=p.dtype), 0).pow(3).sum()

    def below(x: Tensor) -> Tensor:
        return x * p

    p, x = due(), X.clone().requires_grad_()
    out = checkpoint(inside if place == "inside" else below, x, use_reentrant=True)
    loss = out if place == "inside" else torch._weight_norm(out, torch.ones(5, 1).double(), 0).pow(3).sum()
    with pytest.raises(NoCurvatureError, match="a derivative of a weight norm"):
        backward_with_product(loss, p, V)
    assert p.grad is None
