"""`loss.backward(create_graph=True)`, where torch's second derivative is silently wrong: told by its asymmetry."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim import SGDPH

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning"),
]

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()


def plain(net: nn.Module, x: Tensor = X) -> Tensor:
    loss: Tensor = net(x).pow(2).mean()
    return loss


def penalty(net: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain(net, x), x, create_graph=True)
    return slope.pow(2).sum()


def optimizer_of(net: nn.Sequential, without_curvature: str = "raise") -> SGDPH:
    params = [("low", net[0].bias), ("scale", net[1].weight), ("last", net[3].bias)]
    return SGDPH([{"params": params, "order": 2}], 0.1, without_curvature=without_curvature)  # type: ignore[arg-type]


def test_a_penalty_on_a_gradient_of_a_norm_is_refused_and_nothing_changes() -> None:
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = optimizer_of(net)
    penalty(net).backward(create_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(NoCurvatureError, match=r"gradient of parameter 'low' is not symmetric"):
        optimizer.step()
    assert all(map(torch.equal, before, net.parameters()))


def test_by_default_the_gradient_stands_in_and_its_average_is_of_that() -> None:
    net = network()
    optimizer = optimizer_of(net, "gradient")
    penalty(net).backward(create_graph=True)  # type: ignore[no-untyped-call]
    gradient = net[0].bias.grad
    with pytest.warns(RuntimeWarning, match="not symmetric"):
        optimizer.step()
    # |g|, averaged from zero with weight 0.1.
    assert isinstance(gradient, Tensor)
    torch.testing.assert_close(optimizer.state[net[0].bias]["hessian_average"], gradient.detach().abs() * 0.1)


def test_the_loss_without_the_penalty_has_its_row_sums() -> None:
    net = network()
    optimizer = optimizer_of(net)
    low = net[0].bias.detach()
    plain(net).backward(create_graph=True)  # type: ignore[no-untyped-call]

    def loss_at(p: Tensor) -> Tensor:
        loss: Tensor = torch.func.functional_call(net, {"0.bias": p}, (X,)).pow(2).mean()
        return loss

    sums = torch.func.hessian(loss_at)(low.clone()).sum(1)
    optimizer.step()
    torch.testing.assert_close(
        optimizer.state[net[0].bias]["hessian_average"], sums.detach().abs() * 0.1, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_bias_of_a_norm_without_weight_has_no_hessian_of_zero(norm: str) -> None:
    """L = Σ c exp(y + b) has the Hessian diag(Σ c exp(y + b)) by b; torch takes the gradient for a constant."""
    b, last = (nn.Parameter(torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)) for _ in range(2))

    def loss() -> Tensor:
        h = X * last
        y = nn.functional.layer_norm(h, (3,), None, b)
        if norm == "batch":
            y = nn.functional.batch_norm(h, None, None, None, b, training=True)
        return (y.exp() * X.square()).sum()

    groups = [{"params": [("b", b), ("last", last)], "order": 2}]
    optimizer = SGDPH(
        groups, 0.1, variant="paper", hessian_momentum=1.0, eps=1e-26, without_curvature="raise"
    )  # type: ignore[arg-type]
    loss().backward(create_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(
        NoCurvatureError, match=r"gradient of parameter 'b' for a constant.*optimizer.backward"
    ):
        optimizer.step()
    optimizer.zero_grad()
    optimizer.backward(loss())
    # The gradient is Σ c exp(y + b) as well.
    assert b.grad is not None
    expected = b.grad.detach().clone()
    optimizer.step()
    torch.testing.assert_close(optimizer.state[b]["hessian_average"], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_asymmetry(dtype: torch.dtype) -> None:
    """The Hessian by a bias that a norm absorbs is zero, and in single precision all rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 2)).to(dtype)
    params = [net[0].bias, net[1].weight, net[1].bias, net[3].bias]
    optimizer = SGDPH([{"params": params, "order": 2}], 1e-3, without_curvature="raise")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Hessian")
        for _ in range(4):
            optimizer.zero_grad()
            net(torch.randn(32, 16, dtype=dtype)).pow(2).mean().backward(create_graph=True)
            optimizer.step()
    assert optimizer.curvature_missed == 0
