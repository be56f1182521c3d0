"""Each operation alone, all or some of its inputs made from the due parameter, against torch's double backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.errors import NoCurvatureError
from tests.curvature.forward_over_reverse.cases import KNOWN, TOLERANCES, UNKNOWN, WRITTEN_OUT
from tests.products import (
    LENGTH,
    activities,
    bent_sum,
    double_backward,
    inputs_of,
    loss_of,
    product_by_torch,
    torch_lacks,
)

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
    if name == "grid sample" and active[1] and not _has_second_derivative(loss, p):
        with pytest.raises(NoCurvatureError, match=r"derivative for aten::.* is not implemented"):
            backward_with_product(loss, p, v)
        assert p.grad is None
        return
    found = backward_with_product(loss, p, v)
    assert found is not None
    assert p.grad is not None
    assert torch.equal(p.grad, gradient)
    assert not found.requires_grad
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES.get(name, 1e-12) * scale)


def _has_second_derivative(loss: Tensor, p: Tensor) -> bool:
    (g,) = torch.autograd.grad(loss, p, create_graph=True)
    try:
        torch.autograd.grad(g.sum(), p, retain_graph=True)
    except RuntimeError as error:
        return not torch_lacks(error)
    return True


@pytest.mark.parametrize("first_too", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_inputs_may_depend_on_the_parameter_and_have_no_tangent(name: str, first_too: bool) -> None:
    """Rounded numbers do not move with the parameter: all inputs but the first are rounded, and then that as well."""
    function, shapes = KNOWN[name]
    p, v = torch.randn(2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    p = p.clone().requires_grad_()

    def loss(operation: Callable[..., Tensor]) -> Tensor:
        first, *others = inputs_of(p, (function, shapes), (True,) * len(shapes))
        rounded = [t.round() + 0.25 * t.sign() for t in (first, *others)]
        out = operation(*(rounded if first_too else (first, *rounded[1:])))
        return bent_sum(out) + p.square().sum()

    expected = double_backward(lambda: loss(WRITTEN_OUT.get(name, function)), p, v)
    found = backward_with_product(loss(function), p, v)
    assert found is not None
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES.get(name, 1e-11) * scale)


@pytest.mark.parametrize("name", KNOWN)
def test_known_operations_do_not_fall_back(name: str) -> None:
    p = torch.randn(LENGTH, dtype=torch.float64, requires_grad=True)
    operation = KNOWN[name]
    found = coverage(loss_of(p, operation, (True,) * len(operation[1])))
    assert found.fallbacks == {}
    assert found.own_rule
