"""Count the floating-point operations of convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

__all__ = ["flops_of"]


def flops_of(run: Callable[[], object]) -> float:
    """Count the operations of ``run`` by torch's counter, with our own formula for a convolution's backward pass."""
    with FlopCounterMode(display=False, custom_mapping=_OWN) as counter:
        run()
    return float(counter.get_total_flops())


def _convolution_backward(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, **unused: Any
) -> int:
    """Count a forward pass for each gradient that is asked for: it has the same products in other sums.

    torch 2.14's formula counts the weight gradient of a grouped convolution as if it were dense.
    """
    *_, transposed, _, _, wanted = rest
    return int(sum(wanted[:2])) * conv_flop_count([*x], [*weight], [*grad], transposed)


_OWN = {torch.ops.aten.convolution_backward: _convolution_backward}
