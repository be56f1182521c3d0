"""Interpolation to another size, linear, and samples of an image at the points of a grid."""

from __future__ import annotations

from collections.abc import Mapping

from sgdph_fx.curvature.forward_over_reverse.operations.linear import by_call
from sgdph_fx.curvature.forward_over_reverse.rule import Rule

__all__ = ["RULES"]

_SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}


def _upsample(name: str, *how: str) -> Rule:
    dims = next(n for n in _SCALES if f"{n}d" in name)
    return by_call(name, "output_size", *how, *_SCALES[dims])


RULES: Mapping[str, Rule] = {
    **{
        f"Upsample{kind}2DAaBackward0": _upsample(f"_upsample_{kind.lower()}2d_aa", "align_corners")
        for kind in ("Bilinear", "Bicubic", "Lanczos")
    },
    **{f"UpsampleNearest{n}DBackward0": _upsample(f"upsample_nearest{n}d") for n in _SCALES},
    **{f"UpsampleNearestExact{n}DBackward0": _upsample(f"_upsample_nearest_exact{n}d") for n in _SCALES},
    "UpsampleBicubic2DBackward0": _upsample("upsample_bicubic2d", "align_corners"),
    "UpsampleBilinear2DBackward0": _upsample("upsample_bilinear2d", "align_corners"),
    "UpsampleLinear1DBackward0": _upsample("upsample_linear1d", "align_corners"),
    "UpsampleTrilinear3DBackward0": _upsample("upsample_trilinear3d", "align_corners"),
}
"""By node."""
