"""torchvision's own operations, which it differentiates once: against differences of gradients, and a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import ops
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.errors import NoCurvatureError
from tests.products import LENGTH, Operation, activities, loss_of
from tests.torchvision_nodes import IN_PYTHON

pytestmark = pytest.mark.usefixtures("one_thread")

REGIONS = torch.tensor([[0, 0, 0, 3, 4], [1, 1.2, 0.4, 5, 3.7], [1, -9, -9, -8, -8]]).double()
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "RoI align": lambda x: ops.roi_align(x, REGIONS, (2, 3), 0.9, 2, aligned=True),
    "RoI align, as many samples as fit": lambda x: ops.roi_align(x, REGIONS, 2),
    "RoI pool": lambda x: ops.roi_pool(x, REGIONS, (2, 3), 0.9),
    "position-sensitive RoI align": lambda x: ops.ps_roi_align(x, REGIONS, 2, 0.9, 2),
    "position-sensitive RoI pool": lambda x: ops.ps_roi_pool(x, REGIONS, 2, 0.9),
}


def require_product(loss: Tensor, p: Tensor, expected: Tensor, v: Tensor, tolerance: float) -> None:
    """The product is as expected; or, where torchvision hides the operation, refused before any gradient is written."""
    if not IN_PYTHON:
        with pytest.raises(NoCurvatureError, match=r"double backwards on \w+ not supported"):
            backward_with_product(loss, p, v)
        assert p.grad is None
        loss.backward()  # type: ignore[no-untyped-call]
        return
    assert coverage(loss, p).fallbacks == {}
    found = backward_with_product(loss, p, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.mark.parametrize("name", POOLS)
def test_the_product_is_a_difference_of_gradients(name: str) -> None:
    """The loss is a square of a linear function, so that the difference is exact at any distance."""
    operation: Operation = (POOLS[name], [(2, 4, 6, 7)])
    start, v = torch.randn(
        2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).unbind()

    def gradient(at: Tensor) -> Tensor:
        at = at.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss_of(at, operation, (True,)), at)
        return g

    step = 1e-6 if name == "RoI pool" else 0.5  # the largest number of a region stays the largest nearby
    expected = (gradient(start + step * v) - gradient(start - step * v)) / (2 * step)
    p = start.clone().requires_grad_()
    loss = loss_of(p, operation, (True,))
    require_product(loss, p, expected, v, 1e-8)
    torch.testing.assert_close(p.grad, gradient(start), rtol=1e-12, atol=1e-12)


def test_a_deformable_convolution_has_the_product_of_differences() -> None:
    """In image, weight, offsets, factors and bias together: central differences of the gradient, in float64."""

    def deformed(x: Tensor, w: Tensor, offset: Tensor, mask: Tensor, b: Tensor) -> Tensor:
        how = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
        return ops.deform_conv2d(x, 0.3 * offset, w, b, mask=mask, **how)

    def plain(x: Tensor, w: Tensor, offset: Tensor) -> Tensor:
        return ops.deform_conv2d(x, 0.3 * offset, w)

    cases: list[Operation] = [
        (deformed, [(2, 4, 6, 7), (6, 2, 3, 2), (2, 24, 3, 5), (2, 12, 3, 5), (6,)]),
        (plain, [(1, 2, 1, 5), (3, 2, 1, 2), (1, 4, 1, 4)]),
    ]
    for operation in cases:
        start, v = torch.randn(
            2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).unbind()
        for active in activities(operation):

            def gradient(at: Tensor, operation: Operation = operation, active: Any = active) -> Tensor:
                at = at.clone().requires_grad_()
                (g,) = torch.autograd.grad(loss_of(at, operation, active), at)
                return g

            expected = (gradient(start + 1e-6 * v) - gradient(start - 1e-6 * v)) / 2e-6
            p = start.clone().requires_grad_()
            loss = loss_of(p, operation, active)
            require_product(loss, p, expected, v, 1e-7)
            torch.testing.assert_close(p.grad, gradient(start), rtol=1e-12, atol=1e-12)


def test_a_detector_has_products_all_the_way_down() -> None:
    """Or, where torchvision hides RoIAlign, down to it."""
    torch.manual_seed(0)
    build: Any = fasterrcnn_mobilenet_v3_large_320_fpn
    net = build(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64).train()
    target = {"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1])}
    loss = sum(net([torch.rand(3, 64, 64)], [target]).values())
    lowest = next(p for p in net.parameters() if p.requires_grad and p.dim() == 1)
    if IN_PYTHON:
        assert any("roi_align" in name for name in coverage(loss, lowest).own_rule)
    else:
        with pytest.raises(NoCurvatureError, match="double backwards on roi_align not supported"):
            backward_with_product(loss, lowest, torch.ones_like(lowest))
    due = lowest if IN_PYTHON else net.roi_heads.box_head.fc6.bias
    found = backward_with_product(loss, due, torch.ones_like(due))
    assert found is not None
    assert found.isfinite().all()
    assert found.abs().max() > 0
