"""How this torchvision differentiates its own operations: from 0.27 on in Python, before in C++ that hides them."""

from __future__ import annotations

import torch
from torch.autograd.function import BackwardCFunction
from torchvision.ops import roi_align

__all__ = ["IN_PYTHON"]

_IMAGE = torch.zeros(1, 1, 2, 2, requires_grad=True)

IN_PYTHON = isinstance(roi_align(_IMAGE, [torch.zeros(1, 4)], 1).grad_fn, BackwardCFunction)
"""Whether there are rules for them; where not, they are refused by name."""
