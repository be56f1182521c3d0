"""What torch's training tools expect of any optimizer: schedulers, hooks, clipping, layouts, devices, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from sgdph_fx.optim import SGDPH

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.1),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=14),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4, cycle_momentum=True),
    "cosine": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 8)],
        milestones=[4],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_turn_every_group_as_they_turn_sgds(
    small: Any, make_batches: Any, make_groups: Any, name: str
) -> None:
    net = small()
    ours = SGDPH(make_groups(net), 0.05)
    theirs = torch.optim.SGD(small().parameters(), 0.05, momentum=0.9)
    schedulers = [SCHEDULERS[name](optimizer) for optimizer in (ours, theirs)]
    for batch in make_batches(12):
        ours.zero_grad()
        ours.backward(net.loss(batch))
        ours.step()
        theirs.step()
        for scheduler in schedulers:
            scheduler.step()
        (expected,) = theirs.param_groups
        for group in ours.param_groups:
            assert (group["lr"], group["momentum"]) == (expected["lr"], expected["momentum"])


def test_a_plateau_is_seen(small: Any, make_groups: Any) -> None:
    optimizer = SGDPH(make_groups(small()), 0.05)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    for _ in range(4):
        scheduler.step(1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.025}


def test_hooks_run_before_and_after_each_step(small: Any, make_batches: Any, make_groups: Any) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    seen: list[int] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["step"]))  # type: ignore[func-returns-value]
    optimizer.register_step_post_hook(lambda o, *_: seen.append(o.param_groups[0]["step"]))  # type: ignore[func-returns-value]
    for batch in make_batches(2):
        optimizer.backward(net.loss(batch))
        optimizer.step()
    assert seen == [0, 1, 1, 2]


@pytest.mark.parametrize("norm", [0.5, 1e9])
def test_a_clipped_gradient_leaves_the_hessian_alone(norm: float) -> None:
    """L = 50 p²: g = 100, clipped to 0.5 or not at all; M^H = 0.1 · 100 either way."""
    p, last = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.zeros(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 1.0, second_order_lr=0.1, eps=1.0)
    optimizer.backward((50 * p**2).sum())
    nn.utils.clip_grad_norm_([p], norm)
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(10)
    # τ_SO (1 - α) g / (M^H + ε), n = 1.
    assert 1 - p.item() == pytest.approx(0.1 * 0.1 * min(norm, 100) / 11, rel=1e-5)


def strided(value: Tensor) -> Tensor:
    """The same numbers with gaps between them in memory."""
    return torch.stack([value, value], -1)[..., 0]


@pytest.mark.parametrize("foreach", [False, True])
def test_parameters_need_not_be_contiguous(
    small: Any, make_batches: Any, make_groups: Any, foreach: bool
) -> None:
    nets = [small(), small()]
    for module in nets[1].modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(strided(p.detach())))
    assert not nets[1].norm1.weight.is_contiguous()
    for net in nets:
        optimizer = SGDPH(make_groups(net), 0.05, foreach=foreach)
        for batch in make_batches(9):
            optimizer.zero_grad()
            optimizer.backward(net.loss(batch))
            optimizer.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("foreach", [False, True, None])
def test_one_group_may_span_devices(order: int, foreach: bool | None) -> None:
    """The meta device has no numbers, but all the rules of a device of its own."""
    p, last = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.zeros(1))
    far = nn.Parameter(torch.ones(3, device="meta"))
    optimizer = SGDPH([{"params": [p, far, last], "order": order}], 0.5, eps=1.0, foreach=foreach)
    optimizer.backward((p**2).sum())
    far.grad = torch.ones(3, device="meta")
    optimizer.step()
    assert {t.device.type for t in optimizer.state[far].values()} == {"meta"}
    # g = 4; M^H = 0.1 · 2.
    step = 4.0 if order == 1 else 1e-3 * 0.1 * 4 / 1.2
    assert 2 - p.item() == pytest.approx(0.5 * step, rel=1e-3)


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
def test_autocast_to_bfloat16_finds_the_same_hessians(
    small: Any, make_batches: Any, make_groups: Any, own_graph: bool
) -> None:
    """bfloat16 keeps 8 bits; of the smallest Hessian here, 1e-5, torch's own formulas lose a tenth."""
    found = []
    for enabled in (True, False):
        net = small().float()
        optimizer = SGDPH(make_groups(net), 0.0)
        for x, y in [(x.float(), y) for x, y in make_batches(7, size=64)]:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = net.loss((x, y))
            loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)
            optimizer.step()
        found.append({n: optimizer.state[p].get("hessian_average") for n, p in net.named_parameters()})
    for name, expected in found[1].items():
        # Batch norm absorbs the biases before it: there the Hessian is rounding noise alone.
        if expected is not None and name not in ("conv1.bias", "conv2.bias"):
            assert expected.norm() > 1e-5
            assert (found[0][name] - expected).norm() < 0.2 * expected.norm(), name
