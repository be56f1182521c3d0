"""Triton's kernels for norms, compiled, on the shapes and strides that its interpreter is held to on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.transform import fused
from tests.curvature.forward_over_reverse.test_triton_norms import BATCH_NORMS, NORMS
from tests.kernels import note_launches
from tests.products import LENGTH, loss_of, product_by_torch

pytestmark = pytest.mark.gpu

CASES: dict[str, Any] = {
    **{f"layer norm, {name}": case for name, case in NORMS.items()},
    **{f"batch norm, {name}": case for name, case in BATCH_NORMS.items()},
    "gelu": (lambda x: F.gelu(8 * x), [(40, 30)]),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_the_cpu(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    operation, shapes = CASES[name]
    active = (True, *(False for _ in shapes[1:]))  # the due parameter is below
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    expected = product_by_torch(p.clone().requires_grad_(), v, (operation, shapes), active)

    def in_single(*inputs: Tensor) -> Tensor:
        return operation(*(t.float() for t in inputs)).double()  # type: ignore[no-any-return]

    names = note_launches(monkeypatch)
    q = p.to(device).requires_grad_()
    found = backward_with_product(loss_of(q, (in_single, shapes), active), q, v.to(device))
    assert found is not None
    assert names
    assert fused.failure() == ""
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
