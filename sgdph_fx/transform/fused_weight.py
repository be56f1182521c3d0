"""The weight of direction and gain as one Triton kernel, where there is a GPU, and its gradients as another.

The kernel behind torch's weight norm has no place for a filter of zeros forward. Backward it has, and runs on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgdph_fx.transform.filter_layout import Filters
from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["composed", "gradients", "norms"]

_LONGEST_TILE = 2048


def side_by_side(weight: Tensor) -> Tensor | None:
    """View a weight so that the numbers of each filter lie one after the other: itself, or with channels last."""
    if weight.is_contiguous():
        return weight
    last = weight.movedim(1, -1) if weight.dim() > 2 else weight
    return last if last.is_contiguous() else None


def composed(
    direction: Tensor, gain: Tensor, filters: Filters, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Compute γ V / ‖V‖, of a dtype, and ‖V‖ with 1 in place of 0; None where no kernel takes them."""
    rows = _rows(direction, filters)
    if rows is None or not (_is_single(gain) and gain.is_contiguous()):
        return None
    norm, out = torch.empty_like(gain), torch.empty_like(rows, dtype=dtype)
    if not _launch("weight_norm_forward", rows, gain, out, norm, WANT_WEIGHT=True):
        return None
    return out if rows is direction else out.movedim(-1, 1), norm


def gradients(
    grad: Tensor, direction: Tensor, gain: Tensor, norm: Tensor, filters: Filters
) -> tuple[Tensor, Tensor] | None:
    """Compute the gradients by V and γ, of a gradient in V's dtype or in halves; None where no kernel takes them."""
    rows = None if filters.transposed else side_by_side(direction)
    if rows is None or not gain.is_contiguous():
        return None
    if grad._is_zerotensor():  # zeros that torch writes without memory, which kernels read all the same
        return None
    passed = grad if rows is direction else grad.movedim(1, -1)
    if grad.dtype is not direction.dtype and is_fusible(grad) and _is_single(direction, gain):
        found = _by_triton(passed.contiguous(), rows, gain, norm)
    elif _torch_takes(grad, direction, gain):
        found = _ONE_PASS(passed.to(rows.dtype).contiguous(), rows, gain, norm, 0)
    else:
        return None
    return found if found is None or rows is direction else (found[0].movedim(-1, 1), found[1])


def _by_triton(grad: Tensor, rows: Tensor, gain: Tensor, norm: Tensor) -> tuple[Tensor, Tensor] | None:
    by_rows, by_gain = torch.empty_like(rows), torch.empty_like(gain)
    ran = _launch("weight_norm_backward", grad, rows, gain, norm, by_rows, by_gain)
    return (by_rows, by_gain) if ran else None


def _torch_takes(grad: Tensor, direction: Tensor, gain: Tensor) -> bool:
    for t in (grad, direction, gain):  # plainly, as each backward pass asks for each weight
        if type(t) not in _PLAIN:
            return False
    dtype = direction.dtype
    is_known = dtype in (torch.float32, torch.float64) and (direction.is_cpu or direction.is_cuda)
    return is_known and gain.dtype is dtype


_PLAIN = (Tensor, nn.Parameter)
_ONE_PASS = torch.ops.aten._weight_norm_interface_backward.default


def norms(weight: Tensor, filters: Filters) -> Tensor | None:
    """Compute ‖·‖ of each filter, the bits that :func:`composed` divides by; None where no kernel takes it."""
    rows = _rows(weight, filters)
    if rows is None:
        return None
    norm = rows.new_empty(rows.shape[0])
    return norm if _launch("weight_norm_forward", rows, None, None, norm, WANT_WEIGHT=False) else None


def _rows(weight: Tensor, filters: Filters) -> Tensor | None:
    return side_by_side(weight) if _is_single(weight) and not filters.transposed else None


def _is_single(*tensors: Tensor) -> bool:
    return is_fusible(*tensors) and all(t.dtype == torch.float32 for t in tensors)


def _launch(name: str, *given: Tensor | None, **constants: bool) -> bool:
    """Launch a kernel that takes each row of its first argument by itself."""
    first = given[0]
    assert first is not None
    length = first.numel() // first.shape[0]
    cols = max(16, min(_LONGEST_TILE, 1 << (length - 1).bit_length()))
    return launch(name, first.shape[0], (*given, length), {**constants, "COLS": cols})
