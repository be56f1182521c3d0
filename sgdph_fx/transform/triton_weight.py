"""Triton kernels: the weight of direction and gain with the norms that its backward needs, and its gradients."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Any

import triton
import triton.language as tl

__all__ = ["weight_norm_backward", "weight_norm_forward"]

_jit: Any = triton.jit


@_jit
def weight_norm_forward(v, gain, out, norm, length, WANT_WEIGHT: tl.constexpr, COLS: tl.constexpr):
    """Write γ V / ‖V‖ and ‖V‖, 1 where that is 0; or the norms alone, as they are. A program takes one filter."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * length
    col = tl.arange(0, COLS)
    squares = tl.zeros([COLS], dtype=tl.float32)
    for first in range(0, length, COLS):
        x = tl.load(v + start + first + col, mask=first + col < length, other=0.0)
        squares += x * x
    size = tl.sqrt_rn(tl.sum(squares, axis=0))
    if WANT_WEIGHT:
        size = tl.where(size == 0, 1.0, size)
        # Rounded as torch's division is: a gain that is the norm gives the weight back to the bit.
        scale = tl.div_rn(tl.load(gain + row), size)
        for first in range(0, length, COLS):
            inside = first + col < length
            x = tl.load(v + start + first + col, mask=inside, other=0.0)
            tl.store(out + start + first + col, (x * scale).to(out.dtype.element_ty), mask=inside)
    tl.store(norm + row, size)


@_jit
def weight_norm_backward(g, v, gain, norm, by_v, by_gain, length, COLS: tl.constexpr):
    """Write ⟨G, V⟩ / ‖V‖ and γ / ‖V‖ (G - ⟨G, V⟩ / ‖V‖² V). A program takes one filter."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * length
    col = tl.arange(0, COLS)
    products = tl.zeros([COLS], dtype=tl.float32)
    for first in range(0, length, COLS):
        inside = first + col < length
        x = tl.load(v + start + first + col, mask=inside, other=0.0)
        products += x * tl.load(g + start + first + col, mask=inside, other=0.0).to(tl.float32)
    size = tl.load(norm + row)
    along = tl.sum(products, axis=0) / size
    scale = tl.load(gain + row) / size
    tl.store(by_gain + row, along)
    for first in range(0, length, COLS):
        inside = first + col < length
        x = tl.load(v + start + first + col, mask=inside, other=0.0)
        found = tl.load(g + start + first + col, mask=inside, other=0.0).to(tl.float32) - along / size * x
        tl.store(by_v + start + first + col, scale * found, mask=inside)
