"""Products and probes, against the whole Hessian that torch.func computes another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.curvature import PROBES, block_product, differentiable_gradient, generator_at
from sgdph_fx.curvature.autograd_graph import leaves
from sgdph_fx.errors import NoCurvatureError
from tests.once import Cut


class Zoo(nn.Module):
    """A plain, a depthwise and a transposed convolution, each followed by another norm, and linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.batch_norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.transposed = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.layer_norm = nn.LayerNorm((3, 8, 8))
        self.linear = nn.Linear(3 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.softplus(self.batch_norm(self.conv(x)))
        x = torch.tanh(self.group_norm(self.depthwise(x)))
        x = torch.nn.functional.silu(self.layer_norm(self.transposed(x)))
        out: Tensor = self.linear(x.flatten(1))
        return out


def zoo_and_loss() -> tuple[Zoo, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Zoo().double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net, torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])


CHANNEL_WISE = [name for name, p in Zoo().named_parameters() if p.dim() == 1 or name.startswith("layer_norm")]


@pytest.mark.parametrize("name", CHANNEL_WISE)
def test_the_product_is_the_hessian_block_times_the_probe(name: str) -> None:
    net, x, y = zoo_and_loss()
    parameters = dict(net.named_parameters())
    parameter = parameters[name]
    fixed = {key: value.detach() for key, value in parameters.items()}

    def loss_of(own: Tensor) -> Tensor:
        out = torch.func.functional_call(net, {**fixed, name: own}, (x,))
        return nn.functional.cross_entropy(out, y)

    n = parameter.numel()
    block = torch.func.hessian(loss_of)(parameter.detach()).reshape(n, n)
    gradient = differentiable_gradient(nn.functional.cross_entropy(net(x), y), parameter)
    assert gradient is not None
    product = block_product(gradient, parameter)
    v = torch.randn_like(parameter)
    found = torch.stack([PROBES["ones"].estimate(product, parameter, generator_at(0, 1)), product(v)])
    expected = torch.stack([block.sum(1), block @ v.detach().reshape(n)]).reshape(found.shape)
    # The bias that batch norm absorbs has a Hessian of nothing but rounding.
    assert (block.abs().max().item() < 1e-20) == (name == "conv.bias")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * block.abs().max().item() + 1e-16)
    assert not found.requires_grad


def test_ones_reads_the_row_sums_of_a_matrix_that_it_never_sees() -> None:
    matrix = torch.tensor([[2.0, -1.0], [-1.0, 3.0]])
    found = PROBES["ones"].estimate(
        lambda v: matrix @ v, torch.zeros(2, requires_grad=True), generator_at(0, 1)
    )
    assert found.tolist() == [1.0, 2.0]


def test_a_parameter_that_the_loss_does_not_use_has_no_gradient() -> None:
    used, unused, frozen = (torch.ones(2, requires_grad=r) for r in (True, True, False))
    loss = ((used * frozen) ** 2).sum()
    assert differentiable_gradient(loss, unused) is None
    assert differentiable_gradient(loss, frozen) is None


@pytest.mark.parametrize("power", [1, 2])
def test_a_loss_linear_in_the_parameter_has_a_zero_hessian(power: int) -> None:
    p, q = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    loss = (p * q.detach() ** 2).sum() if power == 1 else (p * q**2).sum()
    gradient = differentiable_gradient(loss, p)
    assert gradient is not None
    assert gradient.tolist() == [9.0, 16.0]
    assert block_product(gradient, p)(torch.ones(2)).tolist() == [0.0, 0.0]


def test_the_graph_is_kept_for_more_products_and_the_gradient_left_alone() -> None:
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = (p**3).sum()
    gradient = differentiable_gradient(loss, p)
    assert gradient is not None
    product = block_product(gradient, p)
    assert product(torch.tensor([1.0, 0.0])).tolist() == [6.0, 0.0]
    assert product(torch.tensor([0.0, 1.0])).tolist() == [0.0, 12.0]
    before = p.grad
    torch.autograd.backward(loss)
    assert before is None
    assert p.grad is not None
    assert p.grad.tolist() == [3.0, 12.0]


@pytest.mark.parametrize("beside", [0.0, 1.0])
def test_an_operation_without_second_derivative_is_said_to_be_one(beside: float) -> None:
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    gradient = differentiable_gradient((Cut.apply(p).exp() + beside * p**3).sum(), p)
    assert gradient is not None
    with pytest.raises(NoCurvatureError, match=r"no second derivative.*once_differentiable"):
        block_product(gradient, p)(torch.ones(2))


def test_other_failures_of_autograd_are_not_dressed_up() -> None:
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = (p**2).sum()
    torch.autograd.backward(loss)
    with pytest.raises(RuntimeError, match="backward through the graph a second time") as caught:
        differentiable_gradient(loss, p)
    assert not isinstance(caught.value, NoCurvatureError)


def test_leaves_are_all_that_the_loss_sends_a_gradient_to() -> None:
    a, b, c, outside = (torch.ones(2, requires_grad=True) for _ in range(4))
    loss = ((a * b).sin() + a * c.detach() + b @ b).sum() + c.sum()
    found = list(leaves(loss))
    assert len(found) == 3
    assert {id(leaf) for leaf in found} == {id(a), id(b), id(c)}
    assert id(outside) not in {id(leaf) for leaf in found}
    assert list(leaves(torch.ones(()))) == []
    own = torch.ones((), requires_grad=True)
    assert next(leaves(own)) is own
