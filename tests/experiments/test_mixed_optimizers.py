"""Optimizers for part of the parameters each, against torch's own on those parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from experiments.networks import build
from experiments.training.methods import METHODS
from experiments.training.mixed_optimizers import MatrixMuon, split_matrices
from sgdph_fx import prepare


def _gradients(shapes: list[torch.Size], steps: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(steps)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_on_a_convolution_is_torchs_on_the_matrix_of_its_filters(
    memory_format: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=memory_format))
    matrix = nn.Parameter(weight.detach().flatten(1).clone())
    ours = MatrixMuon([weight], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for (gradient,) in _gradients([weight.shape], 4):
        ours.zero_grad()
        weight.grad = gradient.to(memory_format=memory_format)
        matrix.grad = gradient.flatten(1)
        ours.step()
        theirs.step()  # type: ignore[no-untyped-call]
    # Muon computes in bfloat16, so another order of columns changes the rounding.
    torch.testing.assert_close(weight.detach().flatten(1), matrix.detach(), rtol=0, atol=3e-3)


def test_muon_refuses_a_weight_that_it_would_have_to_copy() -> None:
    weight = nn.Parameter(torch.randn(3, 4, 5, 6).permute(3, 1, 0, 2))
    with pytest.raises(ValueError, match="cannot be seen as a matrix"):
        MatrixMuon([weight], lr=0.1, weight_decay=0.0)


def test_matrices_are_the_weights_of_hidden_layers() -> None:
    net = build("resnet18", width=2)
    matrices, others = split_matrices(net)
    names = {id(p): name for name, p in net.named_parameters()}
    # A stem, 16 convolutions in blocks, three shortcuts.
    assert len(matrices) == 20
    assert all(p.dim() == 4 for p in matrices)
    assert {"classifier.weight", "classifier.bias"} <= {names[id(p)] for p in others}
    assert len(matrices) + len(others) == len(names)


def _step_by_hand(
    net: nn.Module, step: int, momenta: dict[str, Any], grads: dict[str, torch.Tensor], orders: dict[str, int]
) -> None:
    """SGD with momentum 0.9 for order 1; Adam's step with the decay −τ η W for order 2."""
    lr, decay, adam_lr = 0.05, 0.01, 0.002
    for name, p in net.named_parameters():
        g = grads[name]
        if orders[name] == 1:
            g = g + decay * p.detach()
            momenta[name] = 0.9 * momenta[name] + g if name in momenta else g
            p.data -= lr * momenta[name]
        else:
            m, v = momenta.get(name, (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            momenta[name] = m, v
            p.data -= lr * decay * p.data
            p.data -= adam_lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)


def test_adam_takes_the_second_order_parameters_with_sgd_phs_decay() -> None:
    net = build("vgg11", width=8).double()
    example = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    setup = METHODS["adam-channelwise"](net, example, 0.05, 0.01, channelwise_lr=0.002)
    by_hand = prepare(net, example)
    orders = {name: group["order"] for group in by_hand.param_groups for name in group["param_names"]}
    momenta: dict[str, Any] = {}
    for step in (1, 2, 3):
        setup.optimizer.zero_grad()
        grads = {}
        generator = torch.Generator().manual_seed(step)
        for name, p in setup.model.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            grads[name] = p.grad
        setup.optimizer.step()
        _step_by_hand(by_hand.model, step, momenta, grads, orders)
    for (name, ours), (_, hand) in zip(
        setup.model.named_parameters(), by_hand.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(ours, hand, rtol=1e-9, atol=1e-12, msg=name)


def test_adamw_gives_the_channel_wise_parameters_a_rate_of_their_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).double()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    rates = {"adamw_lr": 1e-3, "channelwise_lr": 1e-2}
    setup = METHODS["muon-adamw-split"](net, torch.randn(2, 3, 4, 4, dtype=torch.float64), 0.02, 0.0, **rates)
    for p in setup.model.parameters():
        p.grad = torch.full_like(p, 3.0)
    setup.optimizer.step()
    moved = {name: before[name] - p.detach() for name, p in setup.model.named_parameters()}
    # At its first step AdamW moves every number by its rate. Muon keeps the one singular vector of equal numbers.
    for name, rate in {
        "3.weight": 1e-3,
        "3.bias": 1e-2,
        "1.weight": 1e-2,
        "1.bias": 1e-2,
        "0.bias": 1e-2,
    }.items():
        torch.testing.assert_close(moved[name], torch.full_like(moved[name], rate), rtol=1e-6, atol=0)
    assert moved["0.weight"].std() < 1e-9 < moved["0.weight"].abs().max()


@pytest.mark.parametrize("method", ["muon-ph", "muon-adamw-split"])
def test_linear_layers_may_stay_as_they_are(method: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2))
    setup = METHODS[method](net, torch.randn(2, 3, 4, 4), 0.02, 0.0, linears="keep")
    names = {name for name, _ in setup.model.named_parameters()}
    assert {"0.direction", "2.weight", "3.weight"} < names
    assert "2.direction" not in names
