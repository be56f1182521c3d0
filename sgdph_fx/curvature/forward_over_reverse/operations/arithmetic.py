"""Sums, products and quotients of two tensors that broadcast, and products and quotients added to a third tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.linear import linear_vjp_tangent
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

__all__ = ["RULES", "times"]


def times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Multiply two tensors; None is zero."""
    return None if a is None or b is None else a * b


def _sum(coefficients: Callable[[float], tuple[float, float]]) -> Rule:
    """Make the rule of c a + d b; ``coefficients`` maps the operation's alpha to (c, d)."""

    def jvp(fwd: ForwardNode) -> Tensors:
        a, b = (*fwd.tangents, None)[:2]
        c, d = coefficients(saved(fwd.node, "alpha"))
        shape = output_shape(fwd.node)
        if a is None or b is None:
            out = total(_scaled(a, c), _scaled(b, d))
            return [None if out is None else out.expand(shape)]
        if fwd.writable[0] and c == 1 and a.shape == shape and a.dtype == b.dtype:
            return [a.add_(b, alpha=d)]
        return [torch.add(a if c == 1 else a * c, b, alpha=d)]

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def _scaled(t: Tensor | None, factor: float) -> Tensor | None:
    return t if t is None or factor == 1 else t * factor


@dataclass(frozen=True, slots=True)
class _Two:
    """Two operands a and b, ȧ and ḃ; for the backward also g, ġ, and which operands get a gradient."""

    a: Tensor | None
    b: Tensor | None
    da: Tensor | None
    db: Tensor | None
    g: Tensor | None = None
    dg: Tensor | None = None
    by: tuple[bool, ...] = (False, False)


def _product(two: _Two) -> Tensor | None:
    return total(times(two.da, two.b), times(two.a, two.db))


def _product_back(two: _Two) -> Tensors:
    by_a, by_b = two.by
    return [
        total(times(two.dg, two.b), times(two.g, two.db)) if by_a else None,
        total(times(two.dg, two.a), times(two.g, two.da)) if by_b else None,
    ]


def _quotient(two: _Two) -> Tensor | None:
    """Compute (ȧ - (a / b) ḃ) / b."""
    a, b = two.a, two.b
    assert b is not None
    turned = None if two.db is None or a is None else two.db * (a / b)
    inner = _difference(two.da, turned)
    return None if inner is None else inner / b


def _quotient_back(two: _Two) -> Tensors:
    """By a: (ġ - g ḃ / b) / b; by b: -(ġ q + g (ȧ - 2 q ḃ) / b) / b, with q = a / b."""
    a, b, g = two.a, two.b, two.g
    by_a, by_b = two.by
    assert b is not None
    found: list[Tensor | None] = [None, None]
    if by_a:
        inner = _difference(two.dg, None if g is None or two.db is None else g * two.db / b)
        found[0] = None if inner is None else inner / b
    if by_b:
        assert a is not None
        q = a / b
        moved = _difference(two.da, None if two.db is None else 2 * q * two.db)
        inner = total(times(two.dg, q), None if g is None or moved is None else g * moved / b)
        found[1] = None if inner is None else -inner / b
    return found


def _difference(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else -b if a is None else a - b


_Forward: TypeAlias = "Callable[[_Two], Tensor | None]"
_Back: TypeAlias = Callable[[_Two], Tensors]


def _of_two(forward: _Forward, back: _Back, linearity: int) -> Rule:
    """Make the rule of an operation on two tensors."""
    names = ("self", "other")

    def jvp(fwd: ForwardNode) -> Tensors:
        return [forward(_two(fwd.node, names, fwd.tangents))]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        return back(_two(bwd.node, names, bwd.tangents, bwd))

    return Rule(jvp, vjp_tangent, linearity, owns_output=True)


def _added(forward: _Forward, back: _Back, linearity: int) -> Rule:
    """Make the rule of such an operation, scaled and added to a third tensor."""
    names = ("tensor1", "tensor2")

    def jvp(fwd: ForwardNode) -> Tensors:
        made = forward(_two(fwd.node, names, fwd.tangents[1:]))
        return [total(fwd.tangents[0], _scaled(made, saved(fwd.node, "value")))]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        made = back(_two(bwd.node, names, bwd.tangents[1:], bwd))
        return [bwd.dg[0], *(_scaled(t, saved(bwd.node, "value")) for t in made)]

    return Rule(jvp, vjp_tangent, linearity, owns_output=True)


def _two(node: Node, names: tuple[str, str], tangents: Tensors, bwd: BackwardNode | None = None) -> _Two:
    a, b = (saved(node, name) for name in names)
    da, db = tangents
    if bwd is None:
        return _Two(a, b, da, db)
    return _Two(a, b, da, db, bwd.g[0], bwd.dg[0], bwd.active[-2:])


RULES: Mapping[str, Rule] = {
    "AddBackward0": _sum(lambda alpha: (1, alpha)),
    "AddcdivBackward0": _added(_quotient, _quotient_back, NONLINEAR),
    "AddcmulBackward0": _added(_product, _product_back, BILINEAR),
    "DivBackward0": _of_two(_quotient, _quotient_back, NONLINEAR),
    "MulBackward0": _of_two(_product, _product_back, BILINEAR),
    "RsubBackward0": _sum(lambda alpha: (-alpha, 1)),
    "SubBackward0": _sum(lambda alpha: (1, -alpha)),
}
"""Node ↦ rule."""
