"""Triton's kernels for norms, run by its interpreter on a CPU, against torch's double backward in double precision."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.operations import fused_batch_norm, fused_layer_norm
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import Rows
from tests.products import LENGTH, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread")

NORMS: dict[str, Any] = {
    "last": (lambda x, w, b: F.layer_norm(x, (6,), w, b), [(4, 3, 6), (6,), (6,)]),
    "transposed": (
        lambda x, w, b: F.layer_norm(x.transpose(0, 1), (6,), w, b),
        [(4, 3, 6), (6,), (6,)],
    ),
    "two dimensions": (lambda x, w, b: F.layer_norm(x, (3, 6), w, b), [(4, 3, 6), (3, 6), (3, 6)]),
    "channels last": (
        lambda x, w, b: F.layer_norm(x.permute(0, 2, 3, 1), (5,), w, b),
        [(2, 5, 3, 3), (5,), (5,)],
    ),
    "without weight": (lambda x: F.layer_norm(x, (6,)), [(4, 6)]),
    "weight with gaps": (lambda x, w: F.layer_norm(x, (6,), w[::2]), [(4, 6), (12,)]),
    "one number as weight": (lambda x, w: F.layer_norm(x, (6,), w.expand(6)), [(4, 6), (1,)]),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_layer_norm(launched: list[str], name: str, before: bool) -> None:
    norm, shapes = NORMS[name]
    # With another norm before it, the due parameter is not this one's own.
    active = (True, *(False for _ in shapes[1:])) if before else (True,) * len(shapes)
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    expected = product_by_torch(p.clone().requires_grad_(), v, (norm, shapes), active)

    def in_single(*inputs: Tensor) -> Tensor:
        return norm(*(t.float() for t in inputs)).double()  # type: ignore[no-any-return]

    q = p.clone().requires_grad_()
    found = backward_with_product(loss_of(q, (in_single, shapes), active), q, v)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    fused_at_all = before or len(shapes) == 1
    assert launched == (["layer_norm_forward", "layer_norm_backward"] if fused_at_all else [])


def _batch_norm(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    return F.batch_norm(x, None, None, w, b, training=True)


BATCH_NORMS: dict[str, Any] = {
    "images": (_batch_norm, [(4, 3, 5, 6), (3,), (3,)]),
    "channels last": (
        lambda x, w, b: _batch_norm(x.contiguous(memory_format=torch.channels_last), w, b),
        [(4, 3, 5, 6), (3,), (3,)],
    ),
    "vectors": (_batch_norm, [(8, 19), (19,), (19,)]),
    "one channel": (_batch_norm, [(4, 1, 5), (1,), (1,)]),
    "without weight": (lambda x: _batch_norm(x, None, None), [(4, 20, 2, 3)]),
    "weight with gaps": (lambda x, w: _batch_norm(x, w[::2], None), [(4, 3, 5, 6), (6,)]),
    "one number as weight": (lambda x, w: _batch_norm(x, w.expand(3), None), [(4, 3, 5, 6), (1,)]),
}


@pytest.mark.parametrize("tile", [1024, 32])
@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_norm(launched: list[str], monkeypatch: pytest.MonkeyPatch, name: str, tile: int) -> None:
    """With small tiles the sums of a channel are made in parts."""
    monkeypatch.setattr(fused_batch_norm, "_TILE_OF_SUMS", tile)
    norm, shapes = BATCH_NORMS[name]
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    affine = [1 + torch.arange(math.prod(s), dtype=torch.float64) / 7 for s in shapes[1:]]

    def two(x: Tensor, dtype: torch.dtype) -> Tensor:
        """Two norms, so that the second one has a ġ and the first one has none that is new."""
        given = [t.to(dtype).requires_grad_() for t in affine]
        return norm(norm(x.to(dtype), *given).tanh(), *given).double()  # type: ignore[no-any-return]

    expected = product_by_torch(
        p.clone().requires_grad_(), v, (lambda x: two(x, torch.float64), shapes[:1]), (True,)
    )
    q = p.clone().requires_grad_()
    found = backward_with_product(loss_of(q, (lambda x: two(x, torch.float32), shapes[:1]), (True,)), q, v)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert launched == ["batch_norm_sums", "batch_norm_backward"] * 2


def test_rms_norm(launched: list[str]) -> None:
    # A CPU has no fused RMS norm, so this node has only what one saves.
    torch.manual_seed(0)
    x, g, dg, dx = torch.randn(4, 4, 3, 6, dtype=torch.float64).unbind()
    r, weight = x.square().mean(-1, keepdim=True).rsqrt(), torch.linspace(0.5, 2, 6, dtype=torch.float64)
    rows = Rows.of(x, (12, 6), None, r)
    node: Any = SimpleNamespace(
        _saved_input=x.float(),
        _saved_normalized_shape=(6,),
        _saved_weight=weight.float(),
        _saved_result1=r.float(),
    )
    expected = (
        rows.project(dx).view(x.shape) * weight,
        rows.vjp_tangent(g * weight, dg * weight, dx).view(x.shape),
    )
    found = (
        fused_layer_norm.jvp(node, dx.float()),
        fused_layer_norm.vjp_tangent(node, g.float(), dg.float(), dx.float()),
    )
    assert launched == ["layer_norm_forward", "layer_norm_backward"]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-4)
