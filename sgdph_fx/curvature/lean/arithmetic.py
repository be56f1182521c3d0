"""Sums, products and quotients of tensors that broadcast against each other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.lean.shape import pull_linear
from sgdph_fx.curvature.lean.visit import (
    BILINEAR,
    LINEAR,
    NONLINEAR,
    Rule,
    Tensors,
    Turn,
    Visit,
    output_shape,
    saved,
    total,
)

__all__ = ["RULES"]


def _push_sum(sign: int) -> Rule:
    def push(visit: Visit) -> Tensors:
        a, b = (*visit.tangents, None)[:2]
        scale = sign * saved(visit.node, "alpha") if b is not None else 1
        shape = output_shape(visit.node)
        if a is not None and b is not None and visit.spare[0] and a.shape == shape and a.dtype == b.dtype:
            return [a.add_(b, alpha=scale)]
        out = total(a, b if b is None or scale == 1 else b * scale)
        return [None if out is None else out.expand(shape)]

    return Rule(push, pull_linear, LINEAR, makes=True)


def _push_product(visit: Visit) -> Tensors:
    da, db = visit.tangents
    return [
        total(
            None if da is None else da * saved(visit.node, "other"),
            None if db is None else db * saved(visit.node, "self"),
        )
    ]


def _pull_product(turn: Turn) -> Tensors:
    (g,), (dg,) = turn.g, turn.dg
    da, db = turn.tangents
    by_a, by_b = turn.active
    return [
        total(_times(dg, turn, "other"), _product(g, db)) if by_a else None,
        total(_times(dg, turn, "self"), _product(g, da)) if by_b else None,
    ]


def _push_quotient(visit: Visit) -> Tensors:
    da, db = visit.tangents
    b = saved(visit.node, "other")
    return [
        total(
            None if da is None else da / b,
            None if db is None else -db * (saved(visit.node, "self") / b / b),
        )
    ]


def _pull_quotient(turn: Turn) -> Tensors:
    (g,), (dg,) = turn.g, turn.dg
    da, db = turn.tangents
    by_a, by_b = turn.active
    b = saved(turn.node, "other")
    found: list[Tensor | None] = [None, None]
    if by_a:
        found[0] = total(None if dg is None else dg / b, _product(g, None if db is None else -db / b / b))
    if by_b:
        a = saved(turn.node, "self")
        found[1] = total(
            None if dg is None else -dg * (a / b / b),
            _product(g, None if da is None else -da / b / b),
            _product(g, None if db is None else 2 * a * db / b**3),
        )
    return found


def _times(tangent: Tensor | None, turn: Turn, name: str) -> Tensor | None:
    return None if tangent is None else tangent * saved(turn.node, name)


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a * b


RULES: Mapping[str, Rule] = {
    "AddBackward0": _push_sum(1),
    "DivBackward0": Rule(_push_quotient, _pull_quotient, NONLINEAR, makes=True),
    "MulBackward0": Rule(_push_product, _pull_product, BILINEAR, makes=True),
    "SubBackward0": _push_sum(-1),
}
"""By node."""
