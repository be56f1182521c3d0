"""A weight as gain and direction: its derivatives of every kind, and the edges of its domain."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import prepare
from sgdph_fx.filters import Filters, compose, decompose

LAYOUTS = {
    "plain": ((3, 4, 2), Filters(), 3),
    "grouped": ((4, 1, 3), Filters(groups=4), 4),
    "transposed": ((4, 3, 2), Filters(transposed=True), 3),
    "transposed in groups": ((4, 3, 2), Filters(transposed=True, groups=2), 6),
}


@pytest.fixture(params=LAYOUTS, ids=str)
def parts(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Filters]:
    torch.manual_seed(0)
    shape, filters, gains = LAYOUTS[request.param]
    direction, gain = torch.randn(shape, dtype=torch.float64), torch.randn(gains, dtype=torch.float64)
    return direction.requires_grad_(), gain.requires_grad_(), filters


def test_both_derivatives_by_finite_differences(parts: tuple[Tensor, Tensor, Filters]) -> None:
    """Backward, forward, batched, and one over the other."""
    direction, gain, filters = parts

    def weight(v: Tensor, g: Tensor) -> Tensor:
        return compose(v, g, filters)

    how: Any = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(weight, (direction, gain), **how)
    assert torch.autograd.gradgradcheck(
        weight, (direction, gain), check_fwd_over_rev=True, check_rev_over_rev=True
    )
    # One of the two may be frozen.
    assert torch.autograd.gradcheck(weight, (direction.detach(), gain), check_forward_ad=True)
    assert torch.autograd.gradcheck(weight, (direction, gain.detach()), check_forward_ad=True)


def test_transforms_of_functions_see_through_it(parts: tuple[Tensor, Tensor, Filters]) -> None:
    direction, gain, filters = (*(t.detach() for t in parts[:2]), parts[2])
    over = (1, 2) if not filters.transposed else (1, 3)

    def by_definition(v: Tensor, g: Tensor) -> Tensor:
        stacked = v if not filters.transposed else v.unflatten(0, (filters.groups, -1))
        norm = stacked.square().sum(over, keepdim=True).sqrt()
        return (stacked / norm * g.view_as(norm)).view_as(v)

    def bent(weight: Any) -> Any:
        return lambda v, g: weight(v, g).sin().square().sum()

    def ours(v: Tensor, g: Tensor) -> Tensor:
        return compose(v, g, filters)

    found = torch.func.hessian(bent(ours), argnums=(0, 1))(direction, gain)
    torch.testing.assert_close(
        found, torch.func.hessian(bent(by_definition), argnums=(0, 1))(direction, gain)
    )
    several = [torch.stack([t, 2 - t, 0.5 * t]) for t in (direction, gain)]
    by_each = torch.stack(
        [torch.func.grad(bent(by_definition))(*each) for each in zip(*several, strict=True)]
    )
    torch.testing.assert_close(torch.vmap(torch.func.grad(bent(ours)))(*several), by_each)


def test_it_is_compiled_without_a_break_and_traced_into_a_file() -> None:
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).model
    x = torch.randn(2, 3, 5, 5)
    by_each = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        run(x).square().sum().backward()
        by_each.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*by_each)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), model(x), rtol=0, atol=0)


def test_decompose_is_exact_to_the_bit() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        weight = torch.randn(16, 8, 3, 3).to(dtype)
        assert torch.equal(compose(*decompose(weight, Filters()), Filters()), weight)


def test_direction_of_zeros_is_finite() -> None:
    """Never made by us, but a person may load or set it."""
    direction, gain = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    weight = compose(direction, gain, Filters())
    weight.sum().backward()
    assert weight.abs().max() == 0
    assert torch.equal(direction.grad, torch.ones(2, 3))
    assert gain.grad.isfinite().all()
