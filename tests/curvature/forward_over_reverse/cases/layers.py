"""Convolutions, norms, attention: what layers of a network are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.transform.filters import Filters, compose
from tests.products import Operation

__all__ = ["LAYERS"]

IMAGE = (2, 4, 5, 6)
BIAS = torch.linspace(-1.75, 1.75, 15, dtype=torch.float64).view(5, 3)


def _conv(name: str, **how: Any) -> Callable[..., Tensor]:
    return lambda x, w, b: getattr(F, name)(x, w, b, **how)


def _conv_channels_last(name: str, **how: Any) -> Callable[..., Tensor]:
    """Images ``(N, H, W, C)`` to such images, so that tangents have their channels last as well."""
    call = _conv(name, **how)
    return lambda x, w, b: call(x.permute(0, 3, 1, 2), w, b).permute(0, 2, 3, 1)


def _batch_norm(x: Tensor, w: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, None, None, w, b, training=True)


def _running(like: Tensor) -> tuple[Tensor, Tensor]:
    """A mean and a variance, as exact as an affine: whole numbers of quarters."""
    return torch.linspace(-1, 1.25, 4).to(like.dtype), torch.linspace(0.5, 2, 4).to(like.dtype)


def _frozen_norm(x: Tensor, w: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, *_running(x if w is None else w), w, b, training=False)


def _functional_norm(training: bool) -> Callable[..., Tensor]:
    call: Any = torch.ops.aten._native_batch_norm_legit
    return lambda x, w, b: call(x, w, b, *_running(w), training, 0.1, 1e-5)[0]


def _norm_without_statistics(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    call: Any = torch.ops.aten._native_batch_norm_legit.no_stats
    out: Tensor = call(x, w, b, True, 0.1, 1e-5)[0]
    return out


def _norm_for_inference(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    call: Any = torch.ops.aten._native_batch_norm_legit_no_training
    out: Tensor = call(x, w, b, *_running(w), 0.1, 1e-5)[0]
    return out


def _attention(**how: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **how)


def _biased(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = BIAS.to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


CONVOLUTIONS: dict[str, Operation] = {
    "conv1d": (_conv("conv1d", stride=2), [(2, 3, 7), (4, 3, 3), (4,)]),
    "conv2d": (_conv("conv2d", padding=1, stride=2), [IMAGE, (3, 4, 3, 3), (3,)]),
    "conv2d of one image": (_conv("conv2d", padding=1), [IMAGE[1:], (3, 4, 3, 3), (3,)]),
    "conv2d of no image": (_conv("conv2d", padding=1), [(0, 4, 5, 6), (3, 4, 3, 3), (3,)]),
    "conv2d, same": (_conv("conv2d", padding="same"), [IMAGE, (3, 4, 2, 3), (3,)]),
    "conv2d pointwise": (_conv("conv2d"), [IMAGE, (3, 4, 1, 1), (3,)]),
    "conv2d pointwise, channels last": (_conv_channels_last("conv2d"), [(2, 5, 6, 4), (3, 4, 1, 1), (3,)]),
    "conv2d pointwise, channels last, grouped": (
        _conv_channels_last("conv2d", groups=2),
        [(2, 5, 6, 4), (6, 2, 1, 1), (6,)],
    ),
    "conv2d pointwise of one pixel": (_conv("conv2d"), [(2, 4, 1, 1), (3, 4, 1, 1), (3,)]),
    "conv2d pointwise of no image": (_conv("conv2d"), [(0, 4, 1, 1), (3, 4, 1, 1), (3,)]),
    "conv1d pointwise of one pixel": (_conv("conv1d"), [(2, 4, 1), (3, 4, 1), (3,)]),
    "transposed pointwise of one pixel": (_conv("conv_transpose2d"), [(2, 4, 1, 1), (4, 3, 1, 1), (3,)]),
    "conv2d pointwise, strided": (_conv("conv2d", stride=(2, 3)), [IMAGE, (3, 4, 1, 1), (3,)]),
    "conv2d pointwise, strided, grouped": (_conv("conv2d", stride=2, groups=2), [IMAGE, (6, 2, 1, 1), (6,)]),
    "conv2d pointwise, strided, padded": (_conv("conv2d", stride=2, padding=1), [IMAGE, (3, 4, 1, 1), (3,)]),
    "conv1d pointwise, strided": (_conv("conv1d", stride=2), [(2, 3, 6), (4, 3, 1), (4,)]),
    "conv2d dilated": (_conv("conv2d", dilation=2, padding=2), [IMAGE, (3, 4, 2, 3), (3,)]),
    "conv2d grouped": (_conv("conv2d", groups=2), [IMAGE, (6, 2, 3, 3), (6,)]),
    "conv2d depthwise": (_conv("conv2d", groups=4, padding=1), [IMAGE, (4, 1, 3, 3), (4,)]),
    "conv3d": (_conv("conv3d"), [(1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (2,)]),
    "transposed": (_conv("conv_transpose2d", stride=2, output_padding=1), [IMAGE, (4, 3, 2, 2), (3,)]),
    "transposed grouped": (_conv("conv_transpose2d", groups=2), [IMAGE, (4, 3, 2, 2), (6,)]),
}
NORMS: dict[str, Operation] = {
    "batch norm": (_batch_norm, [IMAGE, (4,), (4,)]),
    "batch norm of vectors": (_batch_norm, [(6, 4), (4,), (4,)]),
    "batch norm without affine": (_batch_norm, [IMAGE]),
    "batch norm without its bias": (lambda x, w: _batch_norm(x, w), [IMAGE, (4,)]),
    "frozen batch norm": (_frozen_norm, [IMAGE, (4,), (4,)]),
    "frozen batch norm without affine": (_frozen_norm, [IMAGE]),
    "functional batch norm": (_functional_norm(training=True), [IMAGE, (4,), (4,)]),
    "functional batch norm, frozen": (_functional_norm(training=False), [IMAGE, (4,), (4,)]),
    "functional batch norm without statistics": (_norm_without_statistics, [IMAGE, (4,), (4,)]),
    "batch norm for inference": (_norm_for_inference, [IMAGE, (4,), (4,)]),
    "weight of direction and gain": (lambda v, g: compose(v, g, Filters()), [(4, 3, 2), (4,)]),
    "transposed weight of direction and gain": (
        lambda v, g: compose(v, g, Filters(transposed=True, groups=2)),
        [(4, 3, 2), (6,)],
    ),
    "torch's weight norm": (lambda v, g: torch._weight_norm(v, g, 0), [(4, 3, 2), (4, 1, 1)]),
    "torch's weight norm of the last": (lambda v, g: torch._weight_norm(v, g, 2), [(4, 3, 2), (1, 1, 2)]),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [IMAGE, (4,), (4,)]),
    "group norm of vectors": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 8), (8,), (8,)]),
    "group norm without affine": (lambda x: F.group_norm(x, 2), [IMAGE]),
    "group norm of nothing": (lambda x, w, b: F.group_norm(x, 2, w, b), [(0, 4, 5), (4,), (4,)]),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [IMAGE, (4,), (4,)]),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (5, 6), w, b), [IMAGE, (5, 6), (5, 6)]),
    "layer norm without its bias": (lambda x, w: F.layer_norm(x, (6,), w), [IMAGE, (6,)]),
    "layer norm without affine": (lambda x: F.layer_norm(x, (6,)), [IMAGE]),
    "layer norm far from zero": (lambda x: F.layer_norm(x + 30, (6,)), [IMAGE]),
    "layer norm of nothing": (lambda x, w: F.layer_norm(x, (6,), w), [(0, 6), (6,)]),
    "RMS norm": (lambda x, w: F.rms_norm(x, (6,), w), [IMAGE, (6,)]),
    "RMS norm without weight": (lambda x: F.rms_norm(x, (5, 6)), [IMAGE]),
    "fused RMS norm": (
        lambda x, w: torch.ops.aten._fused_rms_norm(x, (6,), w, 1e-6)[0],
        [IMAGE, (6,)],
    ),
}
QUERIES, KEYS = (2, 2, 5, 4), (2, 2, 3, 4)
ATTENTION: dict[str, Operation] = {
    "attention": (_attention(), [(2, 2, 4, 4)] * 3),
    "attention to fewer": (_attention(scale=0.7), [QUERIES, KEYS, KEYS]),
    "attention to many": (_attention(), [(1, 2, 3, 2), (1, 2, 20, 2), (1, 2, 20, 2)]),
    "attention to wider values": (_attention(), [QUERIES, KEYS, (2, 2, 3, 5)]),
    "attention with a bias": (_biased, [QUERIES, KEYS, KEYS]),
    "masked attention": (_attention(attn_mask=BIAS > -0.1), [(1, 2, 5, 4), (1, 2, 3, 4), (1, 2, 3, 4)]),
    "causal attention": (_attention(is_causal=True), [(2, 2, 4, 4)] * 3),
    "causal attention to fewer": (_attention(is_causal=True), [QUERIES, KEYS, KEYS]),
    "attention of groups": (_attention(enable_gqa=True), [(2, 4, 5, 4), KEYS, KEYS]),
}
LAYERS = CONVOLUTIONS | NORMS | ATTENTION
