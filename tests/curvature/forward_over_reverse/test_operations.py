"""Each operation alone, all or some of its inputs made from the due parameter, against torch's double backward."""

from __future__ import annotations

import pytest
import torch

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from tests.curvature.forward_over_reverse.cases import KNOWN, TOLERANCES, UNKNOWN, WRITTEN_OUT
from tests.products import LENGTH, activities, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [
    pytest.param(name, active, id=f"{name}-{''.join('v' if a else '.' for a in active)}")
    for name, operation in (KNOWN | UNKNOWN).items()
    for active in activities(operation)
]


@pytest.mark.parametrize(("name", "active"), CASES)
def test_the_product_is_torchs(name: str, active: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    p = p.clone().requires_grad_()
    function, shapes = operation = (KNOWN | UNKNOWN)[name]
    expected = product_by_torch(p, v, (WRITTEN_OUT.get(name, function), shapes), active)
    loss = loss_of(p, operation, active)
    (gradient,) = torch.autograd.grad(loss, p, retain_graph=True)
    found = backward_with_product(loss, p, v)
    assert found is not None
    assert p.grad is not None
    assert torch.equal(p.grad, gradient)
    assert not found.requires_grad
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES.get(name, 1e-12) * scale)


@pytest.mark.parametrize("name", KNOWN)
def test_known_operations_do_not_fall_back(name: str) -> None:
    p = torch.randn(LENGTH, dtype=torch.float64, requires_grad=True)
    operation = KNOWN[name]
    found = coverage(loss_of(p, operation, (True,) * len(operation[1])))
    assert found.fallbacks == {}
    assert found.own_rule
