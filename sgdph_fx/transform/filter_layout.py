"""How the output filters lie in a weight, and numbers for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Filters", "broad", "dots", "filter_numbers", "norms", "positive_norms", "stacked"]


@dataclass(frozen=True, slots=True)
class Filters:
    """How the output filters lie in a weight: along dimension 0, or 1 in each group if ``transposed``."""

    transposed: bool = False
    groups: int = 1


def filter_numbers(shape: Sequence[int], filters: Filters) -> Tensor:
    """The output filter that each number of a weight of ``shape`` belongs to, as integers of that shape.

    >>> filter_numbers((2, 2, 1), Filters(transposed=True, groups=2)).flatten().tolist()
    [0, 1, 2, 3]
    """
    places = stacked(torch.empty(tuple(shape), device="meta"), filters)
    own = [places.shape[d] if d in _own_dims(filters) else 1 for d in range(places.dim())]
    count = torch.Size(own).numel()
    return torch.arange(count, device="cpu").view(own).expand(places.shape).reshape(tuple(shape))


def stacked(weight: Tensor, filters: Filters) -> Tensor:
    """A view in which an output filter is one index of dimension 0, or of (0, 2) if transposed."""
    if not filters.transposed:
        return weight
    return weight.view(filters.groups, weight.shape[0] // filters.groups, *weight.shape[1:])


def norms(weight: Tensor, filters: Filters) -> Tensor:
    """‖·‖ of each output filter, ``(C_out,)``."""
    if not filters.transposed:
        plain: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())))
        return plain
    v = stacked(weight, filters)
    found: Tensor = torch.linalg.vector_norm(v, dim=_inner_dims(v, filters))
    return found.reshape(-1)


def positive_norms(weight: Tensor, filters: Filters) -> Tensor:
    """The same, and 1 for a filter of zeros."""
    found = norms(weight, filters)
    if type(found) is Tensor and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return torch.threshold(found, 0, 1)
    # Not every version can shard a threshold, and a trace cannot put it into ONNX.
    return found.masked_fill(found == 0, 1)


def dots(a: Tensor, b: Tensor, filters: Filters) -> Tensor:
    """⟨a, b⟩ of each output filter, ``(C_out,)``, of two that are stacked."""
    return (a * b).sum(_inner_dims(a, filters)).reshape(-1)


def broad(numbers: Tensor, v: Tensor, filters: Filters) -> Tensor:
    """Shape numbers for each output filter, ``(C_out,)``, to broadcast against a stacked weight."""
    if not filters.transposed:
        return numbers.view(-1, *[1] * (v.dim() - 1))
    return numbers.view(filters.groups, 1, -1, *[1] * (v.dim() - 3))


def _inner_dims(v: Tensor, filters: Filters) -> list[int]:
    return [d for d in range(v.dim()) if d not in _own_dims(filters)]


def _own_dims(filters: Filters) -> tuple[int, ...]:
    return (0, 2) if filters.transposed else (0,)
