"""Triton kernels for batch norm: the sums over each channel, then the second derivative, in one pass each."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Any

import triton
import triton.language as tl

__all__ = ["batch_norm_backward", "batch_norm_sums"]

_jit: Any = triton.jit


@_jit
def batch_norm_sums(
    x, g, dg, dx, mean, r, sum_dx, out, numbers, length, channels, share, part, parts,
    CHANNELS_LAST: tl.constexpr, HAS_DG: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write Σ ġ, Σ ġ x̂ and r Σ g (ẋ - mean(ẋ)) over one part of some channels, which is rows, or numbers of one."""
    block, number = tl.program_id(0) // parts, tl.program_id(0) % parts
    if CHANNELS_LAST:
        channel = block * COLS + tl.arange(0, COLS)[None, :]
    else:
        channel = block + tl.zeros([1, COLS], dtype=tl.int32)
    known = channel < channels
    scale = tl.load(r + channel, mask=known, other=0.0).to(tl.float32)
    middle = tl.load(mean + channel, mask=known, other=0.0).to(tl.float32)
    moved = tl.load(sum_dx + channel, mask=known, other=0.0).to(tl.float32) * share
    plain = tl.zeros([ROWS, COLS], dtype=tl.float32)
    with_x = tl.zeros([ROWS, COLS], dtype=tl.float32)
    along = tl.zeros([ROWS, COLS], dtype=tl.float32)
    end = tl.minimum((number + 1) * part, numbers)
    for first in range(number * part, end, ROWS if CHANNELS_LAST else ROWS * COLS):
        if CHANNELS_LAST:
            row = first + tl.arange(0, ROWS)[:, None]
            inside = (row < end) & known
            at = row.to(tl.int64) * channels + channel
        else:
            one = first + tl.arange(0, ROWS)[:, None] * COLS + tl.arange(0, COLS)[None, :]
            inside = one < end
            at = (one // length).to(tl.int64) * channels * length + block * length + one % length
        passed = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
        turned = tl.load(dx + at, mask=inside, other=0.0).to(tl.float32)
        along += passed * (turned - moved)
        if HAS_DG:
            u = tl.load(dg + at, mask=inside, other=0.0).to(tl.float32)
            plain += u
            with_x += u * (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - middle)
    if CHANNELS_LAST:
        place = out + number * channels + block * COLS + tl.arange(0, COLS)
        kept = block * COLS + tl.arange(0, COLS) < channels
        scale = tl.sum(scale, axis=0)
        tl.store(place + 2 * parts * channels, tl.sum(along, axis=0) * scale, mask=kept)
        if HAS_DG:
            tl.store(place, tl.sum(plain, axis=0), mask=kept)
            tl.store(place + parts * channels, tl.sum(with_x, axis=0) * scale, mask=kept)
    else:
        place = out + number * channels + block
        scale = tl.max(scale)
        tl.store(place + 2 * parts * channels, tl.sum(along) * scale)
        if HAS_DG:
            tl.store(place, tl.sum(plain))
            tl.store(place + parts * channels, tl.sum(with_x) * scale)


@_jit
def batch_norm_backward(
    x, g, dg, dx, out, weight, mean, r, sum_dg, sum_dg_x, sum_g, sum_g_x, sum_dx, sum_dx_x, sum_g_dx,
    rows, length, channels, col_blocks, share,
    CHANNELS_LAST: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_DG: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write the tangent of γ r P(g), as batch_norm.py has it, given the sums over each channel."""
    block = tl.program_id(0).to(tl.int64)
    row = (block // col_blocks) * ROWS + tl.arange(0, ROWS)
    col = (block % col_blocks) * COLS + tl.arange(0, COLS)
    inside = (row < rows)[:, None] & (col < length)[None, :]
    at = row[:, None] * length + col[None, :]
    if CHANNELS_LAST:
        channel, known = col, col < length
    else:
        channel, known = row % channels, row < rows
    scale = tl.load(r + channel, mask=known, other=0.0).to(tl.float32)
    middle = tl.load(mean + channel, mask=known, other=0.0).to(tl.float32)
    g_sum = tl.load(sum_g + channel, mask=known, other=0.0).to(tl.float32)
    g_x = tl.load(sum_g_x + channel, mask=known, other=0.0).to(tl.float32)
    dx_sum = tl.load(sum_dx + channel, mask=known, other=0.0).to(tl.float32)
    dx_x = tl.load(sum_dx_x + channel, mask=known, other=0.0).to(tl.float32)
    along = tl.load(sum_g_dx + channel, mask=known, other=0.0).to(tl.float32)
    by_dg = scale
    if HAS_WEIGHT:
        by_dg = by_dg * tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    kappa = along - g_x * dx_x * scale * share
    by_g = -share * by_dg * scale * dx_x
    by_dx = -share * by_dg * scale * g_x
    by_x = by_dg * kappa + by_g * g_x + by_dx * dx_x
    offset = by_g * g_sum + by_dx * dx_sum
    if HAS_DG:
        by_x += by_dg * tl.load(sum_dg_x + channel, mask=known, other=0.0).to(tl.float32)
        offset += by_dg * tl.load(sum_dg + channel, mask=known, other=0.0).to(tl.float32)
    by_x = -share * scale * by_x
    offset = -share * offset
    if CHANNELS_LAST:
        by_dg, by_g, by_dx = by_dg[None, :], by_g[None, :], by_dx[None, :]
        by_x, offset, middle = by_x[None, :], offset[None, :], middle[None, :]
    else:
        by_dg, by_g, by_dx = by_dg[:, None], by_g[:, None], by_dx[:, None]
        by_x, offset, middle = by_x[:, None], offset[:, None], middle[:, None]
    found = offset + by_x * (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - middle)
    found += by_g * tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    found += by_dx * tl.load(dx + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_DG:
        found += by_dg * tl.load(dg + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)
