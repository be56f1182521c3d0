"""What a product holds in memory: no tangent longer than the backward pass needs it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.curvature.forward_over_reverse.living_tensors import living

SHAPE = (5, 7, 11)


def test_a_tangent_goes_when_the_backward_pass_is_done_with_its_operation() -> None:
    depth, others = 6, living(SHAPE)
    p = torch.ones(11, dtype=torch.float64, requires_grad=True)
    y = torch.rand(SHAPE, dtype=torch.float64) * p
    alive: list[int] = []
    for _ in range(depth):
        y = y.tanh()
        y.grad_fn.register_prehook(lambda g: alive.append(living(SHAPE) - others))
    loss = y.sum()
    del y
    assert backward_with_product(loss, p, torch.ones_like(p)) is not None
    # Each tanh keeps the tangent of its input, in whose memory its result is, and lets go of it.
    assert len(alive) == depth
    assert all(before - after >= 1 for before, after in pairwise(alive[1:]))
    assert alive[0] <= depth + 2


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_a_shape_are_not_counted_and_do_no_harm() -> None:
    others = living((2,))
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    assert living((2,)) == others
    del nested
