"""Triton's kernels, run by its interpreter on a CPU, against torch's calls that they stand in for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.operations import attention_products
from sgdph_fx.curvature.forward_over_reverse.operations.attention_scores import Scores
from sgdph_fx.transform import fused
from tests.curvature.forward_over_reverse.test_accelerators import (
    GROUPS,
    STAND_INS,  # noqa: F401 - of the fixture `stand_ins`
    attention_by,
    plain_attention,
)
from tests.products import LENGTH, activities, loss_of, product_by_torch

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # A tile's rows beyond the last one are -inf everywhere, and are not stored.
    pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning"),
]


def scores_of(causal: bool, has_ds: bool, dtype: torch.dtype) -> tuple[Scores, list[Tensor]]:
    """Scores of 2 × 2 heads, 7 queries and 5 keys, padded to 8 each, and two more such matrices."""
    torch.manual_seed(0)
    s, ds, gv, dgv = (3 * torch.randn(4, 8, 8, dtype=torch.float64).to(dtype) for _ in range(4))
    return Scores(s, ds if has_ds else None, None, 2, 7, 5, causal), [gv, dgv]


def close(found: Tensor | None, expected: Tensor | None, dtype: torch.dtype) -> None:
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    assert found.dtype is dtype
    # The interpreter rounds to halves towards zero.
    accuracy = 1e-5 if dtype is torch.float32 else 0.02
    # Rows that are no query are padding, where nothing is read.
    torch.testing.assert_close(found[:, :7].double(), expected[:, :7], rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("causal", "has_ds", "want_p"), [*itertools.product((False, True), repeat=3)])
def test_rows_of_scores_forward(
    launched: list[str], dtype: torch.dtype, causal: bool, has_ds: bool, want_p: bool
) -> None:
    found = scores_of(causal, has_ds, torch.float32)[0].forward(dtype, want_p=want_p)
    assert launched == ["attention_forward"]
    expected = scores_of(causal, has_ds, torch.float64)[0].forward(torch.float64, want_p=want_p)
    for a, b in zip(found, expected, strict=True):
        close(a, b, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("causal", "has_ds", "has_dgv", "want_p"), [*itertools.product((False, True), repeat=4)]
)
def test_rows_of_scores_backward(
    launched: list[str], dtype: torch.dtype, causal: bool, has_ds: bool, has_dgv: bool, want_p: bool
) -> None:
    def run(precision: torch.dtype, out: torch.dtype) -> Any:
        scores, (gv, dgv) = scores_of(causal, has_ds, precision)
        p = scores_of(causal, has_ds, torch.float64)[0].probabilities()
        gv = gv.masked_fill(torch.arange(8) >= 5, 0)
        # Σ G ∘ O is Σ P ∘ G Vᵀ.
        dots = (p * gv).sum(-1, keepdim=True).to(precision)
        return scores.backward(gv, dgv if has_dgv else None, lambda: dots, out, want_p=want_p)

    found = run(torch.float32, dtype)
    assert launched == ["attention_backward"]
    expected = run(torch.float64, torch.float64)
    for name in ("by_s", "dby_s", "p", "dp"):
        close(getattr(found, name), getattr(expected, name), dtype)


HEADS = [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]
HOW: dict[str, Any] = {
    "plain": (attention_by("flash"), plain_attention(), HEADS),
    "causal": (attention_by("efficient", None, True, 0.0, True), plain_attention(is_causal=True), HEADS),
    "groups": (attention_by("flash"), plain_attention(enable_gqa=True), GROUPS),
    "masked": (attention_by("efficient", None, True), plain_attention(), [*HEADS, (2, 2, 5, 3)]),
}


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(
    ("name", "active"),
    [(name, active) for name, (there, _, shapes) in HOW.items() for active in activities((there, shapes))],
)
def test_attention_of_odd_lengths(
    launched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    active: tuple[bool, ...],
    multiple: int,
) -> None:
    monkeypatch.setattr(attention_products, "_length_multiple", lambda t: multiple)
    there, here, shapes = HOW[name]
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    expected = product_by_torch(p.clone().requires_grad_(), v, (here, shapes), active)
    for precision in (torch.float64, torch.float32):
        q = p.clone().requires_grad_()

        def in_precision(*inputs: Tensor, dtype: torch.dtype = precision) -> Tensor:
            return there(*(t.to(dtype) for t in inputs)).double()

        found = backward_with_product(loss_of(q, (in_precision, shapes), active), q, v)
        accuracy = 1e-10 if precision is torch.float64 else 1e-4
        torch.testing.assert_close(
            found, expected, rtol=accuracy, atol=accuracy * expected.abs().max().item()
        )
    assert ("attention_backward" in launched) == (name != "masked")


@pytest.mark.parametrize("layout", ["plain", "transposed", "sliced"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(launched: list[str], approximate: str, layout: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(30, 40, dtype=torch.float64)

    def product(dtype: torch.dtype) -> Tensor | None:
        p = torch.ones(40, dtype=dtype, requires_grad=True)
        x = (images.to(dtype) * p).tanh() * p
        x = {"plain": x, "transposed": x.t(), "sliced": x[:, ::2]}[layout]
        y = F.gelu(x, approximate=approximate)
        return backward_with_product(y.square().sum(), p, torch.ones_like(p))

    expected = product(torch.float64)
    assert expected is not None
    assert launched == []
    found = product(torch.float32)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    assert launched == (["gelu_backward"] if approximate == "none" and layout != "sliced" else [])


@pytest.mark.parametrize("value", [20.0, -20.0, 1e15, -1e15, 1e30, -1e30])
def test_gelu_is_straight_far_from_zero(launched: list[str], value: float) -> None:
    """y = x or 0 there, so that of Σ y² with x = p the Hessian is 2 or 0, though x² overflows."""
    p = torch.full((3,), value, requires_grad=True)
    found = backward_with_product((F.gelu(p) * 1e-15).square().sum(), p, torch.ones(3))
    torch.testing.assert_close(found, torch.full((3,), 2e-30 if value > 0 else 0.0))
    assert launched == ["gelu_backward"]


def test_where_a_kernel_cannot_be_compiled_torch_does_it(
    launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(fused, "_launch", fails)
    p, _ = scores_of(False, True, torch.float32)[0].forward(torch.float32, want_p=True)
    expected = torch.softmax(scores_of(False, False, torch.float32)[0].s[..., :5], -1)
    assert p is not None
    torch.testing.assert_close(p[..., :5], expected)
    assert fused.failure() == "attention_forward: RuntimeError: no C compiler"
    monkeypatch.setattr(fused, "_failures", {})
