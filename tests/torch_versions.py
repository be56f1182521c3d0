"""What the oldest admitted versions of torch cannot do, for tests to be skipped there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["TELLS", "TORCH_TELLS", "differentiates_group_norm", "fake_gpus_compute"]

TELLS = hasattr(torch._C._autograd.SavedTensor, "unpack_hook")
"""Whether torch tells that a saved value is unpacked by a function, as those in checkpoints are."""
TORCH_TELLS = pytest.mark.skipif(not TELLS, reason="this torch does not tell how a saved value is unpacked")


def differentiates_group_norm() -> bool:
    """Whether the gradient by the bias of a group norm without a weight can be had with a graph."""
    b = torch.zeros(2, requires_grad=True)
    try:
        torch.autograd.grad(F.group_norm(torch.rand(1, 2, 3), 2, None, b).sum(), b, create_graph=True)
    except RuntimeError:
        return False
    return True


def fake_gpus_compute() -> bool:
    """Whether fake tensors on a GPU that is not there are read by an index and written."""
    try:
        with FakeTensorMode():
            torch.zeros(2, device="cuda")[0].copy_(torch.zeros((), device="cuda"))
    except RuntimeError:  # it asks for a driver
        return False
    return True
