"""Linear layers and matrix products: bilinear."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sgdph_fx.curvature.lean.visit import BILINEAR, Rule, Tensors, Turn, Visit, saved, total

__all__ = ["RULES", "matrix_product", "transposed"]


def matrix_product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The product of two (batches of) matrices, None being zero."""
    return None if a is None or b is None else torch.matmul(a, b)


def _push_matrices(visit: Visit, left: str, right: str) -> Tensor | None:
    da, db = visit.tangents[-2:]
    first = None if da is None else matrix_product(da, saved(visit.node, right))
    second = None if db is None else matrix_product(saved(visit.node, left), db)
    return total(first, second)


def _pull_matrices(turn: Turn, left: str, right: str) -> list[Tensor | None]:
    (g,), (dg,) = turn.g, turn.dg
    da, db = turn.tangents[-2:]
    by_a, by_b = turn.active[-2:]
    found: list[Tensor | None] = [None, None]
    if by_a:
        found[0] = total(
            None if dg is None else matrix_product(dg, transposed(saved(turn.node, right))),
            matrix_product(g, transposed(db)),
        )
    if by_b:
        found[1] = total(
            None if dg is None else matrix_product(transposed(saved(turn.node, left)), dg),
            matrix_product(transposed(da), g),
        )
    return found


def transposed(matrix: Tensor | None) -> Tensor | None:
    """Of the last two dimensions."""
    return None if matrix is None else matrix.transpose(-2, -1)


def _push_mm(visit: Visit) -> Tensors:
    return [_push_matrices(visit, "self", "mat2")]


def _pull_mm(turn: Turn) -> Tensors:
    return _pull_matrices(turn, "self", "mat2")


def _push_addmm(visit: Visit) -> Tensors:
    bias, product = visit.tangents[0], _push_matrices(visit, "mat1", "mat2")
    return [
        total(
            None if bias is None else bias * saved(visit.node, "beta"),
            None if product is None else product * saved(visit.node, "alpha"),
        )
    ]


def _pull_addmm(turn: Turn) -> Tensors:
    alpha, (dg,) = saved(turn.node, "alpha"), turn.dg
    by_bias = None if dg is None or not turn.active[0] else dg * saved(turn.node, "beta")
    products = _pull_matrices(turn, "mat1", "mat2")
    return [by_bias, *(p if p is None or alpha == 1 else p * alpha for p in products)]


RULES: Mapping[str, Rule] = {
    "AddmmBackward0": Rule(_push_addmm, _pull_addmm, BILINEAR, makes=True),
    "BmmBackward0": Rule(_push_mm, _pull_mm, BILINEAR, makes=True),
    "MmBackward0": Rule(_push_mm, _pull_mm, BILINEAR, makes=True),
}
"""By node."""
