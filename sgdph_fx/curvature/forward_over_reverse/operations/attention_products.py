"""Products of queries, keys and values as batches of matrices, ``(n h, L, E)``, with scores that are precise."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["precise", "row_dots", "scores_of", "spread"]


def spread(t: Tensor, heads: int) -> Tensor:
    """Repeat each head for every head of Q that shares it, join batches and heads, and pad: ``(n h, L, E)``."""
    t = t if t.shape[1] >= heads else t.repeat_interleave(heads // t.shape[1], dim=1)
    length = t.shape[2]
    padded = -(-length // (multiple := _length_multiple(t))) * multiple
    if padded == length:
        return t.reshape(-1, *t.shape[2:])
    out = t.new_empty((*t.shape[:2], padded, t.shape[3]))
    out[:, :, :length].copy_(t)
    out[:, :, length:].zero_()
    return out.view(-1, *out.shape[2:])


def _length_multiple(t: Tensor) -> int:
    """What the length of a sequence is padded to: tensor cores want rows of scores that begin at aligned addresses."""
    return 16 if t.is_cuda else 1


def scores_of(*pairs: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
    """Add up the products A Bᵀ, as one product of what is side by side, in single precision at least; None is zero."""
    present = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not present:
        return None
    a, b = (sides[0] if len(sides) == 1 else torch.cat(sides, -1) for sides in zip(*present, strict=True))
    return _precise_product(a, b.mT, precise(a.dtype))


def _precise_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    if a.dtype == dtype:
        return torch.bmm(a, b)
    # NVIDIA's tensor cores multiply halves into floats; elsewhere torch has no such product.
    if a.is_cuda and torch.version.hip is None:
        return torch.bmm(a, b, out_dtype=dtype)
    return torch.bmm(a.to(dtype), b.to(dtype))


def row_dots(a: Tensor | None, b: Tensor) -> Tensor:
    """Compute Σ A ∘ B of each row, ``(n h, L, 1)``, in single precision at least."""
    assert a is not None
    dtype = precise(a.dtype)
    return (a.to(dtype) * b.to(dtype)).sum(-1, keepdim=True)


def precise(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of scores for that of queries: single precision at least."""
    return torch.promote_types(dtype, torch.float32)
