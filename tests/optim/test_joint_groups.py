"""Groups that share all numbers move as one on the device; those that part ways move apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.batches import batches, gather
from sgdph_fx.optim.capture import captured_step
from sgdph_fx.optim.joint_groups import PLAIN, sharing
from sgdph_fx.optim.schedule import Schedule
from tests.optim.captured_loops import OnTape
from tests.optim.recording import FakeRecorder

SAME = {"lr": 0.1, "second_order_lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0, "maximize": False} | {
    "hessian_momentum": 0.9,
    "eps": 1e-4,
    "max_preconditioner": None,
    "probe": "ones",
    "negative_curvature": "absolute",
    "without_curvature": "gradient",
    "cycle_start": 0,
    "cycles_before": 0,
    "foreach": None,
    "order": 2,
}


def group(*params: object, **other: Any) -> dict[str, Any]:
    return {**SAME, "params": list(params), **other}


def test_groups_join_the_first_one_with_the_same_numbers() -> None:
    groups = [group("a", role="gain"), group("b", lr=0.2), group("c", "d", role="bias"), group("e", order=1)]
    assert sharing(groups) == (0, 1, 0, 3)
    assert sharing(groups, PLAIN) == (0, 1, 0, 0)


def test_parameters_move_with_those_that_step_alike() -> None:
    """Those that missed cycles move apart, and a group's last parameter joins the first-order ones."""
    a, b, c, d, e = (nn.Parameter(torch.ones(1)) for _ in range(5))
    e.grad = None
    for p in (a, b, c, d):
        p.grad = torch.ones(1)
    groups = [group(a, e), group(b, c, cycles_missed=[2, 0]), group(d, order=1), group(e, lr=0.2)]
    found = batches(gather(groups), {}, Schedule((a, e, b, c), c))
    assert [(one.number, one.missed, one.params) for one in found] == [
        (0, 0, [a]),
        (0, 2, [b]),
        (0, None, [c, d]),
    ]


def test_a_rate_on_a_device_is_shared_only_by_those_that_hold_the_very_tensor() -> None:
    far = torch.empty((), device="meta")
    assert sharing([group("a", lr=far), group("b", lr=far), group("c", lr=far.clone())]) == (0, 0, 2)
    near = torch.tensor(0.5)
    assert sharing([group("a", lr=near), group("b", lr=near.clone()), group("c", lr=0.5)]) == (0, 0, 0)


def parted(net: nn.Module, **numbers: Any) -> list[dict[str, Any]]:
    """Biases, scales, and weights in two groups."""
    named = list(enumerate(net.named_parameters()))
    kinds = {
        "bias": [(i, p) for i, (n, p) in named if n.endswith("bias")],
        "scale": [(i, p) for i, (n, p) in named if p.dim() == 1 and n.endswith("weight")],
        "kernel": [(i, p) for i, (n, p) in named if p.dim() == 4],
        "matrix": [(i, p) for i, (n, p) in named if p.dim() == 2],
    }
    return [
        {
            "params": [p for _, p in rows],
            "index": [i for i, _ in rows],
            "order": 1 + (kind in ("bias", "scale")),
        }
        | numbers.get(kind, {})
        for kind, rows in kinds.items()
    ]


def trained(
    net: Any, data: list[tuple[Tensor, Tensor]], capturable: bool, rates: Any, **numbers: Any
) -> list[Tensor]:
    optimizer = SGDPH(parted(net, **numbers), 0.05, weight_decay=0.02, capturable=capturable)
    scheduler = LambdaLR(optimizer, rates)
    for batch in data:
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        optimizer.step()
        scheduler.step()
    return [p.detach().clone() for p in net.parameters()]


APART = [lambda t: 0.9**t, lambda t: 0.9**t if t < 9 else 0.5, lambda t: 1.0, lambda t: 0.8**t]


@pytest.mark.parametrize("rates", [[lambda t: 0.95**t] * 4, APART], ids=["alike", "apart"])
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"bias": {"weight_decay": 0.0}, "matrix": {"momentum": 0.5}},
        {"scale": {"max_preconditioner": 0.3}},
    ],
    ids=["alike", "decay and momentum", "bounded"],
)
def test_the_device_moves_groups_as_the_host_moves_each_by_itself(
    small: Any, make_batches: Any, rates: Any, numbers: Any
) -> None:
    data = make_batches(18)
    by_host, by_device = (trained(small(), data, where, rates, **numbers) for where in (False, True))
    torch.testing.assert_close(by_device, by_host, rtol=1e-10, atol=1e-12)


def test_graphs_are_recorded_anew_once_rates_part(
    small: Any, make_batches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_step, "Recorder", FakeRecorder)
    data = make_batches(40)
    rates = [lambda t: 1.0, lambda t: 1.0 if t < 25 else 0.1, lambda t: 1.0, lambda t: 1.0]
    net = small()
    optimizer = SGDPH(parted(net), 0.05, weight_decay=0.02)
    scheduler = LambdaLR(optimizer, rates)
    step = OnTape(net, cross_entropy, optimizer)
    for x, y in data:
        step(x, y)
        scheduler.step()
    by_host = trained(small(), data, False, rates)
    torch.testing.assert_close([p.detach() for p in net.parameters()], by_host, rtol=1e-10, atol=1e-12)
