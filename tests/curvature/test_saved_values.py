"""Saved values that a function unpacks: each reading runs a part of the model again, so none is read to look."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.torch_versions import TORCH_TELLS

pytestmark = pytest.mark.usefixtures("one_thread")


@TORCH_TELLS
def test_a_checkpointed_part_is_not_run_again_to_find_out_that_it_is_one() -> None:
    """By hand it runs in the forward pass and for two derivatives; another run is for the gradients."""
    part = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    x, due = torch.randn(5, 2, dtype=torch.float64), part[1].weight
    counts = []
    for _ in range(2):  # the first may test the product
        loss = checkpoint(part, x, use_reentrant=False).pow(3).sum()
        product = backward_with_product(loss, due, torch.ones_like(due))
        counts.append(part[1].num_batches_tracked.item())
        (gradient,) = torch.autograd.grad(part(x).pow(3).sum(), due, create_graph=True)
        counts.append(part[1].num_batches_tracked.item())
        torch.testing.assert_close(product, torch.autograd.grad(gradient.sum(), due)[0])
    assert counts[2] - counts[1] <= 4
