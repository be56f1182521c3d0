"""What surrounds captured steps: hooks, copies, scalers, groups that join, errors on the way."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_post_hook

from sgdph_fx import SGDPH, CapturedStep
from tests.optim.captured_loops import KINDS, Noisy, OnTape, made, pieces

pytestmark = pytest.mark.usefixtures("fake_graphs")


def test_hooks_after_the_step_are_called_once_for_each_with_weights_moved() -> None:
    for kind in KINDS:
        net, optimizer, step = made(kind)
        seen: list[Tensor] = []

        def look(*_: Any, net: Any = net, seen: list[Tensor] = seen) -> None:
            seen.append(net.linear.weight.detach().clone())

        optimizer.register_step_post_hook(look)
        handle = register_optimizer_step_post_hook(look)
        for x, y in pieces(20):
            step(x, y)
        handle.remove()
        assert len(seen) == 40
        assert torch.equal(seen[-1], net.linear.weight)
        assert not torch.equal(seen[-1], seen[-3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_that_no_group_holds_is_told_as_backward_tells_it(kind: type[CapturedStep]) -> None:
    """The first batch alone is looked at: its steps are all alike."""
    net = Noisy()
    groups = [{"params": [p for n, p in net.named_parameters() if n != "linear.weight"], "order": 1}]
    step = kind(net, cross_entropy, SGDPH(groups, 0.1))
    first, *others = pieces(4)
    with pytest.warns(
        RuntimeWarning, match=r"no optimizer holds, so they are never stepped: 'linear\.weight'"
    ):
        step(*first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, y in others:
            step(x, y)


def test_copies_and_what_a_file_holds_go_on_with_the_same_bits() -> None:
    data = pieces(30)
    for kind in KINDS:
        net, _, step = made(kind, net=Noisy().eval())  # without dropout, which would draw for each in turn
        for x, y in data[:15]:
            step(x, y)
        copied = copy.deepcopy(step)
        read = pickle.loads(pickle.dumps(step)) if kind is CapturedStep else copied
        for some in {id(s): s for s in (step, copied, read)}.values():
            for x, y in data[15:]:
                some(x, y)
        for other in (copied, read):
            assert all(
                torch.equal(p, q) for p, q in zip(net.parameters(), other._model.parameters(), strict=True)
            )
            assert {id(p) for g in other._optimizer.param_groups for p in g["params"]} == set(
                map(id, other._model.parameters())
            )


@pytest.mark.filterwarnings("ignore:'weight_decay' changes at every step:RuntimeWarning")
def test_graphs_come_back_when_what_changed_at_every_step_has_settled() -> None:
    _, optimizer, step = made(OnTape)
    for number, (x, y) in enumerate(pieces(60)):
        for group in optimizer.param_groups:
            group["weight_decay"] = min(number, 8) / 100
        step(x, y)
        assert step.graphs == 0 or number >= 40
    assert step.graphs == 4


def test_a_step_that_fails_under_a_scaler_can_be_taken_again() -> None:
    calls: list[int] = []

    def fails_once() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("an error of the caller's own")

    _, optimizer, step = made(CapturedStep, scaler=GradScaler("cpu"), before_step=fails_once)
    data = pieces(6)
    for x, y in data[:2]:
        step(x, y)
    with pytest.raises(KeyError):
        step(*data[2])
    for x, y in data[2:]:
        step(x, y)
    assert optimizer.statistics()["step"] == 6


def test_a_scalers_settings_are_followed() -> None:
    """From 4 it doubles at every third good step, 3, 6, ... 15; then at every second, 17, 19, ... 29."""
    for kind in KINDS:
        scaler = GradScaler("cpu", init_scale=4.0, growth_interval=3)
        _, _, step = made(kind, scaler=scaler)
        for number, (x, y) in enumerate(pieces(30), start=1):
            step(x, y)
            if number == 15:
                scaler.set_growth_interval(2)
        assert scaler.get_scale() == 2.0 ** (2 + 5 + 7)


@pytest.mark.filterwarnings("ignore:The loss:RuntimeWarning")
def test_a_group_that_joins_keeps_what_the_device_has_counted() -> None:
    for kind in KINDS:
        more = nn.Parameter(torch.zeros(3))
        net, optimizer, step = made(kind, lambda out, y, more=more: cross_entropy(out + more, y))
        for number, (x, y) in enumerate(pieces(20)):
            if number == 12:
                optimizer.add_param_group({"params": [more], "order": 1})
            step(x * float("nan") if number == 9 else x, y)
            if number == 9:
                net.norm.reset_running_stats()
                more.grad = None
        assert (optimizer.steps_skipped, optimizer.statistics()["step"]) == (1, 20)
        assert bool(more.abs().min() > 0)


def test_products_that_torch_took_are_counted_at_each_replay() -> None:
    """The sweep gives up at complex numbers. Three of four turns have a product: the last parameter is first-order."""

    def complex_loss(out: Tensor, y: Tensor) -> Tensor:
        return torch.complex(out, out * out).abs().pow(3).mean() + cross_entropy(out, y)

    counted = []
    for kind in KINDS:
        net, optimizer, step = made(kind, complex_loss)
        for x, y in pieces(40):
            step(x, y)
        counted.append(optimizer.products_given_up)
    turns = sum(p.dim() == 1 for p in net.parameters())
    assert counted == [40 - 40 // turns] * 2
