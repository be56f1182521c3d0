r"""A weight as gain and direction: the mathematics, without a module.

The reparameterization is (8) of the paper, taken over each output filter f,

.. math:: W_f = \gamma_f \, V_f / \lVert V_f \rVert ,

with the direction V of the shape of the weight and one gain γ for each output channel. Differences from
``torch.nn.utils.weight_norm``: the gain is ``(C_out,)`` whatever the weight's shape; for a transposed convolution
the filters lie along dimension 1, and with groups there are C_out gains, not C_out / groups; a filter of
zeros keeps output 0, has finite gradients and can leave zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Filters", "compose", "decompose", "decoupled_names", "dotted", "filter_numbers"]


@dataclass(frozen=True, slots=True)
class Filters:
    """How the output filters lie in a weight: along dimension 0, or 1 in each group if ``transposed``."""

    transposed: bool = False
    groups: int = 1


def dotted(path: str, leaf: str) -> str:
    """Name of the attribute ``leaf`` of the module at ``path``, which is empty for the root."""
    return f"{path}.{leaf}" if path else leaf


def decoupled_names(weight: str) -> tuple[str, str]:
    """Names of the direction and the gain that replace the parameter ``weight``.

    >>> decoupled_names("features.0.weight")
    ('features.0.direction', 'features.0.gain')
    >>> decoupled_names("stem.kernel")
    ('stem.kernel_direction', 'stem.kernel_gain')
    """
    owner, dot, leaf = weight.rpartition(".")
    stem = owner + dot + ("" if leaf == "weight" else f"{leaf}_")
    return f"{stem}direction", f"{stem}gain"


def compose(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
    """The weight γ V / ‖V‖ of (8).

    Args:
        direction: V, of the weight's shape, any floating dtype and device.
        gain: γ, ``(C_out,)``.
        filters: How the filters lie in V.

    Returns:
        The weight, of the shape of V. Where V is zero, it is zero and its gradient finite.
    """
    norm = _norms(direction, filters)
    scale = gain.view_as(norm) / norm.masked_fill(norm == 0, 1)
    return (_stacked(direction, filters) * scale).view_as(direction)


@torch.no_grad()
def decompose(weight: Tensor, filters: Filters) -> tuple[Tensor, Tensor]:
    """Direction and gain of ``weight``, such that :func:`compose` gives it back to the bit.

    A filter of zeros gets gain 0 and a fixed pseudo-random unit direction: the output stays 0, and the
    gradient by the gain lets the filter leave zero.

    Returns:
        The direction, which is ``weight`` itself unless a filter is zero, and the gain ``(C_out,)``.
    """
    norm = _norms(weight, filters)
    gain = norm.flatten().clone()
    if weight.is_meta or bool((norm != 0).all()):
        return weight, gain
    generator = torch.Generator().manual_seed(0)
    filler = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    filler = (_stacked(filler, filters) / _norms(filler, filters)).to(weight)
    return torch.where(norm == 0, filler, _stacked(weight, filters)).view_as(weight), gain


def filter_numbers(shape: Sequence[int], filters: Filters) -> Tensor:
    """The output filter that each number of a weight of ``shape`` belongs to, as integers of that shape.

    >>> filter_numbers((2, 2, 1), Filters(transposed=True, groups=2)).flatten().tolist()
    [0, 1, 2, 3]
    """
    places = _stacked(torch.empty(tuple(shape), device="meta"), filters)
    own = [places.shape[d] if d in _own_dims(filters) else 1 for d in range(places.dim())]
    count = torch.Size(own).numel()
    return torch.arange(count, device="cpu").view(own).expand(places.shape).reshape(tuple(shape))


def _stacked(weight: Tensor, filters: Filters) -> Tensor:
    """A view in which an output filter is one index of dimension 0, or of (0, 2) if transposed."""
    if not filters.transposed:
        return weight
    return weight.view(filters.groups, weight.shape[0] // filters.groups, *weight.shape[1:])


def _norms(weight: Tensor, filters: Filters) -> Tensor:
    """‖·‖ of each output filter, shaped to be multiplied with :func:`_stacked`."""
    stacked = _stacked(weight, filters)
    over = [d for d in range(stacked.dim()) if d not in _own_dims(filters)]
    norms: Tensor = torch.linalg.vector_norm(stacked, dim=over, keepdim=True)
    return norms


def _own_dims(filters: Filters) -> tuple[int, ...]:
    return (0, 2) if filters.transposed else (0,)
