"""Operations in half precision, under autocast, in mixed dtypes: as near to the float64 product as torch comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import prepare
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.curvature.forward_over_reverse.cases import KNOWN, WRITTEN_OUT
from tests.curvature.forward_over_reverse.cases.elementwise import ARITHMETIC
from tests.curvature.forward_over_reverse.cases.layers import NORMS
from tests.products import (
    LENGTH,
    Operation,
    bent_sum,
    double_backward,
    inputs_of,
    product_by_torch,
    torch_lacks,
)

pytestmark = pytest.mark.usefixtures("one_thread")

HALF, SINGLE = torch.bfloat16, torch.float32


def _has_trace(dtype: torch.dtype) -> bool:
    try:
        torch.ones(2, 2, dtype=dtype).trace()
    except NotImplementedError:
        return False
    return True


# torch has no kernel for these in bfloat16 on a CPU, or none of them for two dtypes.
NOT_IN_HALF = {"made smaller smoothly", "average pool 3d", "quantile"}
NOT_IN_HALF |= set() if _has_trace(HALF) else {"trace, diagonal"}
NOT_MIXED = {"lerp", "lerp by a tensor", "PReLU", "PReLU of channels"}
MIXABLE = [
    name
    for name in NORMS | ARITHMETIC
    if name not in NOT_MIXED and not name.startswith("torch's weight norm")
]
# One is in the dtype of its first input, all others as the second says, and then whether autocast is on.
CASES = [
    *(("all in halves", name, HALF, HALF, False) for name in KNOWN if name not in NOT_IN_HALF),
    *(("under autocast", name, SINGLE, SINGLE, True) for name in KNOWN),
    *(("mixed", name, HALF, SINGLE, False) for name in MIXABLE),
    *(("mixed the other way", name, SINGLE, HALF, False) for name in ARITHMETIC if name not in NOT_MIXED),
    *(("mixed, under autocast", name, HALF, SINGLE, True) for name in NORMS if name in MIXABLE),
]


@pytest.mark.parametrize(
    ("name", "first", "others", "autocast"),
    [pytest.param(*row, id=f"{row[0]}, {how}") for how, *row in CASES],
)
def test_the_error_is_no_larger_than_torchs(
    name: str, first: torch.dtype, others: torch.dtype, autocast: bool
) -> None:
    """Where torch has no second derivative, the error is within 3% of the product."""
    function, shapes = KNOWN[name]
    by_torch: Operation = (WRITTEN_OUT.get(name, function), shapes)
    everything = (True,) * len(shapes)
    p, v = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0)).mul(0.5).unbind()

    def loss_in(operation: Operation, due: Tensor) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            inputs = inputs_of(due, operation, everything)
            dtypes = [first, *[others] * (len(inputs) - 1)]
            with torch.autocast("cpu", HALF, enabled=autocast):
                out = operation[0](*(t.to(dtype) for t, dtype in zip(inputs, dtypes, strict=True)))
            return bent_sum(out.to(due.dtype))

        return loss

    def by_double_backward() -> Tensor:
        try:
            return double_backward(loss_in(by_torch, p), p, v)
        except RuntimeError as error:
            if not torch_lacks(error):
                raise
            return exact

    exact = product_by_torch(p.double().requires_grad_(), v.double(), by_torch, everything)
    p.requires_grad_()
    found = backward_with_product(loss_in((function, shapes), p)(), p, v)
    assert found is not None
    assert found.dtype is torch.float32
    size = exact.norm().item() + 1e-6
    error, torchs_error = ((t.double() - exact).norm().item() / size for t in (found, by_double_backward()))
    assert error <= max(2 * torchs_error, 0.03)


def test_autocast_around_the_product_changes_nothing() -> None:
    """The forward pass did not run under it, so products of matrices stay in single precision."""
    operation: Operation = KNOWN["gated cell"]
    p, v = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0)).unbind()
    p = p.clone().requires_grad_()
    plain = backward_with_product(bent_sum(operation[0](*inputs_of(p, operation, (True, True)))), p, v)
    loss = bent_sum(operation[0](*inputs_of(p, operation, (True, True))))
    with torch.autocast("cpu", HALF):
        found = backward_with_product(loss, p, v)
    assert plain is not None
    assert found is not None
    assert torch.equal(found, plain)


def test_batch_norm_bears_a_tangent_with_a_large_mean() -> None:
    """What all of a channel share has no influence, and must not drown the rest."""
    torch.manual_seed(0)
    x, turn, weights = torch.randn(3, 8, 4, 6, 6, dtype=torch.float64).unbind()

    def product(dtype: torch.dtype) -> Tensor:
        p = torch.zeros(1, dtype=dtype, requires_grad=True)
        y = torch.nn.functional.batch_norm(
            x.to(dtype) + p * (turn + 1000).to(dtype), None, None, training=True
        )
        found = backward_with_product((y * weights.to(dtype)).sin().sum(), p, torch.ones_like(p))
        assert found is not None
        return found.double()

    torch.testing.assert_close(product(SINGLE), product(torch.float64), rtol=0.02, atol=0)


def test_a_decoupled_weight_under_autocast() -> None:
    """It is made in the dtype that autocast asks for, by one operation; against double precision."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    net = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3))).model
    v = torch.ones(4)
    with torch.autocast("cpu", HALF):
        loss = net(x).float().square().mean()
    found = backward_with_product(loss, net[0].gain, v)
    gradient = net[2].direction.grad
    net.zero_grad()
    net.double()
    expected = backward_with_product(net(x.double()).square().mean(), net[0].gain, v.double())
    assert found is not None
    assert expected is not None
    for a, b in ((found, expected), (gradient, net[2].direction.grad)):
        torch.testing.assert_close(a.double(), b, rtol=0.05, atol=0.02 * b.abs().max().item())
