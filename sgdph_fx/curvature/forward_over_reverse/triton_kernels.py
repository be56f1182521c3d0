"""Triton kernels: formulas that take a dozen passes over memory as calls of torch, in one pass.

Each row kernel reads several short rows at a time, ``ROWS`` rows of ``COLS`` places, a power of two. The calls of torch
that they stand in for are in :mod:`.operations`, and the tests hold both to the same formulas.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Any

import triton
import triton.language as tl

__all__ = [
    "attention_backward",
    "attention_forward",
    "gelu_backward",
    "layer_norm_backward",
    "layer_norm_forward",
]

_jit: Any = triton.jit


@_jit
def _softmax(s, at, inside, row, col, queries, keys, CAUSAL: tl.constexpr):
    seen = inside & (col[None, :] < keys)
    if CAUSAL:
        seen = seen & (col[None, :] <= (row % queries)[:, None])
    x = tl.load(s + at, mask=seen, other=float("-inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, axis=1)[:, None])
    return e / tl.sum(e, axis=1)[:, None]


@_jit
def attention_forward(
    s, ds, p, dp, rows, length, queries, keys,
    CAUSAL: tl.constexpr, HAS_DS: tl.constexpr, WANT_P: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write P = softmax(S), and J(Ṡ) if there is a Ṡ."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    at = row[:, None] * length + col[None, :]
    inside = (row < rows)[:, None] & (col < length)[None, :]
    prob = _softmax(s, at, inside, row, col, queries, keys, CAUSAL)
    if WANT_P:
        tl.store(p + at, prob.to(p.dtype.element_ty), mask=inside)
    if HAS_DS:
        u = tl.load(ds + at, mask=inside, other=0.0).to(tl.float32)
        u = prob * (u - tl.sum(prob * u, axis=1)[:, None])
        tl.store(dp + at, u.to(dp.dtype.element_ty), mask=inside)


@_jit
def attention_backward(
    s, ds, gv, dgv, by_s, dby_s, p, dp, rows, length, queries, keys,
    CAUSAL: tl.constexpr, HAS_DS: tl.constexpr, HAS_G: tl.constexpr, HAS_DGV: tl.constexpr,
    CURVED: tl.constexpr, WANT_P: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write P ∘ H and its tangent, with H = G Vᵀ - Σ P ∘ G Vᵀ, and P and Ṗ if they are wanted."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    at = row[:, None] * length + col[None, :]
    inside = (row < rows)[:, None] & (col < length)[None, :]
    prob = _softmax(s, at, inside, row, col, queries, keys, CAUSAL)
    u = tl.zeros([ROWS, COLS], dtype=tl.float32)
    if HAS_DGV:
        u += tl.load(dgv + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_DS:
        w = tl.load(ds + at, mask=inside, other=0.0).to(tl.float32)
        w = w - tl.sum(prob * w, axis=1)[:, None]
        if WANT_P:
            tl.store(dp + at, (prob * w).to(dp.dtype.element_ty), mask=inside)
    if HAS_G:
        h = tl.load(gv + at, mask=inside, other=0.0).to(tl.float32)
        h = h - tl.sum(prob * h, axis=1)[:, None]
        tl.store(by_s + at, (prob * h).to(by_s.dtype.element_ty), mask=inside)
        if HAS_DS:
            u += w * h
    if CURVED:
        u = prob * (u - tl.sum(prob * u, axis=1)[:, None])
        tl.store(dby_s + at, u.to(dby_s.dtype.element_ty), mask=inside)
    if WANT_P:
        tl.store(p + at, prob.to(p.dtype.element_ty), mask=inside)


@_jit
def gelu_backward(x, g, dg, dx, out, count, HAS_DG: tl.constexpr, BLOCK: tl.constexpr):
    """Write f'(x) ġ + f''(x) ẋ g of y = x Φ(x)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    square = value * value
    # The exponential of larger ones is zero, and infinity times that would be none.
    square = tl.where(square > 1e4, 1e4, square)
    density = 0.3989422804014327 * tl.exp(-0.5 * square)
    bend = (2 - square) * density
    moved = tl.load(dx + at, mask=inside, other=0.0).to(tl.float32)
    found = bend * moved * tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_DG:
        slope = 0.5 * (1 + tl.erf(value * 0.7071067811865476)) + value * density
        found += slope * tl.load(dg + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)


@_jit
def _load(t, row, inner, outer_stride, inner_stride, col, inside):
    """Read rows of ``(outer, inner, length)``, whose numbers lie side by side."""
    at = (row // inner) * outer_stride + (row % inner) * inner_stride
    return tl.load(t + at[:, None] + col[None, :], mask=inside, other=0.0).to(tl.float32)


@_jit
def _standardized(x, mean, r, row, rows, inside, CENTRED: tl.constexpr):
    scale = tl.load(r + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    if CENTRED:
        x = x - tl.load(mean + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    return tl.where(inside, x * scale, 0.0), scale


@_jit
def _project(u, unit, inside, length, CENTRED: tl.constexpr):
    """Compute P(u) of each row."""
    along = tl.sum(u * unit, axis=1) / length
    u = u - unit * along[:, None]
    if CENTRED:
        # x̂ adds up to zero, so the order of the two makes no difference.
        u = tl.where(inside, u - (tl.sum(u, axis=1) / length)[:, None], 0.0)
    return u


@_jit
def layer_norm_forward(
    x, dx, weight, mean, r, out, rows, length, inner, x_outer, x_inner, dx_outer, dx_inner,
    CENTRED: tl.constexpr, HAS_WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write γ r P(ẋ)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    inside = (row < rows)[:, None] & (col < length)[None, :]
    unit = _load(x, row, inner, x_outer, x_inner, col, inside)
    unit, scale = _standardized(unit, mean, r, row, rows, inside, CENTRED)
    u = _load(dx, row, inner, dx_outer, dx_inner, col, inside)
    u = _project(u, unit, inside, length, CENTRED) * scale
    if HAS_WEIGHT:
        u = u * tl.load(weight + col, mask=col < length, other=0.0).to(tl.float32)[None, :]
    tl.store(out + row[:, None] * length + col[None, :], u.to(out.dtype.element_ty), mask=inside)


@_jit
def layer_norm_backward(
    x, g, dg, dx, weight, mean, r, out, rows, length, inner,
    x_outer, x_inner, g_outer, g_inner, dg_outer, dg_inner, dx_outer, dx_inner,
    CENTRED: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_DG: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write the tangent of r P(γ g): r P(γ ġ - ċ γ g - r b ẋ) - r κ x̂, in the words of standardization.py."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    inside = (row < rows)[:, None] & (col < length)[None, :]
    unit = _load(x, row, inner, x_outer, x_inner, col, inside)
    unit, scale = _standardized(unit, mean, r, row, rows, inside, CENTRED)
    h = _load(g, row, inner, g_outer, g_inner, col, inside)
    d = _load(dx, row, inner, dx_outer, dx_inner, col, inside)
    u = tl.zeros([ROWS, COLS], dtype=tl.float32)
    if HAS_DG:
        u += _load(dg, row, inner, dg_outer, dg_inner, col, inside)
    if HAS_WEIGHT:
        gain = tl.load(weight + col, mask=col < length, other=0.0).to(tl.float32)[None, :]
        h = h * gain
        u = u * gain
    b = (tl.sum(h * unit, axis=1) / length)[:, None]
    turn = (tl.sum(d * unit, axis=1) / length)[:, None] * scale
    if CENTRED:
        centred = tl.where(inside, d - (tl.sum(d, axis=1) / length)[:, None], 0.0)
        kappa = scale * (tl.sum(h * centred, axis=1) / length)[:, None] - b * turn
    else:
        kappa = scale * (tl.sum(h * d, axis=1) / length)[:, None] - b * turn
    u = _project(u - turn * h - scale * b * d, unit, inside, length, CENTRED)
    u = scale * (u - kappa * unit)
    tl.store(out + row[:, None] * length + col[None, :], u.to(out.dtype.element_ty), mask=inside)
