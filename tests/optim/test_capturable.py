"""capturable=True: the device decides, counts and steps, and the host reads nothing."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.errors import CaptureError, OptimizerError
from sgdph_fx.optim import SGDPH


class NoReads(TorchDispatchMode):
    """Any number that the host reads is an error."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in func.name() for name in self.FORBIDDEN), func.name()
        return func(*args, **(kwargs or {}))


def train(
    net: Any, optimizer: SGDPH, data: list[Any], *, watched: bool = False, scheduler: Any = None
) -> list[Tensor]:
    for number, batch in enumerate(data):
        optimizer.zero_grad()
        loss = net.loss(batch)
        if watched and number > 1:
            with NoReads():
                optimizer.backward(loss)
                optimizer.step()
        else:
            optimizer.backward(loss)
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [p.detach().clone() for p in net.parameters()]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"variant": "paper"},
    "decay": {"weight_decay": 0.02},
    "bounded": {"max_preconditioner": 0.5, "weight_decay": 0.01},
    "no momentum": {"momentum": 0.0},
    "maximize": {"maximize": True, "lr": 0.001},
    "signs": {"probe": "rademacher", "seed": 3},
    "exact": {"probe": "exact"},
    "gradient": {"probe": "gradient"},
    "interval": {"hessian_interval": 3},
    "rate on the device": {"lr": torch.tensor(0.05, dtype=torch.float64)},
}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_steps_are_those_of_the_host(
    small: Any, make_batches: Any, make_groups: Any, name: str, double: bool
) -> None:
    """In single precision the fused kernel moves first-order parameters."""
    options = {"lr": 0.05, **OPTIONS[name]}
    dtype = torch.float64 if double else torch.float32
    nets = [small().to(dtype), small().to(dtype)]
    data = [(x.to(dtype), y) for x, y in make_batches(20)]
    found = [
        train(net, SGDPH(make_groups(net), capturable=capturable, **options), data)
        for net, capturable in zip(nets, (False, True), strict=True)
    ]
    torch.testing.assert_close(
        found[1], found[0], rtol=1e-10 if double else 1e-3, atol=1e-12 if double else 1e-5
    )


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("probe", ["ones", "exact", "gradient"])
def test_the_host_reads_nothing(
    small: Any, make_batches: Any, make_groups: Any, variant: Any, probe: Any
) -> None:
    net = small().float()
    optimizer = SGDPH(
        make_groups(net), 0.05, variant=variant, probe=probe, capturable=True, weight_decay=0.01
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    train(net, optimizer, [(x.float(), y) for x, y in make_batches(16)], watched=True, scheduler=scheduler)
    assert optimizer.statistics()["step"] == 16


def test_the_watch_sees_a_read() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReads():
        torch.ones(1).item()


@pytest.mark.parametrize("scheduler", ["ExponentialLR", "CosineAnnealingLR", "OneCycleLR"])
def test_schedulers_work_with_rates_of_both_kinds(
    small: Any, make_batches: Any, make_groups: Any, scheduler: str
) -> None:
    how = {
        "ExponentialLR": (0.8,),
        "CosineAnnealingLR": (10,),
        "OneCycleLR": (0.1, 14),
    }[scheduler]
    found = []
    for capturable, lr in ((False, 0.05), (True, 0.05), (True, torch.tensor(0.05, dtype=torch.float64))):
        net = small()
        optimizer = SGDPH(make_groups(net), lr, capturable=capturable)
        turns = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, *how)
        found.append(train(net, optimizer, make_batches(12), scheduler=turns))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=1e-9)


def poisoned(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0] * float("nan"), batch[1]


def take_spoiled_step(net: Any, optimizer: SGDPH, batch: tuple[Tensor, Tensor], where: str) -> None:
    """Take a step whose loss, or one gradient of it, is not finite; nothing is told of it yet."""
    optimizer.zero_grad()
    optimizer.backward(net.loss(poisoned(batch) if where == "loss" else batch))
    if where == "gradient":
        net.linear.weight.grad[0, 0] = float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("double", [True, False])
def test_a_step_that_is_skipped_writes_nothing_and_uses_its_turn_up(
    small: Any, make_batches: Any, make_groups: Any, where: str, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    net = small().to(dtype)
    data = [(x.to(dtype), y) for x, y in make_batches(5)]
    optimizer = SGDPH(make_groups(net), 0.05, capturable=True, weight_decay=0.1)
    train(net, optimizer, data[:3])
    due = optimizer.due_name
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()["state"]))
    take_spoiled_step(net, optimizer, data[3], where)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[0][key]), key
    with pytest.warns(RuntimeWarning, match="this step has been skipped"):
        assert optimizer.steps_skipped == 1
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1], rtol=0, atol=0)
    assert optimizer.statistics()["step"] == 4
    assert optimizer.due_name != due
    assert optimizer.refreshes_skipped == 0


def test_a_hessian_that_is_not_finite_is_left_out_and_counted() -> None:
    """|p|^(3/2) has the gradient 0 at 0, and no second derivative there."""
    p, last = nn.Parameter(torch.tensor([4.0, 0.0])), nn.Parameter(torch.tensor([1.0]))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.5, momentum=0.0, capturable=True)
    optimizer.backward(p.abs().pow(1.5).sum() + (last**2).sum())
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].tolist() == [0.0, 0.0]
    assert last.item() == 0.0
    torch.testing.assert_close(p.detach(), torch.tensor([4 - 0.5 * 3, 0.0]), rtol=1e-5, atol=0)
    with pytest.warns(RuntimeWarning, match="Hessian that was due is not finite"):
        assert (optimizer.refreshes_skipped, optimizer.steps_skipped) == (1, 0)


@pytest.mark.parametrize("stop", [1, 4, 9])
@pytest.mark.parametrize("to", [True, False])
def test_a_run_resumes_with_the_same_bits_and_on_the_hosts_way_too(
    small: Any, make_batches: Any, make_groups: Any, stop: int, to: bool
) -> None:
    data = make_batches(16)
    whole = small()
    train(whole, SGDPH(make_groups(whole), 0.05, capturable=True), data)
    before, after = small(), small(seed=4)
    optimizer = SGDPH(make_groups(before), 0.05, capturable=True)
    train(before, optimizer, data[:stop])
    file = io.BytesIO()
    torch.save((before.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    after.load_state_dict(states[0])
    resumed = SGDPH(make_groups(after), 9.9, capturable=to)
    resumed.load_state_dict(states[1])
    assert resumed.param_groups[0]["capturable"] is to
    train(after, resumed, data[stop:])
    for p, q in zip(whole.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0 if to else 1e-10, atol=0 if to else 1e-12)


def test_host_and_device_take_turns_in_counting(small: Any, make_batches: Any, make_groups: Any) -> None:
    found = []
    for changes in (False, True):
        net = small()
        optimizer = SGDPH(make_groups(net), 0.05)
        for number, batch in enumerate(make_batches(16)):
            for group in optimizer.param_groups:
                group["capturable"] = changes and number // 3 % 2 == 1
            optimizer.zero_grad()
            optimizer.backward(net.loss(batch))
            optimizer.step()
        assert optimizer.statistics()["step"] == 16
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_several_devices_are_refused() -> None:
    p, far = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1, device="meta"))
    optimizer = SGDPH([{"params": [p, far], "order": 1}], 0.1, capturable=True)
    optimizer.backward((p**2).sum())
    far.grad = torch.ones(1, device="meta")
    with pytest.raises(OptimizerError, match="on one device; this step has 2 devices"):
        optimizer.step()
    assert p.item() == 1


@pytest.mark.parametrize("layout", ["strided", "other order", "half"])
def test_tensors_that_the_fused_kernel_does_not_take_move_all_the_same(layout: str) -> None:
    """L = Σ p² by torch's own SGD; the gradient has other strides than the parameter, or gaps."""
    torch.manual_seed(0)
    start = torch.randn(3, 4, dtype=torch.bfloat16 if layout == "half" else torch.float32)
    kept = {
        "strided": torch.stack([start, start], -1)[..., 0],
        "other order": start.t().contiguous().t(),
        "half": start.clone(),
    }[layout]
    ours, theirs = nn.Parameter(kept), nn.Parameter(start.clone())
    a = SGDPH([{"params": [ours], "order": 1}], 0.1, weight_decay=0.01, capturable=True)
    b = torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        for p, optimizer in ((ours, a), (theirs, b)):
            p.grad = (2 * p.detach()).contiguous()
            optimizer.step()
    tolerance = 0.02 if layout == "half" else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_random_signs_are_refused_in_a_capture_of_ones_own(
    small: Any, make_batches: Any, make_groups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05, capturable=True, probe="rademacher")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(CaptureError, match="each replay of this graph would use the same"):
        optimizer.backward(net.loss(batch))
    assert all(p.grad is None for p in net.parameters())
    SGDPH(make_groups(net), 0.05, capturable=True).backward(net.loss(batch))
