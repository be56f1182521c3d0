"""Steps that a CUDA graph can hold: the same as torch's optimizers under torch's own schedulers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from experiments.training.methods import METHODS
from experiments.training.muon_channelwise import MuonChannelwise
from experiments.visits import captured
from experiments.visits.captured import DeviceSchedule, GraphStep, make_step
from sgdph_fx.optim.capture import captured_step
from tests.optim.captured_loops import OnTape
from tests.optim.recording import FakeRecorder

FACTORS = [1.0, 0.5, 0.25, 0.8, 0.0, 0.3, 1.0, 0.1, 0.6, 0.2, 0.9, 0.4, 0.7, 0.05, 0.35]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 3, 6, 6, generator=generator), torch.randint(5, (8,), generator=generator))
        for _ in FACTORS
    ]


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "Muon": lambda p: torch.optim.Muon([q for q in p if q.dim() == 2], lr=0.02),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_on_the_device_is_torchs_scheduler(name: str) -> None:
    found = []
    for on_device in (True, False):
        net = network()
        optimizer = OPTIMIZERS[name]([*net.parameters()])
        held = [p for group in optimizer.param_groups for p in group["params"]]
        schedule = DeviceSchedule(optimizer, held)
        scheduler = None if on_device else LambdaLR(optimizer, lambda step: [*FACTORS, 1.0][step])
        for factor, (x, y) in zip(FACTORS, batches(), strict=True):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            if scheduler is None:
                schedule.set_factor(factor)
                schedule.step()
            else:
                optimizer.step()
                scheduler.step()
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


class GraphOnTape(GraphStep):
    """As on a GPU, with operations of the CPU in the place of kernels."""

    def _uses_graphs(self) -> bool:
        return True


@pytest.fixture
def on_tape(monkeypatch: pytest.MonkeyPatch) -> list[FakeRecorder]:
    """Record all steps that are made after this on tapes."""
    recorders: list[FakeRecorder] = []

    def recorder(device: torch.device) -> FakeRecorder:
        recorders.append(FakeRecorder(device))
        return recorders[-1]

    monkeypatch.setattr(captured, "Recorder", recorder)
    monkeypatch.setattr(captured_step, "Recorder", recorder)
    monkeypatch.setattr(captured, "GraphStep", GraphOnTape)
    monkeypatch.setattr(captured, "CapturedStep", OnTape)
    # torch's Adam checks for a GPU, where it counts its steps on the device.
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    return recorders


RECORDED = [
    "sgdm",
    "sgdm-wn",
    "adamw",
    "adam-channelwise",
    "muon-adamw",
    "muon-adamw-wn",
    "muon-ph",
    "sgd-ph",
]


@pytest.mark.parametrize("method", RECORDED)
def test_a_recorded_step_is_a_loop_written_out_under_torchs_scheduler(
    method: str, on_tape: list[FakeRecorder]
) -> None:
    options: dict[str, Any] = {"probe": "rademacher"} if method.endswith("-ph") else {}
    example = batches()[0][0]
    recorded = METHODS[method](network(), example, 0.02, 0.01, **options)
    _make_capturable(recorded.optimizer)
    step = make_step(recorded, cross_entropy, None)
    losses = []
    for factor, (x, y) in zip(FACTORS, batches(), strict=True):
        step.set_factor(factor)
        losses.append(step(x, y))
    assert sum(recorder.replayed for recorder in on_tape) >= 3

    plain = METHODS[method](network(), example, 0.02, 0.01, **options)
    groups = plain.optimizer.param_groups
    lrs = [group["lr"] for group in groups]
    expected = []
    for factor, (x, y) in zip(FACTORS, batches(), strict=True):
        for group, lr in zip(groups, lrs, strict=True):
            group["lr"] = lr * factor
        plain.optimizer.zero_grad()
        loss = cross_entropy(plain.model(x), y)
        plain.backward(loss)
        plain.optimizer.step()
        expected.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        dict(recorded.model.named_parameters()), dict(plain.model.named_parameters()), atol=1e-5, rtol=1e-4
    )


def _make_capturable(optimizer: Any) -> None:
    inner = optimizer.others if isinstance(optimizer, MuonChannelwise) else optimizer
    for group in inner.param_groups:
        if "capturable" in group and "eps" in group and "betas" in group:
            group["capturable"] = True


def test_an_optimizer_that_reads_on_the_host_steps_outside_of_the_graph(on_tape: list[FakeRecorder]) -> None:
    setup = METHODS["soap"](network(), batches()[0][0], 0.003, 0.01)
    step = make_step(setup, cross_entropy, None)
    losses = [float(step(x, y)) for x, y in [batches()[0]] * 15]
    assert on_tape[0].replayed == 12
    assert losses[-1] < losses[0]
