"""With no second-order group, SGDPH is torch's SGD to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.optim import SGDPH


def train(
    net: nn.Module, optimizer: torch.optim.Optimizer, data: list[Any], scheduler: Any = None
) -> list[Tensor]:
    for x, y in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        if isinstance(optimizer, SGDPH):
            optimizer.backward(loss)
        else:
            torch.autograd.backward(loss)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("maximize", [False, True])
def test_twenty_steps_are_those_of_torch(
    small: Any, make_batches: Any, foreach: bool | None, momentum: float, decay: float, maximize: bool
) -> None:
    hyper: dict[str, Any] = {
        "momentum": momentum,
        "weight_decay": decay,
        "foreach": foreach,
        "maximize": maximize,
    }
    data = [(x.float(), y) for x, y in make_batches(20)]
    ours, theirs = small().float(), small().float()
    found = train(ours, SGDPH(ours.parameters(), 0.05, **hyper), data)
    expected = train(theirs, torch.optim.SGD(theirs.parameters(), 0.05, **hyper), data)
    assert all(torch.equal(p, q) for p, q in zip(found, expected, strict=True))


def test_the_saved_momentum_is_the_one_that_torch_saves(small: Any, make_batches: Any) -> None:
    ours, theirs = small(), small()
    a, b = SGDPH(ours.parameters(), 0.05), torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9)
    data = make_batches(3)
    train(ours, a, data)
    train(theirs, b, data)
    found, expected = a.state_dict()["state"], b.state_dict()["state"]
    assert found.keys() == expected.keys()
    for key in expected:
        assert found[key].keys() == {"momentum_buffer"}
        assert torch.equal(found[key]["momentum_buffer"], expected[key]["momentum_buffer"])


@pytest.mark.parametrize("tensor", [False, True])
def test_a_scheduler_turns_lr_as_it_does_for_torch(small: Any, make_batches: Any, tensor: bool) -> None:
    lrs: list[Any] = [torch.tensor(0.05), torch.tensor(0.05)] if tensor else [0.05, 0.05]
    data = make_batches(12)
    ours, theirs = small(), small()
    a, b = SGDPH(ours.parameters(), lrs[0]), torch.optim.SGD(theirs.parameters(), lrs[1], momentum=0.9)
    found = train(ours, a, data, torch.optim.lr_scheduler.StepLR(a, 4, 0.1))
    expected = train(theirs, b, data, torch.optim.lr_scheduler.StepLR(b, 4, 0.1))
    assert all(torch.equal(p, q) for p, q in zip(found, expected, strict=True))
    assert float(a.param_groups[0]["lr"]) == pytest.approx(5e-5)


def test_a_parameter_without_gradient_is_left_alone(small: Any, make_batches: Any) -> None:
    net = small()
    net.conv2.weight.requires_grad_(False)
    before = net.conv2.weight.clone()
    optimizer = SGDPH(net.parameters(), 0.05, weight_decay=0.1)
    train(net, optimizer, make_batches(3))
    assert torch.equal(net.conv2.weight, before)
    assert net.conv2.weight not in optimizer.state
