"""Which tensors Python holds at this moment: what the tests of memory count."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from torch import Tensor


def living(shape: Sequence[int]) -> int:
    """The number of plain tensors of this shape. A nested tensor, which another test may have left, has no shape."""
    gc.collect()
    return sum(type(o) is Tensor and not o.is_nested and o.shape == tuple(shape) for o in gc.get_objects())
