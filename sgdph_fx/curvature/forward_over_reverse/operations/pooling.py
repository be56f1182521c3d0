"""Pooling: linear, given which entry was the largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.linear import by_call, linear
from sgdph_fx.curvature.forward_over_reverse.rule import Rule, output_shape, saved

__all__ = ["RULES"]


def _taken(dims: int) -> Rule:
    def forward(node: Node, t: Tensor) -> Tensor:
        places: Tensor = saved(node, "result1")
        taken = t.flatten(-dims).gather(-1, places.flatten(-dims))
        return taken.view(places.shape)

    return linear(forward)


def _adaptive(dims: int) -> Rule:
    def forward(node: Node, t: Tensor) -> Tensor:
        pool: Any = getattr(torch.nn.functional, f"adaptive_avg_pool{dims}d")
        out: Tensor = pool(t, output_shape(node)[-dims:])
        return out

    return linear(forward)


_AVERAGED = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

RULES: Mapping[str, Rule] = {
    "AdaptiveAvgPool2DBackward0": _adaptive(2),
    "AdaptiveAvgPool3DBackward0": _adaptive(3),
    "AdaptiveMaxPool2DBackward0": _taken(2),
    "AdaptiveMaxPool3DBackward0": _taken(3),
    "AvgPool2DBackward0": by_call("avg_pool2d", *_AVERAGED),
    "AvgPool3DBackward0": by_call("avg_pool3d", *_AVERAGED),
    "FractionalMaxPool2DBackward0": _taken(2),
    "FractionalMaxPool3DBackward0": _taken(3),
    "MaxPool2DWithIndicesBackward0": _taken(2),
    "MaxPool3DWithIndicesBackward0": _taken(3),
}
"""Node ↦ rule."""
