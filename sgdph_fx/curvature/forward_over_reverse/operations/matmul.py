"""Products of matrices and vectors, such as linear layers: bilinear."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp, torch_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.operations.arithmetic import times
from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)

__all__ = ["RULES", "sum_of_products", "transposed"]


def sum_of_products(*pairs: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
    """Add up products of matrices, or of batches of matrices with one batch dimension; None is zero."""
    out = None
    for a, b in pairs:
        if a is None or b is None:
            continue
        if out is None:
            out = torch.matmul(a, b)
        elif out.dim() == 2:
            out.addmm_(a, b)
        else:
            out.baddbmm_(a, b)
    return out


def transposed(matrix: Tensor | None) -> Tensor | None:
    """Swap the last two dimensions."""
    return None if matrix is None else matrix.transpose(-2, -1)


def _matrices(left: str, right: str) -> Rule:
    """Make the rule of a matrix product, given the names under which its factors are saved.

    If the product is scaled and added to another tensor, that tensor is the first input.
    """

    def factors(node: Node) -> tuple[Tensor | None, Tensor | None]:
        return saved(node, left), saved(node, right)

    def jvp(fwd: ForwardNode) -> Tensors:
        a, b = factors(fwd.node)
        *added, da, db = fwd.tangents
        product = sum_of_products((da, b), (a, db))
        if not added:
            return [product]
        return [total(_scaled(fwd.node, "beta", added[0]), _scaled(fwd.node, "alpha", product))]

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        a, b = factors(bwd.node)
        (g,), (dg,) = bwd.g, bwd.dg
        *added, da, db = bwd.tangents
        by_a, by_b = bwd.active[-2:]
        products = (
            sum_of_products((dg, transposed(b)), (g, transposed(db))) if by_a else None,
            sum_of_products((transposed(a), dg), (transposed(da), g)) if by_b else None,
        )
        if not added:
            return products
        by_added = _scaled(bwd.node, "beta", dg) if bwd.active[0] else None
        return [by_added, *(_scaled(bwd.node, "alpha", product) for product in products)]

    return Rule(jvp, vjp_tangent, BILINEAR, owns_output=True)


def _scaled(node: Node, name: str, t: Tensor | None) -> Tensor | None:
    factor = 1 if t is None else saved(node, name)
    return t if t is None or factor == 1 else t * factor


def _jvp_mv(fwd: ForwardNode) -> Tensors:
    (da, dx), node = fwd.tangents, fwd.node
    first = None if da is None else da.mv(saved(node, "vec"))
    return [total(first, None if dx is None else saved(node, "self").mv(dx))]


def _vjp_tangent_mv(bwd: BackwardNode) -> Tensors:
    (g,), (dg,), (da, dx), node = bwd.g, bwd.dg, bwd.tangents, bwd.node
    by_a, by_x = bwd.active
    found: list[Tensor | None] = [None, None]
    if by_a:
        first = None if dg is None else torch.outer(dg, saved(node, "vec"))
        found[0] = total(first, None if g is None or dx is None else torch.outer(g, dx))
    if by_x:
        second = None if dg is None else saved(node, "self").t().mv(dg)
        found[1] = total(second, None if g is None or da is None else da.t().mv(g))
    return found


def _jvp_dot(fwd: ForwardNode) -> Tensors:
    (da, db), node = fwd.tangents, fwd.node
    first = None if da is None else da.dot(saved(node, "tensor"))
    return [total(first, None if db is None else saved(node, "self").dot(db))]


def _vjp_tangent_dot(bwd: BackwardNode) -> Tensors:
    (g,), (dg,), (da, db), node = bwd.g, bwd.dg, bwd.tangents, bwd.node
    by_a, by_b = bwd.active
    return [
        total(times(dg, saved(node, "tensor")), times(g, db)) if by_a else None,
        total(times(dg, saved(node, "self")), times(g, da)) if by_b else None,
    ]


_RARE = ("AddbmmBackward0", "AddmvBackward0", "AddrBackward0", "LinalgCrossBackward0", "TrilinearBackward0")

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_RARE, Rule(torch_jvp, torch_vjp_tangent, BILINEAR)),
    "AddmmBackward0": _matrices("mat1", "mat2"),
    "BaddbmmBackward0": _matrices("batch1", "batch2"),
    "BmmBackward0": _matrices("self", "mat2"),
    "DotBackward0": Rule(_jvp_dot, _vjp_tangent_dot, BILINEAR, owns_output=True),
    "MmBackward0": _matrices("self", "mat2"),
    "MvBackward0": Rule(_jvp_mv, _vjp_tangent_mv, BILINEAR, owns_output=True),
}
"""Node ↦ rule."""
