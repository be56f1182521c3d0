"""What the oldest admitted versions of torch cannot do, for tests to be skipped there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["TORCH_TELLS", "differentiates_group_norm", "fake_gpus_compute"]

TORCH_TELLS = pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "unpack_hook"),
    reason="this torch does not tell that a saved value is unpacked by a function",
)


def differentiates_group_norm() -> bool:
    """Whether the gradient by the bias of a group norm without a weight can be had with a graph."""
    b = torch.zeros(2, requires_grad=True)
    try:
        torch.autograd.grad(F.group_norm(torch.rand(1, 2, 3), 2, None, b).sum(), b, create_graph=True)
    except RuntimeError:
        return False
    return True


def fake_gpus_compute() -> bool:
    """Whether fake tensors on a GPU that is not there take operations in place."""
    try:
        with FakeTensorMode():
            torch.zeros((), device="cuda").add_(1)
    except RuntimeError:  # it asks for a driver
        return False
    return True
