"""A Triton kernel: the weight of direction and gain, and the norms that its backward needs, in one launch."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Any

import triton
import triton.language as tl

__all__ = ["weight_norm_forward"]

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
            tl.store(out + start + first + col, x * scale, mask=inside)
    tl.store(norm + row, size)
