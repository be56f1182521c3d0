"""The weight of direction and gain as one Triton kernel, where there is a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sgdph_fx.transform.filter_layout import Filters
from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["composed", "norms", "side_by_side"]

_LONGEST_TILE = 1024


def side_by_side(weight: Tensor) -> Tensor | None:
    """View a weight so that the numbers of each filter lie one after the other: itself, or with channels last."""
    if weight.is_contiguous():
        return weight
    last = weight.movedim(1, -1) if weight.dim() > 2 else weight
    return last if last.is_contiguous() else None


def composed(direction: Tensor, gain: Tensor, filters: Filters) -> tuple[Tensor, Tensor] | None:
    """Compute γ V / ‖V‖, and ‖V‖ with 1 in place of 0; None where no kernel takes them."""
    rows = _rows(direction, filters)
    if rows is None or not is_fusible(gain) or gain.dtype != direction.dtype or not gain.is_contiguous():
        return None
    norm, out = torch.empty_like(gain), torch.empty_like(rows)
    if not _launch(rows, gain, out, norm):
        return None
    return out if rows is direction else out.movedim(-1, 1), norm


def norms(weight: Tensor, filters: Filters) -> Tensor | None:
    """Compute ‖·‖ of each filter, the bits that :func:`composed` divides by; None where no kernel takes it."""
    rows = _rows(weight, filters)
    if rows is None:
        return None
    norm = rows.new_empty(rows.shape[0])
    return norm if _launch(rows, None, None, norm) else None


def _rows(weight: Tensor, filters: Filters) -> Tensor | None:
    if not is_fusible(weight) or weight.dtype != torch.float32 or filters.transposed:
        return None
    return side_by_side(weight)


def _launch(rows: Tensor, gain: Tensor | None, out: Tensor | None, norm: Tensor) -> bool:
    length = rows.numel() // rows.shape[0]
    cols = max(16, min(_LONGEST_TILE, 1 << (length - 1).bit_length()))
    constants = {"WANT_WEIGHT": out is not None, "COLS": cols}
    return launch("weight_norm_forward", rows.shape[0], (rows, gain, out, norm, length), constants)
