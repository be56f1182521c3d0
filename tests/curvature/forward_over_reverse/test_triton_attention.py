"""Attention's kernels, run by Triton's interpreter on a CPU, against torch's own double backward in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.operations import fused_attention
from sgdph_fx.transform import fused
from tests.curvature.forward_over_reverse.test_accelerators import (
    GROUPS,
    STAND_INS,  # noqa: F401 - of the fixture `stand_ins`
    attention_by,
    plain_attention,
)
from tests.products import LENGTH, activities, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread", "stand_ins")

KERNELS = ["attention_tangent", "attention_tangent_by_queries", "attention_tangent_by_keys"]


def attention(queries: int, keys: int, width: int, *, causal: bool = False, turned: bool = False) -> Any:
    """Torch's fused attention, the same as torch can differentiate it twice, and shapes of two times three heads."""
    order = (0, 2, 1, 3) if turned else (0, 1, 2, 3)
    lengths = (queries, keys, keys)
    shapes = [(2, length, 3, width) if turned else (2, 3, length, width) for length in lengths]

    def in_order(attend: Any) -> Any:
        return lambda q, k, v: attend(q.permute(order), k.permute(order), v.permute(order))

    there, here = attention_by("flash", is_causal=causal), plain_attention(is_causal=causal)
    return in_order(there), in_order(here), shapes


CASES = {
    "one tile": attention(5, 7, 4),
    "several tiles": attention(70, 45, 20),
    "heads inside": attention(33, 70, 4, turned=True),
    "a wide head": attention(40, 33, 70),
    "causal": attention(70, 70, 4, causal=True),
    "causal, more queries than keys": attention(70, 40, 4, causal=True),
    "causal, more keys than queries": attention(40, 70, 4, causal=True),
}


def product(case: Any, active: tuple[bool, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Hv by the kernels, and by torch in float64."""
    there, here, shapes = case
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    expected = product_by_torch(p.clone().requires_grad_(), v, (here, shapes), active)

    def in_dtype(*inputs: Tensor) -> Tensor:
        out: Tensor = there(*(t.to(dtype) for t in inputs))
        return out.double()

    p.requires_grad_()
    found = backward_with_product(loss_of(p, (in_dtype, shapes), active), p, v)
    assert found is not None
    return found, expected


@pytest.mark.parametrize(
    ("name", "active"), [(name, active) for name, case in CASES.items() for active in activities(case[::2])]
)
def test_the_formulas_are_attentions(
    launched: list[str], monkeypatch: pytest.MonkeyPatch, name: str, active: tuple[bool, ...]
) -> None:
    # On a GPU they multiply halves. The interpreter multiplies any dtype, and single precision shows a wrong formula.
    monkeypatch.setattr(fused_attention, "_HALVES", (torch.float32,))
    found, expected = product(CASES[name], active, torch.float32)
    assert launched == KERNELS
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("causal", [False, True])
def test_halves(launched: list[str], causal: bool) -> None:
    # The interpreter has no products of bfloat16; pytest -m gpu tries these.
    found, expected = product(attention(40, 40, 8, causal=causal), (True, True, True), torch.float16)
    assert launched == KERNELS
    assert (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("moved", ["keys", "values"])
def test_what_is_constant_along_a_row_cancels_before_it_is_rounded(launched: list[str], moved: str) -> None:
    """A tangent common to all keys moves no probability, and one common to all values moves no gradient by them."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 64, 16, dtype=torch.float16).unbind()
    common = torch.full_like(k, 100)
    tangents = (None, common, None) if moved == "keys" else (None, None, common)
    applied = fused_attention.Applied.of((q, k, v), tangents, False, 0.25)
    assert applied is not None
    out, rows = applied.output_tangent(v) or pytest.fail("no kernel ran")
    by_q, by_k, by_v = applied.gradient_tangents(q, None, rows) or pytest.fail("no kernel ran")
    if moved == "keys":
        # P stays, and so does G Vᵀ; only c (P ∘ h) K̇ is left of the tangent by Q, whose rows sum to 0.
        assert max(t.abs().max().item() for t in (out, by_q, by_k, by_v)) < 1
    else:
        torch.testing.assert_close(out, common)
        assert max(t.abs().max().item() for t in (by_q, by_k, by_v)) < 1e-3


@pytest.mark.parametrize(
    ("kernel", "shapes"),
    [
        (attention_by("flash"), GROUPS),
        (attention_by("efficient", None, True), [*[(2, 2, 5, 4)] * 3, (2, 2, 5, 5)]),
        (attention_by("flash"), [(1, 1, 3, 136)] * 3),
        (attention_by("flash"), [(1, 1, 3, 4), (1, 1, 3, 4), (1, 1, 3, 6)]),
    ],
    ids=["heads shared", "masked", "too wide", "values of another width"],
)
def test_what_they_do_not_take_goes_by_the_scores(launched: list[str], kernel: Any, shapes: Any) -> None:
    p = torch.randn(LENGTH, dtype=torch.float64, requires_grad=True)

    def in_halves(*inputs: Tensor) -> Tensor:
        out: Tensor = kernel(*(t.half() for t in inputs))
        return out.double()

    active = (True,) * 3 + (False,) * (len(shapes) - 3)
    assert backward_with_product(loss_of(p, (in_halves, shapes), active), p, torch.ones_like(p)) is not None
    assert not set(launched) & set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_where_one_cannot_be_compiled_the_scores_take_over(
    launched: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    launch = fused._launch

    def fails(kernel: str, *rest: Any) -> None:
        if kernel == name:
            raise RuntimeError("out of resources")
        launch(kernel, *rest)

    monkeypatch.setattr(fused, "_launch", fails)
    found, expected = product(attention(9, 9, 8), (True, True, True), torch.float16)
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert fused.failure() == f"{name}: RuntimeError: out of resources"
    monkeypatch.setattr(fused, "_failures", {})
