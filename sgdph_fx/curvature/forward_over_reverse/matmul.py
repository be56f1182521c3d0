"""Linear layers and matrix products: bilinear."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import (
    BILINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)

__all__ = ["RULES", "matrix_product", "transposed"]


def matrix_product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The product of two (batches of) matrices, None being zero."""
    return None if a is None or b is None else torch.matmul(a, b)


def _jvp_matrices(fwd: ForwardNode, left: str, right: str) -> Tensor | None:
    da, db = fwd.tangents[-2:]
    first = None if da is None else matrix_product(da, saved(fwd.node, right))
    second = None if db is None else matrix_product(saved(fwd.node, left), db)
    return total(first, second)


def _vjp_tangent_matrices(bwd: BackwardNode, left: str, right: str) -> list[Tensor | None]:
    (g,), (dg,) = bwd.g, bwd.dg
    da, db = bwd.tangents[-2:]
    by_a, by_b = bwd.active[-2:]
    found: list[Tensor | None] = [None, None]
    if by_a:
        found[0] = total(
            None if dg is None else matrix_product(dg, transposed(saved(bwd.node, right))),
            matrix_product(g, transposed(db)),
        )
    if by_b:
        found[1] = total(
            None if dg is None else matrix_product(transposed(saved(bwd.node, left)), dg),
            matrix_product(transposed(da), g),
        )
    return found


def transposed(matrix: Tensor | None) -> Tensor | None:
    """Of the last two dimensions."""
    return None if matrix is None else matrix.transpose(-2, -1)


def _jvp_mm(fwd: ForwardNode) -> Tensors:
    return [_jvp_matrices(fwd, "self", "mat2")]


def _vjp_tangent_mm(bwd: BackwardNode) -> Tensors:
    return _vjp_tangent_matrices(bwd, "self", "mat2")


def _jvp_addmm(fwd: ForwardNode) -> Tensors:
    bias, product = fwd.tangents[0], _jvp_matrices(fwd, "mat1", "mat2")
    return [
        total(
            None if bias is None else bias * saved(fwd.node, "beta"),
            None if product is None else product * saved(fwd.node, "alpha"),
        )
    ]


def _vjp_tangent_addmm(bwd: BackwardNode) -> Tensors:
    alpha, (dg,) = saved(bwd.node, "alpha"), bwd.dg
    by_bias = None if dg is None or not bwd.active[0] else dg * saved(bwd.node, "beta")
    products = _vjp_tangent_matrices(bwd, "mat1", "mat2")
    return [by_bias, *(p if p is None or alpha == 1 else p * alpha for p in products)]


RULES: Mapping[str, Rule] = {
    "AddmmBackward0": Rule(_jvp_addmm, _vjp_tangent_addmm, BILINEAR, owns_output=True),
    "BmmBackward0": Rule(_jvp_mm, _vjp_tangent_mm, BILINEAR, owns_output=True),
    "MmBackward0": Rule(_jvp_mm, _vjp_tangent_mm, BILINEAR, owns_output=True),
}
"""By node."""
