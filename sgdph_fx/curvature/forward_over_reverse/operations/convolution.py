"""Convolutions in one to three dimensions, also transposed and grouped: bilinear in input and weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    saved_ints,
    total,
)

__all__ = ["RULES"]


def _jvp(fwd: ForwardNode) -> Tensors:
    node = fwd.node
    dx, dw, db = fwd.tangents
    return [
        total(
            None if dx is None else _convolve(node, dx, saved(node, "weight")),
            None if dw is None else _convolve(node, saved(node, "input"), dw),
            None if db is None else db.view(-1, *[1] * len(saved_ints(node, "stride"))),
        )
    ]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    (g,), (dg,) = bwd.g, bwd.dg
    dx, dw, _ = bwd.tangents
    by_x, by_w, by_b = bwd.active
    node = bwd.node
    x, w = saved(node, "input"), saved(node, "weight")
    found: list[Tensor | None] = [None, None, None]
    if dg is not None:
        found = _transpose(node, dg, x, w, [by_x, by_w, by_b])
    if g is not None and by_x and dw is not None:
        found[0] = total(found[0], _by_input(node, g, x, dw))
    if g is not None and by_w and dx is not None:
        found[1] = total(found[1], _transpose(node, g, dx, w, [False, True, False])[1])
    return found


def _geometry(node: Node) -> tuple[Any, ...]:
    return (
        saved_ints(node, "stride"),
        saved_ints(node, "padding"),
        saved_ints(node, "dilation"),
        saved(node, "transposed"),
        saved_ints(node, "output_padding"),
        saved(node, "groups"),
    )


def _convolve(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    if _is_product(node, x, weight):
        return _product(x, weight.flatten(1).t())
    return torch.convolution(x, weight, None, *_geometry(node))


def _transpose(node: Node, g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> list[Tensor | None]:
    """Compute only those gradients that are wanted: by input, weight and bias."""
    if wanted == [True, False, False]:
        return [_by_input(node, g, x, weight), None, None]
    return _backward(node, g, x, weight, wanted)


def _by_input(node: Node, g: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    if _is_product(node, g, weight):
        return _product(g, weight.flatten(1))
    if not _picks(node, weight):
        return _backward(node, g, x, weight, [True, False, False])[0]
    # Only on the pixels that it reads: torch's kernel visits all of them, which takes up to twice as long.
    ones = [1] * (x.dim() - 2)
    zeros = [0] * len(ones)
    out = torch.zeros_like(x)
    picked = [slice(None), slice(None), *(slice(None, None, step) for step in saved_ints(node, "stride"))]
    out[tuple(picked)] = torch.convolution(
        g, weight, None, ones, zeros, ones, True, zeros, saved(node, "groups")
    )
    return out


def _is_product(node: Node, t: Tensor, weight: Tensor) -> bool:
    """Whether it is one product of matrices over tensors that lie as the product needs them.

    A CPU's convolution lays the weight anew at each call, which takes longer than the product where pixels are few. It
    is left alone in halves, for which not every CPU has a product.
    """
    if not t.is_cpu or t.dtype.itemsize < 4 or not _is_pointwise(node, weight):
        return False
    return saved(node, "groups") == 1 and max(saved_ints(node, "stride")) == 1 and _channels_lie_last(t)


def _channels_lie_last(t: Tensor) -> bool:
    return t.movedim(1, -1).is_contiguous()


def _product(t: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of every pixel, ``(N, C, ...)``, with a matrix ``(C, D)``."""
    pixels = t.movedim(1, -1)
    return torch.mm(pixels.flatten(0, -2), matrix).view(*pixels.shape[:-1], matrix.shape[1]).movedim(-1, 1)


def _picks(node: Node, weight: Tensor) -> bool:
    """Whether it is a pointwise convolution with a stride."""
    return _is_pointwise(node, weight) and max(saved_ints(node, "stride")) > 1


def _is_pointwise(node: Node, weight: Tensor) -> bool:
    unpadded = all(size == 1 for size in weight.shape[2:]) and not any(saved_ints(node, "padding"))
    return unpadded and not saved(node, "transposed")


def _backward(node: Node, g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> list[Tensor | None]:
    sizes = saved(node, "bias_sym_sizes_opt") or [g.shape[1]]
    backward: Any = torch.ops.aten.convolution_backward.default
    return list(backward(g, x, weight, sizes, *_geometry(node), wanted))


RULES: Mapping[str, Rule] = {"ConvolutionBackward0": Rule(_jvp, _vjp_tangent, BILINEAR, owns_output=True)}
"""Node ↦ rule."""
