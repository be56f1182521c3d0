"""Operations that torch uses on a GPU: the graph has their nodes, and stand-ins for the CPU compute them.

The stand-ins return what torch saves for the backward pass of these operations
(``tools/autograd/derivatives.yaml`` of PyTorch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.errors import NoCurvatureError
from tests.products import LENGTH, activities, loss_of, product_by_torch

IMAGE = (2, 4, 5, 6)
HEADS, GROUPS = [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)], [(2, 4, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]
EVEN = [(2, 2, 4, 4)] * 3
MASK = (2, 2, 5, 3)
BIAS = torch.linspace(-2, 2, 60, dtype=torch.float64).view(MASK)

pytestmark = pytest.mark.usefixtures("one_thread", "stand_ins")


def batch_norm(
    x: Tensor, w: Tensor, b: Any, mean: Any, var: Any, training: bool, m: float, eps: float
) -> Any:
    return torch.native_batch_norm(x, w, b, mean, var, training, m, eps)


def batch_norm_backward(
    x: Tensor, g: Tensor, w: Tensor, mean: Any, var: Any, own_mean: Any, own_r: Any, eps: float
) -> Any:
    backward: Any = torch.ops.aten.native_batch_norm_backward
    return backward(g, x, w, mean, var, own_mean, own_r, True, eps, [True] * 3)


def probabilities(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    scores = q @ k.transpose(-2, -1) * scale + (0 if mask is None else mask)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return torch.softmax(scores, -1)


def scale_of(q: Tensor, given: float | None) -> float:
    return q.shape[-1] ** -0.5 if given is None else given


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    out = probabilities(q, k, mask, causal, scale_of(q, scale)) @ v
    return out, q.new_empty(0)


def attend_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, ...]:
    heads, scale = k.shape[1], scale_of(q, scale)
    wide_k, wide_v = (t.repeat_interleave(q.shape[1] // heads, dim=1) for t in (k, v))
    p = probabilities(q, wide_k, mask, causal, scale)
    by_p = g @ wide_v.transpose(-2, -1)
    by_scores = p * (by_p - (p * by_p).sum(-1, keepdim=True))
    by_k, by_v = scale * by_scores.transpose(-2, -1) @ q, p.transpose(-2, -1) @ g
    by_k, by_v = (t.unflatten(1, (heads, -1)).sum(2) for t in (by_k, by_v))
    return scale * by_scores @ wide_k, by_k, by_v, by_scores


def nothing() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


def flash(
    q: Any, k: Any, v: Any, dropout: float = 0, causal: bool = False, *rest: Any, scale: Any = None
) -> Any:
    return *attend(q, k, v, None, causal, scale), None, None, 5, 3, nothing(), nothing(), nothing()


def flash_backward(g: Any, q: Any, k: Any, v: Any, *rest: Any, scale: Any = None) -> Any:
    return attend_backward(g, q, k, v, None, rest[7], scale)[:3]


def masked(
    q: Any, k: Any, v: Any, mask: Any, lse: bool, dropout: float = 0, causal: bool = False, **how: Any
) -> Any:
    return *attend(q, k, v, mask, causal, how.get("scale")), nothing(), nothing()


def efficient_backward(g: Any, q: Any, k: Any, v: Any, mask: Any, *rest: Any, scale: Any = None) -> Any:
    causal = len(rest) > 6 and rest[6]
    found = attend_backward(g, q, k, v, mask, causal, scale)
    return tuple(t if wanted else None for t, wanted in zip(found, rest[5], strict=True))


def cudnn(*given: Any, **how: Any) -> Any:
    return *masked(*given, **how), 5, 3, nothing(), nothing(), nothing()


def cudnn_backward(g: Any, q: Any, k: Any, v: Any, *rest: Any, scale: Any = None) -> Any:
    return attend_backward(g, q, k, v, rest[4], rest[10], scale)[:3]


STAND_INS: dict[str, Callable[..., Any]] = {
    "cudnn_batch_norm": lambda *given: (*batch_norm(*given), torch.empty(0, dtype=torch.uint8)),
    "cudnn_batch_norm_backward": lambda *given: batch_norm_backward(*given[:-1]),
    "miopen_batch_norm": batch_norm,
    "miopen_batch_norm_backward": batch_norm_backward,
    "_scaled_dot_product_flash_attention": flash,
    "_scaled_dot_product_flash_attention_backward": flash_backward,
    "_scaled_dot_product_efficient_attention": masked,
    "_scaled_dot_product_efficient_attention_backward": efficient_backward,
    "_scaled_dot_product_cudnn_attention": cudnn,
    "_scaled_dot_product_cudnn_attention_backward": cudnn_backward,
}


def norm_by(library: str, training: bool = True) -> Callable[..., Tensor]:
    def norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        call: Any = getattr(torch.ops.aten, f"{library}_batch_norm")
        out: Tensor = call(x, w, b, *running(), training, 0.1, 1e-3)[0]
        return out

    return norm


def running() -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, 4).double(), torch.linspace(0.5, 2, 4).double()


def plain_norm(training: bool = True) -> Callable[..., Tensor]:
    return lambda x, w, b: F.batch_norm(x, *running(), w, b, training, eps=1e-3)


def attention_by(kernel: str, *given: Any, **how: Any) -> Callable[..., Tensor]:
    call: Any = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    return lambda q, k, v, *mask: call(q, k, v, *(mask or given[:1]), *given[1:], **how)[0]


def plain_attention(**how: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **how)


Pair = tuple[Callable[..., Tensor], Callable[..., Tensor], list[tuple[int, ...]]]
"""An operation as a GPU does it, the same as torch can differentiate it twice, and the shapes of the inputs."""

AFFINE: list[tuple[int, ...]] = [IMAGE, (4,), (4,)]
PAIRS: dict[str, Pair] = {
    "cuDNN batch norm": (norm_by("cudnn"), plain_norm(), AFFINE),
    "cuDNN batch norm, frozen": (norm_by("cudnn", training=False), plain_norm(training=False), AFFINE),
    "MIOpen batch norm": (norm_by("miopen"), plain_norm(), AFFINE),
    "MIOpen batch norm, frozen": (norm_by("miopen", training=False), plain_norm(training=False), AFFINE),
    "flash": (attention_by("flash"), plain_attention(), HEADS),
    "flash, scaled, causal": (
        attention_by("flash", is_causal=True, scale=0.7), plain_attention(is_causal=True, scale=0.7), EVEN
    ),
    "flash, scaled by 0": (attention_by("flash", scale=0.0), plain_attention(scale=0.0), HEADS),
    "flash, groups of heads": (attention_by("flash"), plain_attention(enable_gqa=True), GROUPS),
    "efficient": (attention_by("efficient", None, True), plain_attention(), HEADS),
    "efficient, causal": (
        attention_by("efficient", None, True, 0.0, True), plain_attention(is_causal=True), HEADS
    ),
    "efficient, biased": (attention_by("efficient", BIAS, True), plain_attention(attn_mask=BIAS), HEADS),
    "efficient, with a bias that is learned": (
        attention_by("efficient", None, True, scale=0.7), plain_attention(scale=0.7), [*HEADS, MASK]
    ),
    "efficient, with a bias for all heads": (
        attention_by("efficient", None, True), plain_attention(), [*HEADS, (1, 1, 5, 3)]
    ),
    "cuDNN": (attention_by("cudnn", None, True, scale=0.7), plain_attention(scale=0.7), HEADS),
    "cuDNN, biased": (attention_by("cudnn", BIAS, True), plain_attention(attn_mask=BIAS), HEADS),
    "cuDNN, causal": (attention_by("cudnn", None, True, 0.0, True), plain_attention(is_causal=True), EVEN),
}  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "active"),
    [
        pytest.param(pair, active, id=f"{name}-{''.join('v' if a else '.' for a in active)}")
        for name, pair in PAIRS.items()
        for active in activities((pair[0], pair[2]))
    ],
)
def test_the_product_is_that_of_the_same_operation_elsewhere(pair: Pair, active: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    p = p.clone().requires_grad_()
    there, here, shapes = pair
    expected = product_by_torch(p, v, (here, shapes), active)
    (gradient,) = torch.autograd.grad(loss_of(p, (here, shapes), active), p)
    loss = loss_of(p, (there, shapes), active)
    assert not set(coverage(loss, p).fallbacks) - {"MvBackward0"}
    found = backward_with_product(loss, p, v)
    assert found is not None
    torch.testing.assert_close(p.grad, gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize(
    "attend_with_dropout",
    [
        attention_by("flash", dropout_p=0.25),
        attention_by("efficient", None, True, 0.25),
        attention_by("cudnn", None, True, 0.25),
    ],
)
def test_dropout_inside_a_kernel_is_refused_before_any_gradient_is_written(
    attend_with_dropout: Callable[..., Tensor],
) -> None:
    p = torch.ones(LENGTH, dtype=torch.float64, requires_grad=True)
    loss = loss_of(p, (attend_with_dropout, HEADS), (True,) * 3)
    with pytest.raises(NoCurvatureError, match=r"fused attention with dropout 0\.25.*SDPBackend\.MATH"):
        backward_with_product(loss, p, torch.ones(LENGTH, dtype=torch.float64))
    assert p.grad is None
