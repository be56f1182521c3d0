"""Batch norm's second derivative as one Triton kernel, where there is a GPU, once the channels are summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["combine", "is_combinable"]

_TILE = 4096
_WIDEST = 1024


def is_combinable(x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether the kernel takes these tensors; x has to be without gaps, with its channels first or last."""
    return is_fusible(x, *tensors) and (x.is_contiguous() or _is_channels_last(x))


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() > 2 and x.movedim(1, -1).is_contiguous()


def _laid_out_like(x: Tensor, t: Tensor | None) -> Tensor | None:
    if t is None or t.stride() == x.stride():
        return t
    return torch.empty_like(x, dtype=t.dtype).copy_(t)


def combine(
    x: Tensor,
    others: Sequence[Tensor | None],
    channels: Sequence[Tensor | None],
    count: int,
    out: Tensor | None,
) -> Tensor | None:
    """Compute the tangent of γ r P(g).

    Args:
        x: The input, ``(N, C, ...)``.
        others: g, ġ (or None, a zero) and ẋ, of x's shape.
        channels: γ (or None), μ, r, and the sums of ġ, ġ x̂, g, g x̂, ẋ, ẋ x̂ and r g ẋ, ``(C,)`` each.
        count: Numbers in a channel.
        out: Where to write, with x's strides; None for memory of its own.

    Returns:
        The tangent; None if the kernel did not run.
    """
    g, dg, dx = (_laid_out_like(x, t) for t in others)
    last = x.shape[1] > 1 and _is_channels_last(x)
    length = x.shape[1] if last else max(1, x[0, 0].numel())
    rows = x.numel() // length
    cols = max(16, min(_WIDEST if not last else 128, 1 << (length - 1).bit_length()))
    tile = {"ROWS": _TILE // cols, "COLS": cols}
    col_blocks = -(-length // cols)
    out = torch.empty_like(x) if out is None else out
    flags = {"CHANNELS_LAST": last, "HAS_WEIGHT": channels[0] is not None, "HAS_DG": dg is not None}
    numbers = rows, length, x.shape[1], col_blocks, 1 / count
    given = (x, g, dg, dx, out, *channels, *numbers)
    ran = launch("batch_norm_backward", -(-rows // tile["ROWS"]) * col_blocks, given, {**flags, **tile})
    return out if ran else None
