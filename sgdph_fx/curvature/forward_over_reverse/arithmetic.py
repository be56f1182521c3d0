"""Sums, products and quotients of tensors that broadcast against each other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    LINEAR,
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_shape,
    saved,
    total,
)
from sgdph_fx.curvature.forward_over_reverse.shape import linear_vjp_tangent

__all__ = ["RULES"]


def _jvp_sum(sign: int) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        a, b = (*fwd.tangents, None)[:2]
        scale = sign * saved(fwd.node, "alpha") if b is not None else 1
        shape = output_shape(fwd.node)
        if a is not None and b is not None and fwd.writable[0] and a.shape == shape and a.dtype == b.dtype:
            return [a.add_(b, alpha=scale)]
        out = total(a, b if b is None or scale == 1 else b * scale)
        return [None if out is None else out.expand(shape)]

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def _jvp_product(fwd: ForwardNode) -> Tensors:
    da, db = fwd.tangents
    return [
        total(
            None if da is None else da * saved(fwd.node, "other"),
            None if db is None else db * saved(fwd.node, "self"),
        )
    ]


def _vjp_tangent_product(bwd: BackwardNode) -> Tensors:
    (g,), (dg,) = bwd.g, bwd.dg
    da, db = bwd.tangents
    by_a, by_b = bwd.active
    return [
        total(_times(dg, bwd, "other"), _product(g, db)) if by_a else None,
        total(_times(dg, bwd, "self"), _product(g, da)) if by_b else None,
    ]


def _jvp_quotient(fwd: ForwardNode) -> Tensors:
    da, db = fwd.tangents
    b = saved(fwd.node, "other")
    return [
        total(
            None if da is None else da / b,
            None if db is None else -db * (saved(fwd.node, "self") / b / b),
        )
    ]


def _vjp_tangent_quotient(bwd: BackwardNode) -> Tensors:
    (g,), (dg,) = bwd.g, bwd.dg
    da, db = bwd.tangents
    by_a, by_b = bwd.active
    b = saved(bwd.node, "other")
    found: list[Tensor | None] = [None, None]
    if by_a:
        found[0] = total(None if dg is None else dg / b, _product(g, None if db is None else -db / b / b))
    if by_b:
        a = saved(bwd.node, "self")
        found[1] = total(
            None if dg is None else -dg * (a / b / b),
            _product(g, None if da is None else -da / b / b),
            _product(g, None if db is None else 2 * a * db / b**3),
        )
    return found


def _times(tangent: Tensor | None, bwd: BackwardNode, name: str) -> Tensor | None:
    return None if tangent is None else tangent * saved(bwd.node, name)


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a * b


RULES: Mapping[str, Rule] = {
    "AddBackward0": _jvp_sum(1),
    "DivBackward0": Rule(_jvp_quotient, _vjp_tangent_quotient, NONLINEAR, owns_output=True),
    "MulBackward0": Rule(_jvp_product, _vjp_tangent_product, BILINEAR, owns_output=True),
    "SubBackward0": _jvp_sum(-1),
}
"""By node."""
