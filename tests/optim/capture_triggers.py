"""The smallest thing that raises each error of captured steps; see test_messages.py."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, CapturedStep, compile_between_refreshes, weight_norm
from sgdph_fx.optim.capture.watched_reads import ReadsRefused
from tests.optim.recording import FakeRecorder

__all__ = ["OF_CAPTURED_STEPS"]


def captured(forward: Callable[[Any, Tensor], Tensor], **more: Any) -> None:
    class Model(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, super().forward(x))

    model = Model(2, 2)
    model.calls = 0
    optimizer = SGDPH([{"params": list(model.parameters()), "order": 2}], 0.1)
    step = CapturedStep(model, nn.functional.mse_loss, optimizer, **more)
    with mock.patch("sgdph_fx.optim.capture.captured_step.Recorder", FakeRecorder):
        step._recorder = FakeRecorder(torch.device("cpu"))  # type: ignore[assignment]
        step._uses_graphs = lambda: True  # type: ignore[method-assign]
        for _ in range(4):
            step(torch.ones(1, 2), torch.ones(1, 2))


def count(model: Any, x: Tensor) -> Tensor:
    model.calls += 1
    return x


def draw(model: Any, x: Tensor) -> Tensor:
    random.random()
    return x


def fail_late() -> None:
    calls = []

    def before_step() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("not permitted")

    captured(lambda model, x: x, before_step=before_step)


def remember(model: Any, x: Tensor) -> Tensor:
    model.last = x.detach() + getattr(model, "last", 0)
    return x


def write_on_the_host() -> None:
    count = torch.zeros(())
    with ReadsRefused([], torch.device("cuda")):
        count += 1


def draw_on_the_host() -> None:
    with ReadsRefused([], torch.device("cuda")):
        torch.rand(())


def step_of(model: nn.Module, *others: nn.Parameter, **more: Any) -> CapturedStep:
    groups = [{"params": list(model.parameters()), "order": 2}, {"params": list(others), "order": 1}]
    return CapturedStep(model, nn.functional.mse_loss, SGDPH(groups, 0.1), **more)


def under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        step_of(nn.Linear(2, 2))(torch.ones(1, 2), torch.ones(1, 2))


def with_a_hook() -> None:
    model = nn.Linear(2, 2)
    optimizer = SGDPH([{"params": list(model.parameters()), "order": 2}], 0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    CapturedStep(model, nn.functional.mse_loss, optimizer)(torch.ones(1, 2), torch.ones(1, 2))


def compiled() -> None:
    model = nn.Linear(2, 2)
    step = step_of(model)
    model.compile(backend="eager")
    step(torch.ones(1, 2), torch.ones(1, 2))


def on_two_devices() -> None:
    far = nn.Parameter(torch.ones(1, device="meta"))
    step_of(nn.Linear(2, 2), far)(torch.ones(1, 2), torch.ones(1, 2))


def of_sgd() -> None:
    model: Any = nn.Linear(2, 2)
    CapturedStep(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), 0.1))  # type: ignore[arg-type]


def writes_a_weight() -> None:
    """As a layer does that bounds the norms of its filters in each forward pass."""

    class Bounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
            return super().forward(x)

    model = weight_norm(Bounded(2, 2))
    step_of(model)(torch.ones(1, 2), torch.ones(1, 2))


def no_module() -> None:
    model = nn.Linear(2, 2)
    optimizer = SGDPH([{"params": list(model.parameters()), "order": 2}], 0.1)
    CapturedStep(compile_between_refreshes(model, optimizer), nn.functional.mse_loss, optimizer)  # type: ignore[arg-type]


def carries() -> None:
    state: dict[str, Tensor] = {}

    def forward(model: Any, x: Tensor) -> Tensor:
        x = x + state.get("last", torch.zeros(()))
        state["last"] = x.detach()
        return x

    captured(forward)


def takes_from_an_iterator() -> None:
    rates = iter([1.0, 2.0])
    captured(lambda model, x: x * next(rates))


def copied_with_its_function() -> None:
    model = nn.Linear(2, 2)
    copy.deepcopy(step_of(model, before_step=lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0)))


OF_CAPTURED_STEPS: tuple[Callable[[], Any], ...] = (
    lambda: captured(lambda model, x: x * x.sum().item()),
    lambda: captured(count),
    lambda: captured(draw),
    lambda: captured(remember),
    fail_late,
    write_on_the_host,
    draw_on_the_host,
    lambda: step_of(nn.Linear(2, 2))(object(), torch.ones(1, 2)),
    lambda: step_of(nn.Linear(2, 2))(torch.ones(1, 2, requires_grad=True) * 2, torch.ones(1, 2)),
    under_autocast,
    with_a_hook,
    compiled,
    on_two_devices,
    of_sgd,
    lambda: step_of(nn.DataParallel(nn.Linear(2, 2))),
    lambda: step_of(nn.Linear(2, 2))(nn.Parameter(torch.ones(1, 2)), torch.ones(1, 2)),
    no_module,
    writes_a_weight,
    carries,
    takes_from_an_iterator,
    copied_with_its_function,
)
