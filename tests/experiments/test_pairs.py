"""The 2×2 blocks of scale and shift, by hand and against torch.func."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from experiments.pairs import affine_pairs, joint_block, pair_of


def test_shares_of_a_matrix_by_hand() -> None:
    """Two channels: γ₁, γ₂, β₁, β₂."""
    block = torch.tensor(
        [[4.0, 1.0, 2.0, 0.0], [1.0, 4.0, 0.0, 2.0], [2.0, 0.0, 4.0, 0.0], [0.0, 2.0, 0.0, 4.0]],
        dtype=torch.float64,
    )
    found = pair_of("n", block, torch.ones(4, dtype=torch.float64))
    # The diagonal has norm 8. Four entries of 2 lie inside the 2×2 blocks, two of 1 outside.
    assert found.coupling == pytest.approx(4 / 8)
    assert found.missed == pytest.approx(sqrt(18) / 8)
    assert found.left == pytest.approx(sqrt(2) / 8)
    assert found.noise == pytest.approx(0)


def test_steps_by_the_blocks_are_newtons_where_the_hessian_is_nothing_but_blocks() -> None:
    """Up to the damping, which is a tenth of the diagonal's mean; the diagonal's step misses the coupling."""
    block = torch.tensor([[2.0, 1.9], [1.9, 2.0]], dtype=torch.float64)
    gradient = torch.tensor([1.0, 0.2], dtype=torch.float64)
    damped = torch.linalg.solve(block + 0.2 * torch.eye(2), gradient)
    best = [(gradient @ d) ** 2 / (d @ block @ d) for d in (damped, gradient)]
    assert pair_of("n", block, gradient).gain == pytest.approx(float(best[0] / best[1]))
    assert pair_of("n", -block, gradient).gain is None


def test_the_noise_is_the_error_of_a_rademacher_pair() -> None:
    torch.manual_seed(0)
    block = torch.randn(8, 8, dtype=torch.float64)
    block = block + block.T
    signs = torch.randint(0, 2, (20_000, 4), dtype=torch.float64) * 2 - 1
    estimates = signs * (signs @ block[:4, 4:])
    crossing = block[:4, 4:].diag()
    error = (estimates - crossing).square().sum(1).mean().sqrt() / crossing.norm()
    assert pair_of("n", block, torch.ones(8, dtype=torch.float64)).noise == pytest.approx(
        error.item(), rel=0.03
    )


def test_the_joint_block_is_torch_funcs_and_scaling_both_gives_minus_the_gradient() -> None:
    """γ and β feed ReLU, a convolution and another batch norm: the loss stands still when both are scaled."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=1e-30, track_running_stats=False), nn.ReLU(),
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-30, track_running_stats=False), nn.Flatten(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    x, y = torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    nn.init.normal_(net[1].bias)
    names = [name for name, _, _ in affine_pairs(net)]
    _, scale, shift = next(affine_pairs(net))
    gradients = torch.autograd.grad(cross_entropy(net(x), y), (scale, shift), create_graph=True)
    found = joint_block(gradients, scale, shift)

    def loss_of(both: Tensor) -> Tensor:
        own = {"1.weight": both[:3], "1.bias": both[3:]}
        return cross_entropy(functional_call(net, own, (x,)), y)

    both = torch.cat([scale, shift]).detach()
    torch.testing.assert_close(found, hessian(loss_of)(both), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found @ both, -torch.cat(gradients).detach(), rtol=1e-9, atol=1e-12)
    assert names == ["1", "4"]
