"""Pooling: linear, once it is known which entry was the largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import Rule, output_shape, saved, saved_ints
from sgdph_fx.curvature.forward_over_reverse.shape import linear

__all__ = ["RULES"]


def _taken(dims: int) -> Rule:
    def forward(node: Node, t: Tensor) -> Tensor:
        places: Tensor = saved(node, "result1")
        taken = t.flatten(-dims).gather(-1, places.flatten(-dims))
        return taken.view(places.shape)

    return linear(forward)


def _average(name: str) -> Rule:
    def forward(node: Node, t: Tensor) -> Tensor:
        pool: Any = getattr(torch.ops.aten, name).default
        out: Tensor = pool(
            t,
            saved_ints(node, "kernel_size"),
            saved_ints(node, "stride"),
            saved_ints(node, "padding"),
            saved(node, "ceil_mode"),
            saved(node, "count_include_pad"),
            saved(node, "divisor_override"),
        )
        return out

    return linear(forward)


def _adaptive(dims: int) -> Rule:
    def forward(node: Node, t: Tensor) -> Tensor:
        pool: Any = getattr(torch.nn.functional, f"adaptive_avg_pool{dims}d")
        out: Tensor = pool(t, output_shape(node)[-dims:])
        return out

    return linear(forward)


RULES: Mapping[str, Rule] = {
    "AdaptiveAvgPool2DBackward0": _adaptive(2),
    "AdaptiveAvgPool3DBackward0": _adaptive(3),
    "AdaptiveMaxPool2DBackward0": _taken(2),
    "AdaptiveMaxPool3DBackward0": _taken(3),
    "AvgPool2DBackward0": _average("avg_pool2d"),
    "AvgPool3DBackward0": _average("avg_pool3d"),
    "MaxPool2DWithIndicesBackward0": _taken(2),
    "MaxPool3DWithIndicesBackward0": _taken(3),
}
"""By node."""
