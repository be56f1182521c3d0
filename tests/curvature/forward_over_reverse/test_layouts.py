"""Inputs that do not lie in memory as they count: channels last, transposed, with gaps, many numbers in one place."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
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


def _standardized(x: Tensor, dims: list[int]) -> Tensor:
    return (x - x.mean(dims, keepdim=True)) * torch.rsqrt(x.var(dims, False, keepdim=True) + 1e-5)


BEFORE_THE_NORM: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a convolution": lambda x, w: torch.convolution(
        x, w, None, *([n] * (x.dim() - 2) for n in (1, 1, 1)), False, [0] * (x.dim() - 2), 1
    ),
    "a sum": lambda x, w: torch.zeros(x.shape, dtype=x.dtype) + x,
    "a copy": lambda x, w: x.contiguous(),
}
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": lambda x: F.batch_norm(x, None, None, training=True),
    "scaled batch": lambda x: (
        F.batch_norm(x, None, None, torch.full((4,), 2.0, dtype=x.dtype), None, True) / 2
    ),
    "instance": F.instance_norm,
}


@pytest.mark.parametrize("sizes", [(6, 5), (3, 4, 2)], ids=["map", "volume"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("before", BEFORE_THE_NORM)
def test_a_norm_of_the_tokens_of_one_sample(before: str, norm: str, sizes: tuple[int, ...]) -> None:
    """Tokens that become a map have channels last, and a batch stride of which torch's kernel thinks otherwise."""
    generator = torch.Generator().manual_seed(0)
    p, v = torch.randn(2, 4, dtype=torch.float64, generator=generator).unbind()
    p = p.clone().requires_grad_()
    tokens = torch.randn(1, math.prod(sizes), 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 4, *[3] * len(sizes), dtype=torch.float64, generator=generator)

    def loss(standardize: Callable[[Tensor], Tensor]) -> Tensor:
        x = (tokens * p).tanh().transpose(1, 2).unflatten(2, sizes)
        y: Tensor = bent_sum(standardize(BEFORE_THE_NORM[before](x, weight)).contiguous())
        return y

    dims = list(range(2, 2 + len(sizes)))
    expected = double_backward(lambda: loss(lambda x: _standardized(x, dims)), p, v)
    found = backward_with_product(loss(NORMS[norm]), p, v)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
