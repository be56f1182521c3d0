"""The 2×2 blocks of scale and shift, against numbers worked out by hand and against torch.func."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from experiments.hessian.affine_blocks import affine_modules, joint_hessian, measure_block


def test_shares_of_a_matrix_by_hand() -> None:
    """Two channels: γ₁, γ₂, β₁, β₂."""
    block = torch.tensor(
        [[4.0, 1.0, 2.0, 0.0], [1.0, 4.0, 0.0, 2.0], [2.0, 0.0, 4.0, 0.0], [0.0, 2.0, 0.0, 4.0]],
        dtype=torch.float64,
    )
    found = measure_block("n", block, torch.ones(4, dtype=torch.float64))
    # The diagonal has norm 8. Four entries of 2 lie inside the 2×2 blocks, two of 1 outside.
    assert found.coupling == pytest.approx(4 / 8)
    assert found.missed_by_diagonal == pytest.approx(sqrt(18) / 8)
    assert found.missed_by_blocks == pytest.approx(sqrt(2) / 8)
    assert found.probe_noise == pytest.approx(0)


def test_a_step_by_the_blocks_is_newtons_where_the_hessian_has_nothing_else() -> None:
    """It is, up to a damping of a tenth of the diagonal's mean. The diagonal's step misses the coupling."""
    block = torch.tensor([[2.0, 1.9], [1.9, 2.0]], dtype=torch.float64)
    gradient = torch.tensor([1.0, 0.2], dtype=torch.float64)
    damped = torch.linalg.solve(block + 0.2 * torch.eye(2), gradient)
    best = [(gradient @ d) ** 2 / (d @ block @ d) for d in (damped, gradient)]
    assert measure_block("n", block, gradient).step_ratio == pytest.approx(float(best[0] / best[1]))
    assert measure_block("n", -block, gradient).step_ratio is None


def test_the_noise_is_the_error_of_a_rademacher_pair() -> None:
    torch.manual_seed(0)
    block = torch.randn(8, 8, dtype=torch.float64)
    block = block + block.T
    signs = torch.randint(0, 2, (20_000, 4), dtype=torch.float64) * 2 - 1
    estimates = signs * (signs @ block[:4, 4:])
    crossing = block[:4, 4:].diag()
    error = (estimates - crossing).square().sum(1).mean().sqrt() / crossing.norm()
    assert measure_block("n", block, torch.ones(8, dtype=torch.float64)).probe_noise == pytest.approx(
        error.item(), rel=0.03
    )


def test_the_joint_block_is_torch_funcs_and_scaling_both_gives_minus_the_gradient() -> None:
    """γ and β feed ReLU, a convolution and another batch norm: scaling both does not change the loss."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=1e-30, track_running_stats=False), nn.ReLU(),
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-30, track_running_stats=False), nn.Flatten(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    x, y = torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    nn.init.normal_(net[1].bias)
    names = [name for name, _, _ in affine_modules(net)]
    _, scale, shift = next(affine_modules(net))
    gradients = torch.autograd.grad(cross_entropy(net(x), y), (scale, shift), create_graph=True)
    found = joint_hessian(gradients, scale, shift)

    def loss_of(both: Tensor) -> Tensor:
        own = {"1.weight": both[:3], "1.bias": both[3:]}
        return cross_entropy(functional_call(net, own, (x,)), y)

    both = torch.cat([scale, shift]).detach()
    torch.testing.assert_close(found, hessian(loss_of)(both), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found @ both, -torch.cat(gradients).detach(), rtol=1e-9, atol=1e-12)
    assert names == ["1", "4"]
