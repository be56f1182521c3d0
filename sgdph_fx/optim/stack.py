"""Many short tensors as one long one, so that they take one operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Stack"]


class Stack:
    """Short tensors one after another.

    Args:
        tensors: Of one dtype and device and of any shapes; they stay where they are.

    Attributes:
        flat: A copy of all their numbers, ``(N,)``.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self.flat = torch.cat([t.reshape(-1) for t in self._tensors])

    def write(self, numbers: Tensor, allowed: Tensor | None) -> None:
        """Put other numbers, ``(N,)``, into the tensors: if ``allowed``, one bool on the device; None for yes."""
        chosen = numbers if allowed is None else torch.where(allowed, numbers, self.flat)
        parts = torch.split(chosen, [t.numel() for t in self._tensors])
        places = [part.view(t.shape) for part, t in zip(parts, self._tensors, strict=True)]
        torch._foreach_copy_(self._tensors, places)
