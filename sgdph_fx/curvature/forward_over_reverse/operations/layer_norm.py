"""Layer norm, y = γ x̂ + β, and RMS norm, y = γ x̂, with γ and β of the normalized shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.operations.arithmetic import times
from sgdph_fx.curvature.forward_over_reverse.operations.standardization import Rows
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_shape,
    saved,
    total,
)

__all__ = ["RULES"]


def _rows(fwd: ForwardNode) -> Rows:
    node, x = fwd.node, saved(fwd.node, "input")
    length = math.prod(saved(node, "normalized_shape"))
    # An RMS norm saves 1/σ alone.
    mean, r = (
        (saved(node, "result1"), saved(node, "result2"))
        if _with_mean(fwd)
        else (None, saved(node, "result1"))
    )
    return Rows.of(x, (x.numel() // max(length, 1), length), mean, r)


def _with_mean(fwd: ForwardNode) -> bool:
    return hasattr(fwd.node, "_saved_result2")


def _jvp(fwd: ForwardNode) -> Tensors:
    dx, dgain, dbias = (*fwd.tangents, None)[:3]
    rows, shape = _rows(fwd), output_shape(fwd.node)
    out = None if dx is None else _scaled(rows.project(dx), saved(fwd.node, "weight"))
    beside = None if dgain is None else rows.normalized.view(shape) * dgain
    return [total(out, beside, None if dbias is None else dbias.expand(shape))]


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    g, dg, (dx, dgain) = bwd.g[0], bwd.dg[0], bwd.tangents[:2]
    by_x, by_gain, by_bias = (*bwd.active, False)[:3]
    rows, weight = _rows(bwd.fwd), saved(bwd.node, "weight")
    found: list[Tensor | None] = [None, None, dg if by_bias else None]
    if by_x:
        dh = total(_scaled(dg, weight), times(g, dgain))
        if dx is not None:
            found[0] = rows.vjp_tangent(_scaled(g, weight), dh, dx)
        elif dh is not None:
            found[0] = rows.project(dh)
    if by_gain:
        passed = None if dg is None else dg * rows.normalized.view(dg.shape)
        found[1] = total(passed, None if g is None or dx is None else g * rows.project(dx))
    return found[: len(bwd.active)]


def _scaled(t: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return t if weight is None else times(t, weight)


RULES: Mapping[str, Rule] = dict.fromkeys(
    ("NativeLayerNormBackward0", "FusedRmsNormBackward0"),
    Rule(_jvp, _vjp_tangent, NONLINEAR, owns_output=True),
)
"""By node."""
