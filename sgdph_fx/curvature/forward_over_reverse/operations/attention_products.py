"""Products of queries, keys and values as batches of matrices, ``(n h, L, E)``, with scores that are precise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import total

__all__ = ["Pair", "precise", "row_dots", "scores_of", "tangent_of_scores"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors, ``(n h, L, E)`` each, that lie side by side if both are there: [A Ȧ] Bᵀ takes one product.

    Args:
        first: None is zero.
        second: None is zero.
        both: The two, ``(n h, L, 2 E)``; None unless both are there.
    """

    first: Tensor | None
    second: Tensor | None
    both: Tensor | None

    @classmethod
    def of(cls, first: Tensor | None, second: Tensor | None, heads: int, scale: float = 1) -> Pair:
        """Copy tensors ``(N, H, L, E)`` to the places of their products, times a scale.

        Each head is repeated for every head of Q that shares it, and the length is padded with zeros.
        """
        given = [t for t in (first, second) if t is not None]
        if not given:
            return cls(None, None, None)
        made = _copied(given, heads, scale)
        if len(given) == 2:
            width = given[0].shape[-1]
            return cls(made[..., :width], made[..., width:], made)
        return cls(made, None, None) if second is None else cls(None, made, None)


def _copied(tensors: Sequence[Tensor], heads: int, scale: float) -> Tensor:
    n, _, length, width = tensors[0].shape
    multiple = _length_multiple(tensors[0])
    padded = -(-length // multiple) * multiple
    if len(tensors) == 1 and scale == 1 and padded == length and tensors[0].shape[1] == heads:
        return tensors[0].reshape(-1, length, width)
    out = tensors[0].new_empty((n, heads, padded, width * len(tensors)))
    for number, t in enumerate(tensors):
        place = out if padded == length else out[:, :, :length]
        if len(tensors) > 1:
            place = place.narrow(3, number * width, width)
        if t.shape[1] != heads:
            place = place.view(n, t.shape[1], heads // t.shape[1], length, width)
            t = t.unsqueeze(2)
        if scale == 1:
            place.copy_(t)
        else:
            torch.mul(t, scale, out=place)
    if padded > length:
        out[:, :, length:].zero_()
    return out.view(-1, *out.shape[2:])


def _length_multiple(t: Tensor) -> int:
    """What the length of a sequence is padded to: tensor cores want rows of scores that begin at aligned addresses."""
    return 16 if t.is_cuda else 1


def scores_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Compute A Bᵀ in single precision at least; None is zero."""
    return None if a is None or b is None else _precise_product(a, b.mT, precise(a.dtype))


def tangent_of_scores(a: Pair, b: Pair) -> Tensor | None:
    """Compute Ȧ Bᵀ + A Ḃᵀ, of pairs [Ȧ A] and [B Ḃ]."""
    if a.both is not None and b.both is not None:
        return scores_of(a.both, b.both)
    return total(scores_of(a.first, b.first), scores_of(a.second, b.second))


def _precise_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    if a.dtype == dtype:
        return torch.bmm(a, b)
    # NVIDIA's tensor cores multiply halves into floats; elsewhere torch has no such product.
    if a.is_cuda and torch.version.hip is None:
        return torch.bmm(a, b, out_dtype=dtype)
    return torch.bmm(a.to(dtype), b.to(dtype))


def row_dots(a: Tensor | None, b: Tensor | None) -> Tensor:
    """Compute Σ A ∘ B of each row, ``(n h, L, 1)``, in single precision at least."""
    assert a is not None
    assert b is not None
    dtype = precise(a.dtype)
    return (a.to(dtype) * b.to(dtype)).sum(-1, keepdim=True)


def precise(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of scores for that of queries: single precision at least."""
    return dtype if dtype == torch.float64 else torch.float32
