"""Products of two parameters' joint Hessian, and 2×2 blocks, against the dense matrix of torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature.forward_over_reverse.joint import backward_with_columns, columns_only
from sgdph_fx.curvature.gauss_newton import gauss_newton_diagonal, gauss_newton_entries
from sgdph_fx.curvature.pair_blocks import columns_by_double_backward, columns_of_gradients, estimate_blocks
from sgdph_fx.curvature.probes import PROBES, generator_at
from sgdph_fx.curvature.random_signs import sign_key
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters
from tests.once import Cut
from tests.squared import Squared

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.tensor([2, 0, 1, 1])


class Scaled(nn.Module):
    """Scale and shift that enter far from each other, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        shift = self.bias.view(1, -1, 1, 1)
        found: Tensor = torch.tanh(x + shift) * self.weight.view(1, -1, 1, 1) + shift.exp()
        return found


def hypotenuse(x: Tensor) -> Tensor:
    """An operation without a rule of its own, whose derivative torch knows."""
    return torch.hypot(x, torch.ones_like(x))


class Calling(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "layer": lambda: nn.LayerNorm((4, 3, 3)),
    "apart": Scaled,
}


def network(middle: str, after: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    first, affine = nn.Conv2d(2, 4, 3), MIDDLES[middle]()
    net = nn.Sequential(
        first, affine, after or nn.Softplus(), nn.Conv2d(4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    )
    for p in net.double().parameters():
        nn.init.normal_(p, mean=0.4, std=0.4)
    return net


INPUTS = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(net: nn.Module) -> Tensor:
    return cross_entropy(net(INPUTS), LABELS)


def dense(net: nn.Module, names: tuple[str, str] = ("1.weight", "1.bias")) -> Tensor:
    """The four blocks, ``(2, 2, n, n)``: by the first along the rows, by the second along the columns."""
    values = [net.get_parameter(name).detach() for name in names]
    n = values[0].numel()

    def loss(flat: Tensor) -> Any:
        parts = [part.view_as(value) for part, value in zip(flat.split(n), values, strict=True)]
        found = torch.func.functional_call(net, dict(zip(names, parts, strict=True)), (INPUTS,))
        return cross_entropy(found, LABELS)

    matrix = torch.func.hessian(loss)(torch.cat([value.flatten() for value in values]))
    return matrix.view(2, n, 2, n).transpose(1, 2)


def pair_of(net: nn.Module) -> list[Tensor]:
    return [net.get_parameter("1.weight"), net.get_parameter("1.bias")]


def direction(net: nn.Module) -> Tensor:
    return torch.randn(pair_of(net)[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def require_columns(found: Any, matrix: Tensor, v: Tensor) -> None:
    for place, column in enumerate(found):
        for part, block in zip(column, matrix[:, place], strict=True):
            torch.testing.assert_close(part, (block @ v.flatten()).view_as(v), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("middle", MIDDLES)
def test_both_columns_beside_one_backward_pass(middle: str) -> None:
    net, plain = network(middle), network(middle)
    v, told = direction(net), []  # type: ignore[var-annotated]
    found = backward_with_columns(loss_of(net), pair_of(net), v, on_give_up=told.append)
    assert not told
    require_columns(found, dense(plain), v)
    loss_of(plain).backward()  # type: ignore[no-untyped-call]
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["only", "double backward", "gradients"])
def test_the_other_ways_give_the_same_and_write_nothing(kind: str) -> None:
    net = network("batch")
    v, pair = direction(net), pair_of(net)
    if kind == "only":
        found = columns_only(loss_of(net), pair, v)
    elif kind == "double backward":
        found = columns_by_double_backward(loss_of(net), pair)(v)
    else:
        gradients = torch.autograd.grad(loss_of(net), pair, create_graph=True)
        found = columns_of_gradients(gradients, pair)(v)
    require_columns(found, dense(net), v)
    assert all(p.grad is None for p in net.parameters())


def test_gain_and_bias_of_a_decoupled_convolution() -> None:
    decoupled = decouple(network("batch"), {"3.weight": Filters()})
    names = ("3.gain", "3.bias")
    pair = [decoupled.get_parameter(name) for name in names]
    v = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    found = backward_with_columns(loss_of(decoupled), pair, v)
    require_columns(found, dense(decoupled, names), v)


@pytest.mark.parametrize(
    ("function", "same", "gives_up"),
    [(Squared.apply, torch.square, True), (hypotenuse, lambda x: (x * x + 1).sqrt(), False)],
)
def test_where_a_rule_is_missing_torch_takes_it(
    function: Callable[[Tensor], Tensor], same: Callable[[Tensor], Tensor], gives_up: bool
) -> None:
    net, plain, told = network("group", Calling(function)), network("group", Calling(same)), []
    v = direction(net)
    loss = loss_of(net)
    found = backward_with_columns(loss, pair_of(net), v, retain_graph=True, on_give_up=told.append)
    assert bool(told) is gives_up
    loss_of(plain).backward()  # type: ignore[no-untyped-call]
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)
    again = columns_only(loss, pair_of(net), v)
    for first, second in zip(found, again, strict=True):
        torch.testing.assert_close(first, second)
    require_columns(found, dense(plain), v)


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_reads_the_diagonals_of_all_four_blocks(probe: Any) -> None:
    net = network("batch")
    pair, matrix = pair_of(net), dense(net)
    columns_of = columns_by_double_backward(loss_of(net), pair)
    found = estimate_blocks(columns_of, PROBES[probe], pair[0], generator_at(3, 5))
    if probe == "exact":
        blocks = matrix.diagonal(dim1=2, dim2=3)
    elif probe == "ones":
        blocks = matrix.sum(3)
    else:
        drawn = list(PROBES[probe].vectors(pair[0], generator_at(3, 5)))
        blocks = torch.stack([z * (matrix @ z) for z in drawn]).mean(0)
    coupling = (blocks[0, 1] + blocks[1, 0]) / 2
    for entry, expected in zip(found, (blocks[0, 0], coupling, blocks[1, 1]), strict=True):
        torch.testing.assert_close(entry, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("key", [None, sign_key(0, 1)])
def test_the_coupling_of_gauss_newton(key: Tensor | None) -> None:
    """JᵀAJ, or its draw wwᵀ with w = JᵀBs: a = u², c = uv and d = v², whose determinant is zero."""
    net = network("batch")
    names = ("1.weight", "1.bias")
    values = {name: net.get_parameter(name).detach() for name in names}
    parts = torch.func.jacrev(lambda given: torch.func.functional_call(net, given, (INPUTS,)))(values)
    first, second = (parts[name].reshape(12, 4) for name in names)
    bend = torch.func.hessian(lambda z: cross_entropy(z, LABELS))(net(INPUTS).detach()).reshape(12, 12)
    (a, d), (c,) = gauss_newton_entries(loss_of(net), pair_of(net), [(0, 1)], key)
    if key is None:
        torch.testing.assert_close(c, (first.T @ bend @ second).diagonal(), rtol=1e-9, atol=1e-13)
    else:
        torch.testing.assert_close(c * c, a * d, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(a, gauss_newton_diagonal(loss_of(net), pair_of(net), key)[0])
    one = nn.Parameter(torch.ones(4, dtype=torch.float64))
    assert gauss_newton_entries(loss_of(net), [pair_of(net)[0], one], [(0, 1)], key)[1] == [None]


def test_a_reentrant_checkpoint_is_refused_and_nothing_is_written() -> None:
    net, x = network("batch"), INPUTS.clone().requires_grad_()
    loss = cross_entropy(checkpoint(net, x, use_reentrant=True), LABELS)
    with pytest.raises(NoCurvatureError, match=r'use_reentrant=False.*blocks="diagonal"'):
        backward_with_columns(loss, pair_of(net), direction(net))
    assert all(p.grad is None for p in net.parameters())


def test_without_a_second_derivative_nothing_is_written() -> None:
    net = network("batch", Calling(Cut.apply))
    with pytest.raises(NoCurvatureError):
        backward_with_columns(loss_of(net), pair_of(net), direction(net))
    assert all(p.grad is None for p in net.parameters())
