"""Attention whose scores are many is taken a part of its batches at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.curvature.forward_over_reverse.operations import attention_by_scores
from tests.products import LENGTH, activities, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread")

N = 5
HEADS = [(N, 2, 4, 3), (N, 2, 6, 3), (N, 2, 6, 3)]
GROUPS = [(N, 4, 4, 3), (N, 2, 6, 3), (N, 2, 6, 3)]
BIAS = torch.linspace(-2, 2, N * 48, dtype=torch.float64).view(N, 2, 4, 6)


def attend(**how: Any) -> Any:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **how)


HOW: dict[str, Any] = {
    "plain": (attend(), HEADS),
    "causal": (attend(is_causal=True), [(N, 2, 4, 3)] * 3),
    "groups of heads": (attend(enable_gqa=True), GROUPS),
    "a mask for each batch": (attend(attn_mask=BIAS), HEADS),
    "a mask for all batches": (attend(attn_mask=BIAS[:1]), HEADS),
    "a mask for all heads": (attend(attn_mask=BIAS[0, 0]), HEADS),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize(
    ("name", "active"), [(name, active) for name, how in HOW.items() for active in activities(how)]
)
def test_the_parts_together_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, name: str, active: tuple[bool, ...], batches: int, kept: bool
) -> None:
    how = HOW[name]
    of_one = how[1][0][1] * how[1][0][2] * how[1][1][2] * 8
    monkeypatch.setattr(attention_by_scores, "_bytes_at_once", lambda query: batches * of_one)
    monkeypatch.setattr(attention_by_scores, "_scores_are_kept", lambda node: kept)
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    p = p.clone().requires_grad_()
    expected = product_by_torch(p, v, how, active)
    loss = loss_of(p, how, active)
    assert any("FlashAttention" in name for name in coverage(loss, p).own_rule)
    found = backward_with_product(loss, p, v)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())


class Largest(TorchDispatchMode):
    """The most bytes that one operation's results take."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor):
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return out


def test_no_scores_of_all_batches_are_in_memory() -> None:
    n, heads, length, width = 8, 4, 256, 4
    torch.manual_seed(0)
    p = torch.ones(width, requires_grad=True)
    q, k, v = (torch.randn(n, heads, length, width) * p for _ in range(3))
    loss = F.scaled_dot_product_attention(q, k, v).square().sum()
    with Largest() as largest:
        assert backward_with_product(loss, p, torch.ones_like(p)) is not None
    scores = n * heads * length * length * 4
    assert 0 < largest.bytes <= scores // 2
