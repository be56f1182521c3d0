"""Products on a GPU, whose graph has nodes of its own, against float64 on the CPU by torch's double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgdph_fx.curvature import block_product, differentiable_gradient
from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.transform import fused
from tests.gpu.networks import WIDTHS, batches, loss_of, prepared
from tests.kernels import note_launches
from tests.products import LENGTH, product_by_torch
from tests.products import loss_of as loss_of_operation

pytestmark = pytest.mark.gpu

(BATCH,) = batches(1)
HEADS: list[tuple[int, ...]] = [(2, 2, 16, 8)] * 3
# The node that each kernel leaves, and a precision that it takes.
KERNELS = {
    SDPBackend.FLASH_ATTENTION: ("ScaledDotProductFlashAttentionBackward0", torch.float16, 0.02),
    SDPBackend.CUDNN_ATTENTION: ("ScaledDotProductCudnnAttentionBackward0", torch.float16, 0.02),
    SDPBackend.EFFICIENT_ATTENTION: ("ScaledDotProductEfficientAttentionBackward0", torch.float32, 1e-4),
}


def expected_product(model: Any, name: str, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        gradient = differentiable_gradient(loss_of(model, BATCH), model.get_parameter(name))
    assert gradient is not None
    return block_product(gradient, model.get_parameter(name))(v)


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_products_are_those_of_the_cpu(
    device: torch.device, name: str, dtype: torch.dtype, tolerance: float
) -> None:
    model, groups = prepared(name)
    names = {p: n for n, p in model.named_parameters()}
    due = [names[p] for group in groups if group["order"] == 2 for p in group["params"]][::7]
    vs = [torch.randn_like(model.get_parameter(n)) for n in due]
    expected = [expected_product(model, n, v) for n, v in zip(due, vs, strict=True)]
    model.to(device, dtype)
    for n, v, product in zip(due, vs, expected, strict=True):
        model.zero_grad()
        found = backward_with_product(loss_of(model, BATCH), model.get_parameter(n), v.to(device, dtype))
        assert found is not None
        atol = tolerance * product.abs().max().item()
        torch.testing.assert_close(
            found.cpu().double(), product, rtol=0, atol=atol, msg=lambda m, n=n: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", WIDTHS)
def test_nothing_falls_back(device: torch.device, name: str) -> None:
    model = prepared(name)[0].to(device, torch.float32)
    assert coverage(loss_of(model, BATCH)).fallbacks == {}


def attention(backend: SDPBackend, dtype: torch.dtype, **how: Any) -> Callable[..., Tensor]:
    def attend(*qkv: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*(t.to(dtype) for t in qkv), **how).double()

    return attend


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", KERNELS, ids=lambda backend: backend.name)
def test_each_fused_attention_has_its_product(
    device: torch.device, backend: SDPBackend, causal: bool
) -> None:
    node, dtype, tolerance = KERNELS[backend]
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    active = (True,) * 3
    plain = attention(SDPBackend.MATH, torch.float64, is_causal=causal), HEADS
    there = attention(backend, dtype, is_causal=causal), HEADS
    expected = product_by_torch(p.clone().requires_grad_(), v, plain, active)
    q = p.to(device).requires_grad_()
    loss = loss_of_operation(q, there, active)
    assert node in coverage(loss, q).own_rule
    found = backward_with_product(loss, q, v.to(device))
    assert found is not None
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 197, 64), (1, 2, 70, 128), (2, 2, 300, 40)])
def test_attentions_tangents_are_made_by_kernels(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    causal: bool,
    dtype: torch.dtype,
) -> None:
    names = note_launches(monkeypatch)
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    p /= 4  # scores of a moderate size
    plain = attention(SDPBackend.MATH, torch.float64, is_causal=causal), [shape] * 3
    there = attention(SDPBackend.FLASH_ATTENTION, dtype, is_causal=causal), [shape] * 3
    expected = product_by_torch(p.clone().requires_grad_(), v, plain, (True,) * 3)
    q = p.to(device).requires_grad_()
    found = backward_with_product(loss_of_operation(q, there, (True,) * 3), q, v.to(device))
    assert found is not None
    assert fused.failure() == ""
    assert [name for name in names if name.startswith("attention")] == [
        "attention_tangent",
        "attention_tangent_by_queries",
        "attention_tangent_by_keys",
    ]
    assert (found.cpu() - expected).norm() < (0.02 if dtype is torch.float16 else 0.1) * expected.norm()


def test_branches_on_two_devices_are_both_taken(device: torch.device) -> None:
    """The threads of CPU and GPU go through them at the same time."""
    p, v = torch.linspace(-1, 1, 4096, dtype=torch.float64), torch.ones(4096, dtype=torch.float64)

    def loss_of_branches(q: Tensor, place: torch.device | str) -> Tensor:
        here, there = q, q.to(place)
        for _ in range(20):
            here, there = (here + q).sin(), (there * 1.1).tanh()
        return (here.to(place) * there).sum()

    q = p.clone().requires_grad_()
    gradient = differentiable_gradient(loss_of_branches(q, "cpu"), q)
    assert gradient is not None
    expected = block_product(gradient, q)(v)
    for _ in range(20):
        q = p.clone().requires_grad_()
        torch.testing.assert_close(backward_with_product(loss_of_branches(q, device), q, v), expected)


@pytest.mark.parametrize("backend", KERNELS, ids=lambda backend: backend.name)
def test_dropout_inside_a_kernel_is_refused(device: torch.device, backend: SDPBackend) -> None:
    p = torch.ones(LENGTH, dtype=torch.float64, device=device, requires_grad=True)
    operation = attention(backend, KERNELS[backend][1], dropout_p=0.25), HEADS
    with pytest.raises(NoCurvatureError, match=r"fused attention with dropout 0\.25"):
        backward_with_product(loss_of_operation(p, operation, (True,) * 3), p, torch.ones_like(p))
    assert p.grad is None
