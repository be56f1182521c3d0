"""Probes of several products where torch has no double backward: a sweep takes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgdph_fx.curvature import PROBES, generator_at
from sgdph_fx.optim import SGDPH

X = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
AFFINE: dict[str, Any] = {"blocks": "affine"}


def loss_of(gain: Tensor, bias: Tensor) -> Tensor:
    """A loss that reads scale and shift through attention, fused unless its caller forbids it."""
    h = (X * gain + bias)[:, None]
    return nn.functional.scaled_dot_product_attention(h, h.sin(), h).square().mean()


def hessian() -> Any:
    point = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss_of, point)


def step(probe: Any, **options: Any) -> SGDPH:
    gain = nn.Parameter(torch.ones(4, dtype=torch.float64))
    bias = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    last = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    group = {"params": [gain, bias, last], "param_names": ["0.weight", "0.bias", "1.bias"], "order": 2}
    optimizer = SGDPH([group], 0.0, probe=probe, without_curvature="raise", hessian_momentum=0.0, **options)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        optimizer.backward(loss_of(gain, bias) + last.sum())
    optimizer.step()
    return optimizer


def averages(optimizer: SGDPH, name: str = "hessian_average") -> list[Tensor]:
    held = (optimizer.state[p] for p in optimizer.param_groups[0]["params"])
    return [state[name] for state in held if name in state]


def test_torch_has_no_double_backward_of_it() -> None:
    gain = torch.ones(4, dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        (gradient,) = torch.autograd.grad(loss_of(gain, torch.zeros_like(gain)), gain, create_graph=True)
        with pytest.raises(RuntimeError, match="not implemented"):
            torch.autograd.grad(gradient.sum(), gain)


def test_exact_and_the_mean_of_four_draws() -> None:
    expected = hessian()[0][0]
    torch.testing.assert_close(averages(step("exact"))[0], expected.diagonal().abs(), rtol=1e-9, atol=1e-14)
    drawn = list(PROBES["rademacher-4"].vectors(expected[0], generator_at(0, 1)))
    mean = torch.stack([z * (expected @ z) for z in drawn]).mean(0)
    torch.testing.assert_close(averages(step("rademacher-4"))[0], mean, rtol=1e-9, atol=1e-14)


def test_gradients_are_those_of_one_backward_pass() -> None:
    for options in ({}, AFFINE):
        optimizer = step("exact", **options)
        gain, bias, _ = optimizer.param_groups[0]["params"]
        with sdpa_kernel(SDPBackend.MATH):
            expected = torch.autograd.grad(loss_of(gain, bias), [gain, bias])
        for p, g in zip((gain, bias), expected, strict=True):
            torch.testing.assert_close(p.grad, g)


def test_the_blocks_of_scale_and_shift() -> None:
    (a, _), (_, d) = hessian()
    found = averages(step("exact", **AFFINE, negative_curvature="average"))
    for average, expected in zip(found, (a, d), strict=False):
        torch.testing.assert_close(average, expected.diagonal(), rtol=1e-9, atol=1e-14)
