"""Under a GradScaler the Hessian is divided by the scale as the gradients are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.optim import SGDPH

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


def train(
    net: Any, optimizer: SGDPH, data: list[Any], scaler: Any, *, own_graph: bool = False, clip: bool = False
) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss = net.loss(batch) if scaler is None else scaler.scale(net.loss(batch))
        loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)
        if scaler is None:
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            optimizer.step()
            continue
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("probe", ["ones", "rademacher"])
def test_a_scaled_run_is_the_unscaled_one(
    small: Any, make_batches: Any, make_groups: Any, own_graph: bool, clip: bool, probe: Any
) -> None:
    """A power of 2 changes no digit, and it grows on the way."""
    nets, data = [small(), small()], make_batches(16)
    scaler = GradScaler("cpu", init_scale=2.0**14, growth_interval=5)
    for net, how in zip(nets, (None, scaler), strict=True):
        optimizer = SGDPH(make_groups(net), 0.05, probe=probe)
        train(net, optimizer, data, how, own_graph=own_graph, clip=clip)
    assert scaler.get_scale() == 2.0**17
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


def test_a_schedulers_wrapper_around_step_and_a_disabled_scaler_change_nothing(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets, data = [small(), small(), small()], make_batches(9)
    scalers = [None, GradScaler("cpu", enabled=False), GradScaler("cpu", init_scale=64.0)]
    for net, scaler in zip(nets, scalers, strict=True):
        optimizer = SGDPH(make_groups(net), 0.05)
        torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        train(net, optimizer, data, scaler)
    for net in nets[1:]:
        for p, q in zip(nets[0].parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


def test_where_an_inf_is_found_nothing_is_written(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets, data = [small(), small()], make_batches(8)
    scaler = GradScaler("cpu", init_scale=2.0**14)
    seen, spared = (SGDPH(make_groups(net), 0.05) for net in nets)
    train(nets[0], seen, data[:3], scaler)
    before = copy.deepcopy((nets[0].state_dict(), seen.state_dict()))
    seen.zero_grad()
    seen.backward(scaler.scale(nets[0].loss(data[3])))
    nets[0].linear.weight.grad[0, 0] = float("inf")
    scaler.step(seen)
    scaler.update()
    assert scaler.get_scale() == 2.0**13
    after = (nets[0].state_dict(), seen.state_dict())
    assert repr(after[1]["param_groups"]) == repr(before[1]["param_groups"])
    torch.testing.assert_close((after[0], after[1]["state"]), (before[0], before[1]["state"]), rtol=0, atol=0)
    train(nets[0], seen, data[3:], scaler)
    train(nets[1], spared, data, None)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


def test_micro_batches_under_a_scaler(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets, data = [small("group"), small("group")], make_batches(9, size=6)
    train(nets[0], SGDPH(make_groups(nets[0]), 0.05), data, None)
    optimizer, scaler = SGDPH(make_groups(nets[1]), 0.05), GradScaler("cpu", init_scale=2.0**10)
    for x, y in data:
        optimizer.zero_grad()
        for i in range(0, 6, 2):
            optimizer.backward(scaler.scale(nets[1].loss((x[i : i + 2], y[i : i + 2])) / 3))
        scaler.step(optimizer)
        scaler.update()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)
