"""Products under CUDA's conventions, without a GPU: what a CPU lets pass and a GPU does not is an error here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.operations import batch_norm, standardization
from tests.curvature.cuda_conventions import CudaConventions, CudaRefuses
from tests.curvature.networks import IMAGES, LABELS, NETWORKS
from tests.products import double_backward

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = NETWORKS[name]().double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def loss_of(net: nn.Module, layout: str = "contiguous") -> Tensor:
    like = next(net.parameters())
    torch.manual_seed(1)
    return F.cross_entropy(net(IMAGES.to(like).contiguous(memory_format=FORMATS[layout])).float(), LABELS)


class GivenUpError(Exception):
    """The sweep gave up, where it should not."""


def product(loss: Tensor, p: Tensor, v: Tensor) -> Tensor | None:
    """Take it by the rules alone: neither half of the sweep may fail."""

    def fail(reason: str) -> None:
        raise GivenUpError(reason)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return backward_with_product(loss, p, v, on_give_up=fail)


def due(net: nn.Module) -> Tensor:
    """The lowest one."""
    return next(p for p in net.parameters() if p.dim() == 1)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_those_without(name: str, layout: str) -> None:
    net: Any = network(name).to(memory_format=FORMATS[layout])
    p = due(net)
    v = torch.randn_like(p)
    expected = double_backward(lambda: loss_of(net, layout), p, v)
    with CudaConventions() as conventions:
        found = product(loss_of(net, layout), p, v)
    assert found is not None
    # The logits pass through single precision.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert sum(conventions.calls.values()) > 100


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_halves_keep_to_them_too(name: str, dtype: torch.dtype) -> None:
    net = network(name)
    p = due(net)
    v = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(0))
    exact = double_backward(lambda: loss_of(net), p, v)
    net, v = net.to(dtype), v.to(dtype)
    p = due(net)
    torchs = double_backward(lambda: loss_of(net), p, v)
    with CudaConventions():
        found = product(loss_of(net), p, v)
    assert found is not None
    assert found.dtype is dtype
    error, torchs_error = ((t.double() - exact).norm() / exact.norm() for t in (found, torchs))
    assert error <= max(2 * torchs_error.item(), 0.05)


def _batch_norm_with_epsilon_of_zero(norm: Any, slope: Tensor, offset: Tensor) -> Tensor:
    flat = torch.ones_like(norm.mean)
    # Of F.batch_norm itself, some versions of torch refuse an epsilon of zero everywhere.
    return torch.native_batch_norm(norm.x, slope * norm.r, offset, norm.mean, flat, False, 0.0, 0.0)[0]


def _sums_without_a_weight(u: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    call: Any = torch.ops.aten.native_batch_norm_backward.default
    _, along, plain = call(u, x, None, None, None, mean, r, True, 1e-5, [False, True, True])
    return plain, along


@pytest.mark.parametrize(
    ("where", "what", "mistake", "words"),
    [
        (batch_norm._Norm, "affine", _batch_norm_with_epsilon_of_zero, "epsilon of 0"),
        (batch_norm, "channel_sums", _sums_without_a_weight, "None"),
        (standardization, "channel_sums", _sums_without_a_weight, "None"),
    ],
)
def test_the_mistakes_that_once_crashed_on_a_gpu_are_seen(
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    what: str,
    mistake: Callable[..., Any],
    words: str,
) -> None:
    monkeypatch.setattr(where, what, mistake)
    net = network("layer norms" if where is standardization else "resnet")
    product(loss_of(net), due(net), torch.ones_like(due(net)))  # a CPU lets it pass
    with CudaConventions(), pytest.raises((GivenUpError, RuntimeWarning), match=words):
        product(loss_of(net), due(net), torch.ones_like(due(net)))


def test_reading_a_number_is_an_error() -> None:
    with CudaConventions():
        x = torch.ones(3)
        for read in (
            lambda: x.sum().item(),
            lambda: bool(x.sum() > 0),
            lambda: x.nonzero(),
            lambda: x[x > 0],
            lambda: torch.equal(x, x),
        ):
            with pytest.raises(CudaRefuses, match="the host reads"):
                read()
