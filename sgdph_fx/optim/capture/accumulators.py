"""Where autograd adds up a parameter's gradient: a node that remembers the stream on which it was made."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["renew_accumulators"]


def renew_accumulators(params: Iterable[Tensor]) -> None:
    """Let the next forward pass make these nodes anew, on its own stream.

    As long as somebody holds a loss, its graph holds these nodes, and later passes use them too. A recording that
    comes upon the stream of an older pass fails. Torch lets a node go where the parameter's memory is of another dtype.

    Args:
        params: Leaves; their numbers stay where they are, with gradients, hooks and counts of writes.
    """
    for parameter in params:
        if type(parameter) in (Tensor, nn.Parameter) and parameter.requires_grad:
            memory = parameter.data
            other = torch.float32 if parameter.dtype != torch.float32 else torch.float64
            try:
                parameter.data = torch.empty(0, dtype=other, device=parameter.device)
            finally:
                parameter.data = memory
