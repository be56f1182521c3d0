"""Products of matrices and vectors."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.products import Operation

__all__ = ["MATRICES"]

MATRICES: dict[str, Operation] = {
    "linear": (F.linear, [(3, 5), (4, 5), (4,)]),
    "linear of sequences": (F.linear, [(2, 3, 5), (4, 5), (4,)]),
    "linear without bias": (F.linear, [(2, 3, 5), (4, 5)]),
    "linear of nothing": (F.linear, [(0, 5), (4, 5), (4,)]),
    "addmm, scaled": (lambda b, x, w: torch.addmm(b, x, w, beta=2, alpha=3), [(4,), (3, 5), (5, 4)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "baddbmm, scaled": (
        lambda b, x, y: torch.baddbmm(b, x, y, beta=0.5, alpha=2), [(3, 1), (2, 3, 4), (2, 4, 5)]
    ),
    "matmul that broadcasts": (torch.matmul, [(2, 3, 4), (5, 1, 4, 2)]),
    "matrix and vector": (torch.mv, [(3, 4), (4,)]),
    "dot, outer": (lambda a, b: torch.dot(a, b) * torch.outer(a, b), [(4,), (4,)]),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->ik", x, y), [(2, 3, 4), (2, 5, 4)]),
    "einsum of three": (lambda x, y, z: torch.einsum("ij,jk,ik->i", x, y, z), [(3, 4), (4, 2), (3, 2)]),
    "einsum, diagonal": (lambda x, y: torch.einsum("bii,bi->b", x, y), [(2, 3, 3), (2, 3)]),
    "multi-dot": (lambda x, y, z: torch.linalg.multi_dot([x, y, z]), [(3, 4), (4, 2), (2, 5)]),
    "other sums of products": (
        lambda m, x, y: torch.addmv(x, m, y, beta=2, alpha=3) * torch.addr(m, x, y).sum(), [(4, 4), (4,), (4,)]
    ),
    "sum of a batch": (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)]),
    "bilinear": (F.bilinear, [(3, 4), (3, 2), (5, 4, 2), (5,)]),
    "cross": (torch.linalg.cross, [(4, 3), (4, 3)]),
    "gated cell": (lambda x, w: _cell(x @ w), [(3, 4), (4, 8)]),
}  # fmt: skip


def _cell(gates: torch.Tensor) -> torch.Tensor:
    """What an LSTM cell does with its gates."""
    i, f, g, o = gates.chunk(4, 1)
    return torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * 0.3 + torch.sigmoid(i) * torch.tanh(g))
