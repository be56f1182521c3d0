"""Inputs that do not lie in memory as they count: channels last, transposed, with gaps, many numbers in one place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.curvature.forward_over_reverse.cases import KNOWN, TOLERANCES, WRITTEN_OUT
from tests.products import LENGTH, Operation, bent_sum, double_backward, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def _transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT if t.dim() > 1 else t


def _with_gaps(t: Tensor) -> Tensor:
    return torch.stack([t, t], -1)[..., 0]


def _expanded(t: Tensor) -> Tensor:
    return t[:1].expand_as(t) if t.numel() else t


LAYOUTS = {
    "channels last": _channels_last,
    "transposed": _transposed,
    "with gaps": _with_gaps,
    "expanded": lambda t: _expanded(t) if t.dim() else t,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", KNOWN)
def test_the_product_is_torchs(name: str, layout: str) -> None:
    function, shapes = KNOWN[name]
    everything = (True,) * len(shapes)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    p = p.clone().requires_grad_()

    def loss(operation: Callable[..., Tensor]) -> Tensor:
        inputs = inputs_of(p, (function, shapes), everything)
        out = operation(*map(LAYOUTS[layout], inputs))
        return bent_sum(out.mT if out.dim() > 1 else out)

    by_torch: Operation = (WRITTEN_OUT.get(name, function), shapes)
    expected = double_backward(lambda: loss(by_torch[0]), p, v)
    found = backward_with_product(loss(function), p, v)
    assert found is not None
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES.get(name, 1e-11) * scale)
