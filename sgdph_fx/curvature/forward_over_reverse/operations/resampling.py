"""Interpolation to another size, which is linear, and sampling an image at the points of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.linear import by_call, linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]

_SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}


def _upsample(name: str, *how: str) -> Rule:
    dims = next(n for n in _SCALES if f"{n}d" in name)
    return by_call(name, "output_size", *how, *_SCALES[dims])


def _sampled(name: str) -> Rule:
    """Make the rule of sampling at the points of a grid; torch differentiates it if the grid has a tangent."""
    call: Any = getattr(torch.ops.aten, name).default
    arguments = ("grid", "interpolation_mode", "padding_mode", "align_corners")

    def jvp(fwd: ForwardNode) -> Tensors:
        (dx, _), node = fwd.tangents, fwd.node
        if fwd.active[1] or dx is None:
            return torch_jvp(fwd)
        fwd.tangents = [None, None]
        return [call(dx, *(saved(node, argument) for argument in arguments))]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        return torch_vjp_tangent(bwd) if bwd.active[1] else linear_vjp_tangent(bwd)

    return Rule(jvp, vjp_tangent, NONLINEAR)


RULES: Mapping[str, Rule] = {
    **{
        f"Upsample{kind}2DAaBackward0": _upsample(f"_upsample_{kind.lower()}2d_aa", "align_corners")
        for kind in ("Bilinear", "Bicubic", "Lanczos")
    },
    **{f"UpsampleNearest{n}DBackward0": _upsample(f"upsample_nearest{n}d") for n in _SCALES},
    **{f"UpsampleNearestExact{n}DBackward0": _upsample(f"_upsample_nearest_exact{n}d") for n in _SCALES},
    "GridSampler2DBackward0": _sampled("grid_sampler_2d"),
    "GridSampler3DBackward0": _sampled("grid_sampler_3d"),
    "UpsampleBicubic2DBackward0": _upsample("upsample_bicubic2d", "align_corners"),
    "UpsampleBilinear2DBackward0": _upsample("upsample_bilinear2d", "align_corners"),
    "UpsampleLinear1DBackward0": _upsample("upsample_linear1d", "align_corners"),
    "UpsampleTrilinear3DBackward0": _upsample("upsample_trilinear3d", "align_corners"),
}
"""Node ↦ rule."""
