"""Triton's kernels, run by its interpreter on a CPU, against torch's calls that they stand in for."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, fused
from sgdph_fx.curvature.forward_over_reverse.operations import attention, fused_layer_norm
from sgdph_fx.curvature.forward_over_reverse.operations.attention_scores import Scores
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import Rows
from tests.curvature.forward_over_reverse.test_accelerators import (
    GROUPS,
    STAND_INS,
    attention_by,
    plain_attention,
)
from tests.products import LENGTH, activities, loss_of, product_by_torch

KERNELS = "sgdph_fx.curvature.forward_over_reverse.triton_kernels"
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # A tile's rows beyond the last one are -inf everywhere, and are not stored.
    pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning"),
]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kernels take tensors of a CPU; their names, in the order in which they were launched."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop(KERNELS, None)
    importlib.import_module(KERNELS)
    names: list[str] = []
    launch = fused._launch

    def noted(name: str, *rest: Any) -> None:
        launch(name, *rest)
        names.append(name)

    monkeypatch.setattr(fused, "_launch", noted)
    monkeypatch.setattr(fused, "_failed", False)
    monkeypatch.setattr(fused, "_fits", lambda t: type(t) is Tensor and t.dtype is not torch.float64)
    yield names
    assert not fused._failed
    sys.modules.pop(KERNELS, None)


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


@pytest.fixture
def _stand_ins() -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL", "CPU")
    for name, kernel in STAND_INS.items():
        library.impl(name, kernel)
    yield
    library._destroy()


HEADS = [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]
HOW: dict[str, Any] = {
    "plain": (attention_by("flash"), plain_attention(), HEADS),
    "causal": (attention_by("efficient", None, True, 0.0, True), plain_attention(is_causal=True), HEADS),
    "groups": (attention_by("flash"), plain_attention(enable_gqa=True), GROUPS),
    "masked": (attention_by("efficient", None, True), plain_attention(), [*HEADS, (2, 2, 5, 3)]),
}


@pytest.mark.usefixtures("_stand_ins")
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
    monkeypatch.setattr(attention, "_length_multiple", lambda t: multiple)
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
    assert fused._failed
    monkeypatch.setattr(fused, "_failed", False)
