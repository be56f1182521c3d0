"""Triton kernels: formulas that take a dozen passes over memory as calls of torch, in one pass.

Each row kernel reads several short rows at a time, ``ROWS`` rows of ``COLS`` places, a power of two. The calls of torch
that they stand in for are in :mod:`.operations`, and the tests hold both to the same formulas.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["attention_backward", "attention_forward", "gelu_backward"]

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
    WANT_P: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
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
    if HAS_DGV or (HAS_DS and HAS_G):
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
    density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
    bend = (2 - value * value) * density
    moved = tl.load(dx + at, mask=inside, other=0.0).to(tl.float32)
    found = bend * moved * tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_DG:
        slope = 0.5 * (1 + tl.erf(value * 0.7071067811865476)) + value * density
        found += slope * tl.load(dg + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)
