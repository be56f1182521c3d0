"""Batch norm's second derivative as two Triton kernels, where there is a GPU: sums over channels, and the tangent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.operations.standardization import laid_out_like
from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["is_combinable", "vjp_tangent"]

_TILE = 4096
# A sum keeps three numbers for each place of its tile in registers.
_TILE_OF_SUMS = 1024
_WIDEST = 1024
_WIDEST_CHANNELS = 128
# Enough programs for a large GPU, none of them with less than a tile to sum up.
_PROGRAMS = 512


def is_combinable(x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether the kernels take these tensors; x has to be without gaps, with its channels first or last."""
    return is_fusible(x, *tensors) and (x.is_contiguous() or _is_channels_last(x))


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() > 2 and x.movedim(1, -1).is_contiguous()


@dataclass(frozen=True, slots=True)
class _Layout:
    """How x is read, in rows that share a channel, or of all channels side by side.

    Args:
        last: Whether the channels are last.
        channels: C.
        count: Numbers in a channel.
        length: Numbers in a row.
    """

    last: bool
    channels: int
    count: int
    length: int

    @classmethod
    def of(cls, x: Tensor) -> _Layout:
        channels = x.shape[1]
        count, last = x.numel() // channels, channels > 1 and (x.dim() == 2 or _is_channels_last(x))
        return cls(last, channels, count, channels if last else count // x.shape[0])

    def tile(self, numbers: int) -> dict[str, int]:
        """Rows and columns that a program takes at once."""
        widest = _WIDEST_CHANNELS if self.last else min(_WIDEST, numbers)
        cols = max(16, min(widest, 1 << (self.length - 1).bit_length()))
        return {"ROWS": max(1, numbers // cols), "COLS": cols}


def vjp_tangent(
    x: Tensor,
    others: Sequence[Tensor | None],
    channels: Sequence[Tensor | None],
    out: Tensor | None,
) -> Tensor | None:
    """Compute the tangent of γ r P(g).

    Args:
        x: The input, ``(N, C, ...)``.
        others: g, ġ (or None, a zero) and ẋ, of x's shape.
        channels: γ (or None), μ, r, and the sums of g, g x̂, ẋ and ẋ x̂, ``(C,)`` each.
        out: Where to write, with x's strides; None for memory of its own.

    Returns:
        The tangent; None if a kernel did not run.
    """
    g, dg, dx = (None if t is None else laid_out_like(x, t) for t in others)
    weight, mean, r, sum_g, g_x, sum_dx, dx_x = channels
    weight = None if weight is None else weight.contiguous()  # one number may stand for all channels
    layout, has_dg = _Layout.of(x), dg is not None
    sums = _sums(layout, (x, g, dg, dx, mean, r, sum_dx), has_dg)
    if sums is None:
        return None
    sum_dg, dg_x, along = sums if has_dg else (None, None, sums[2])
    tile = layout.tile(_TILE)
    rows, col_blocks = x.numel() // layout.length, -(-layout.length // tile["COLS"])
    out = torch.empty_like(x) if out is None else out
    flags = {"CHANNELS_LAST": layout.last, "HAS_WEIGHT": weight is not None, "HAS_DG": has_dg}
    summed = sum_dg, dg_x, sum_g, g_x, sum_dx, dx_x, along
    numbers = rows, layout.length, layout.channels, col_blocks, 1 / layout.count
    given = (x, g, dg, dx, out, weight, mean, r, *summed, *numbers)
    ran = launch("batch_norm_backward", -(-rows // tile["ROWS"]) * col_blocks, given, {**flags, **tile})
    return out if ran else None


def _sums(layout: _Layout, given: Sequence[Tensor | None], has_dg: bool) -> Tensor | None:
    """Sum ġ, ġ x̂ and r g (ẋ - mean(ẋ)) over each channel, ``(3, C)``; in parts first, so that all of a GPU works."""
    tile = layout.tile(_TILE_OF_SUMS)
    blocks = -(-layout.channels // tile["COLS"]) if layout.last else layout.channels
    step = tile["ROWS"] if layout.last else tile["ROWS"] * tile["COLS"]
    parts = max(1, min(-(-layout.count // step), -(-_PROGRAMS // blocks)))
    part = -(-layout.count // (parts * step)) * step
    x = given[0]
    assert x is not None
    out = x.new_empty((3, parts, layout.channels), dtype=torch.float32)
    numbers = layout.count, layout.length, layout.channels, 1 / layout.count, part, parts
    flags = {"CHANNELS_LAST": layout.last, "HAS_DG": has_dg}
    if not launch("batch_norm_sums", blocks * parts, (*given, out, *numbers), {**flags, **tile}):
        return None
    return out.sum(1) if parts > 1 else out[:, 0]
