"""Triton kernels for attention's tangents, which never write the scores to memory.

With S = c Q Kᵀ, P = softmax(S), W = G Vᵀ and its tangent Ẇ = Ġ Vᵀ + G V̇ᵀ, each row is centred before it is multiplied,
so that what is constant along a row cancels in single precision:

    u = Ṡ - Σ P ∘ Ṡ,    h = W - Σ P ∘ W,    Ṗ = P ∘ u,    X = P ∘ (u ∘ h + Ẇ - t)  with  t = Σ P ∘ (u ∘ W + Ẇ)

A tile of scores is computed again for each use: its products cost less than reading it would. A program keeps ``ROWS``
rows of one head and walks over the other side, ``COLS`` rows at a time; ``WIDTH`` is the width of a head, rounded up to
a power of two. A tensor ``(N, H, L, E)`` comes with its first three strides, which its tangent has, too.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Any

import triton
import triton.language as tl

__all__ = ["attention_tangent", "attention_tangent_by_keys", "attention_tangent_by_queries"]

_jit: Any = triton.jit


@_jit
def _places(by_batch, by_head, by_row, head, heads, row, rows, width, WIDTH: tl.constexpr):
    """Where the numbers of some rows of a head are, and which of them there are."""
    col = tl.arange(0, WIDTH)
    at = (head // heads) * by_batch + (head % heads) * by_head + row.to(tl.int64) * by_row
    return at[:, None] + col[None, :], (row < rows)[:, None] & (col < width)[None, :]


@_jit
def _read(
    t, dt, by_batch, by_head, by_row, head, heads, row, rows, width, HAS_DT: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Read some rows and their tangents; what lies outside is 0."""
    at, inside = _places(by_batch, by_head, by_row, head, heads, row, rows, width, WIDTH)
    value = tl.load(t + at, mask=inside, other=0.0)
    tangent = value
    if HAS_DT:
        tangent = tl.load(dt + at, mask=inside, other=0.0)
    return value, tangent


@_jit
def _products(a, da, b, db, HAS_DA: tl.constexpr, HAS_DB: tl.constexpr):
    """Compute A Bᵀ and Ȧ Bᵀ + A Ḃᵀ."""
    turned = tl.trans(b)
    product = tl.dot(a, turned)
    tangent = tl.zeros_like(product)
    if HAS_DA:
        tangent = tl.dot(da, turned, tangent)
    if HAS_DB:
        tangent = tl.dot(a, tl.trans(db), tangent)
    return product, tangent


@_jit
def _scores(
    a, da, b, db, query, key, keys, scale,
    CAUSAL: tl.constexpr, HAS_DA: tl.constexpr, HAS_DB: tl.constexpr,
):  # fmt: skip
    """Compute S, minus infinity where a query does not see a key, and Ṡ; or both transposed."""
    s, ds = _products(a, da, b, db, HAS_DA, HAS_DB)
    seen = key < keys
    if CAUSAL:
        seen = seen & (key <= query)
    return tl.where(seen, s * scale, float("-inf")), ds * scale


@_jit
def attention_tangent(
    q, dq, k, dk, v, dv, out, logs, means,
    q0, q1, q2, k0, k1, k2, v0, v1, v2, o0, o1, o2, heads, queries, keys, width, scale,
    CAUSAL: tl.constexpr, HAS_DQ: tl.constexpr, HAS_DK: tl.constexpr, HAS_DV: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write Ȯ = Ṗ V + P V̇, and log Σ exp S and Σ P ∘ Ṡ of each row."""
    blocks = tl.cdiv(queries, ROWS)
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    row = block * ROWS + tl.arange(0, ROWS)
    a, da = _read(q, dq, q0, q1, q2, head, heads, row, queries, width, HAS_DQ, WIDTH)
    end = tl.minimum(keys, (block + 1) * ROWS) if CAUSAL else keys
    highest = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([ROWS], dtype=tl.float32)
    moved = tl.zeros([ROWS], dtype=tl.float32)
    for first in range(0, end, COLS):
        col = first + tl.arange(0, COLS)
        b, db = _read(k, dk, k0, k1, k2, head, heads, col, keys, width, HAS_DK, WIDTH)
        s, ds = _scores(a, da, b, db, row[:, None], col[None, :], keys, scale, CAUSAL, HAS_DQ, HAS_DK)
        higher = tl.maximum(highest, tl.max(s, axis=1))
        e = tl.exp(s - higher[:, None])
        shrunk = tl.exp(highest - higher)
        total = total * shrunk + tl.sum(e, axis=1)
        moved = moved * shrunk + tl.sum(e * ds, axis=1)
        highest = higher
    log = highest + tl.log(total)
    mean = moved / total
    tl.store(logs + head * queries + row, log, mask=row < queries)
    tl.store(means + head * queries + row, mean, mask=row < queries)
    found = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for first in range(0, end, COLS):
        col = first + tl.arange(0, COLS)
        b, db = _read(k, dk, k0, k1, k2, head, heads, col, keys, width, HAS_DK, WIDTH)
        s, ds = _scores(a, da, b, db, row[:, None], col[None, :], keys, scale, CAUSAL, HAS_DQ, HAS_DK)
        p = tl.exp(s - log[:, None])
        c, dc = _read(v, dv, v0, v1, v2, head, heads, col, keys, width, HAS_DV, WIDTH)
        if HAS_DQ or HAS_DK:
            found = tl.dot((p * (ds - mean[:, None])).to(c.dtype), c, found)
        if HAS_DV:
            found = tl.dot(p.to(c.dtype), dc, found)
    at, inside = _places(o0, o1, o2, head, heads, row, queries, width, WIDTH)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)


@_jit
def attention_tangent_by_queries(
    q, dq, k, dk, v, dv, g, dg, out, logs, means, dots, turns,
    q0, q1, q2, k0, k1, k2, v0, v1, v2, g0, g1, g2, o0, o1, o2, heads, queries, keys, width, scale,
    CAUSAL: tl.constexpr, HAS_DQ: tl.constexpr, HAS_DK: tl.constexpr, HAS_DV: tl.constexpr, HAS_DG: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write c (X K + (P ∘ h) K̇), the tangent of the gradient by Q, and Σ P ∘ W and t of each row."""
    blocks = tl.cdiv(queries, ROWS)
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    row = block * ROWS + tl.arange(0, ROWS)
    a, da = _read(q, dq, q0, q1, q2, head, heads, row, queries, width, HAS_DQ, WIDTH)
    passed, turned = _read(g, dg, g0, g1, g2, head, heads, row, queries, width, HAS_DG, WIDTH)
    log = tl.load(logs + head * queries + row, mask=row < queries, other=float("inf"))[:, None]
    mean = tl.load(means + head * queries + row, mask=row < queries, other=0.0)[:, None]
    end = tl.minimum(keys, (block + 1) * ROWS) if CAUSAL else keys
    dot = tl.zeros([ROWS], dtype=tl.float32)
    turn = tl.zeros([ROWS], dtype=tl.float32)
    for first in range(0, end, COLS):
        col = first + tl.arange(0, COLS)
        b, db = _read(k, dk, k0, k1, k2, head, heads, col, keys, width, HAS_DK, WIDTH)
        s, ds = _scores(a, da, b, db, row[:, None], col[None, :], keys, scale, CAUSAL, HAS_DQ, HAS_DK)
        p = tl.exp(s - log)
        c, dc = _read(v, dv, v0, v1, v2, head, heads, col, keys, width, HAS_DV, WIDTH)
        w, dw = _products(passed, turned, c, dc, HAS_DG, HAS_DV)
        dot += tl.sum(p * w, axis=1)
        turn += tl.sum(p * ((ds - mean) * w + dw), axis=1)
    tl.store(dots + head * queries + row, dot, mask=row < queries)
    tl.store(turns + head * queries + row, turn, mask=row < queries)
    found = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for first in range(0, end, COLS):
        col = first + tl.arange(0, COLS)
        b, db = _read(k, dk, k0, k1, k2, head, heads, col, keys, width, HAS_DK, WIDTH)
        s, ds = _scores(a, da, b, db, row[:, None], col[None, :], keys, scale, CAUSAL, HAS_DQ, HAS_DK)
        p = tl.exp(s - log)
        c, dc = _read(v, dv, v0, v1, v2, head, heads, col, keys, width, HAS_DV, WIDTH)
        w, dw = _products(passed, turned, c, dc, HAS_DG, HAS_DV)
        h = w - dot[:, None]
        found = tl.dot((p * ((ds - mean) * h + dw - turn[:, None])).to(b.dtype), b, found)
        if HAS_DK:
            found = tl.dot((p * h).to(b.dtype), db, found)
    at, inside = _places(o0, o1, o2, head, heads, row, queries, width, WIDTH)
    tl.store(out + at, (found * scale).to(out.dtype.element_ty), mask=inside)


@_jit
def attention_tangent_by_keys(
    q, dq, k, dk, v, dv, g, dg, by_k, by_v, logs, means, dots, turns,
    q0, q1, q2, k0, k1, k2, v0, v1, v2, g0, g1, g2, o0, o1, o2, u0, u1, u2, heads, queries, keys, width, scale,
    CAUSAL: tl.constexpr, HAS_DQ: tl.constexpr, HAS_DK: tl.constexpr, HAS_DV: tl.constexpr, HAS_DG: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write c (Xᵀ Q + (P ∘ h)ᵀ Q̇) and Ṗᵀ G + Pᵀ Ġ, the tangents of the gradients by K and V."""
    blocks = tl.cdiv(keys, ROWS)
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    row = block * ROWS + tl.arange(0, ROWS)
    b, db = _read(k, dk, k0, k1, k2, head, heads, row, keys, width, HAS_DK, WIDTH)
    c, dc = _read(v, dv, v0, v1, v2, head, heads, row, keys, width, HAS_DV, WIDTH)
    found_k = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    found_v = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    begin = (block * ROWS // COLS) * COLS if CAUSAL else 0
    for first in range(begin, queries, COLS):
        col = first + tl.arange(0, COLS)
        there = col < queries
        a, da = _read(q, dq, q0, q1, q2, head, heads, col, queries, width, HAS_DQ, WIDTH)
        passed, turned = _read(g, dg, g0, g1, g2, head, heads, col, queries, width, HAS_DG, WIDTH)
        stats = head * queries + col
        log = tl.load(logs + stats, mask=there, other=float("inf"))[None, :]
        mean = tl.load(means + stats, mask=there, other=0.0)[None, :]
        dot = tl.load(dots + stats, mask=there, other=0.0)[None, :]
        turn = tl.load(turns + stats, mask=there, other=0.0)[None, :]
        s, ds = _scores(b, db, a, da, col[None, :], row[:, None], keys, scale, CAUSAL, HAS_DK, HAS_DQ)
        w, dw = _products(c, dc, passed, turned, HAS_DV, HAS_DG)
        p = tl.exp(s - log)
        u, h = ds - mean, w - dot
        found_k = tl.dot((p * (u * h + dw - turn)).to(a.dtype), a, found_k)
        if HAS_DQ:
            found_k = tl.dot((p * h).to(a.dtype), da, found_k)
        if HAS_DQ or HAS_DK:
            found_v = tl.dot((p * u).to(a.dtype), passed, found_v)
        if HAS_DG:
            found_v = tl.dot(p.to(a.dtype), turned, found_v)
    at, inside = _places(o0, o1, o2, head, heads, row, keys, width, WIDTH)
    tl.store(by_k + at, (found_k * scale).to(by_k.dtype.element_ty), mask=inside)
    at, inside = _places(u0, u1, u2, head, heads, row, keys, width, WIDTH)
    tl.store(by_v + at, found_v.to(by_v.dtype.element_ty), mask=inside)
