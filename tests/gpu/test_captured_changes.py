"""What somebody changes between replays of a CUDA graph: the numbers of the same kernels without graphs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from sgdph_fx import SGDPH, CapturedStep
from sgdph_fx.errors import CaptureError

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]

STEPS, CHANGED_AT = 40, 20  # five turns, each replayed by then


class Eager(CapturedStep):
    """The same kernels without graphs."""

    def _uses_graphs(self) -> bool:
        return False


class Net(nn.Module):
    """Convolution, batch norm, dropout, linear; a number on the CPU that a kernel takes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2)
        self.linear = nn.Linear(4, 3)
        self.heat = torch.tensor(1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.norm(self.conv(x))))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out * self.heat


def data(device: torch.device, count: int = STEPS, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(size, 2, 5, 5, generator=generator).to(device),
            torch.randint(3, (size,), generator=generator).to(device),
        )
        for _ in range(count)
    ]


def made(device: torch.device, kind: type[CapturedStep], loss_fn: Any = cross_entropy, **how: Any) -> Any:
    net = Net().to(device)
    rows = list(enumerate(net.parameters()))
    groups = [
        {"params": [p for i, p in rows if (p.dim() == 1) == (order == 2)], "order": order} for order in (2, 1)
    ]
    optimizer = SGDPH(groups, 0.05, weight_decay=0.01)
    torch.manual_seed(1)
    return net, optimizer, kind(net, loss_fn, optimizer, **how)


def numbers(net: nn.Module, optimizer: SGDPH) -> list[Tensor]:
    state = [own[k] for own in optimizer.state.values() for k in sorted(own) if isinstance(own[k], Tensor)]
    return [t.detach().clone() for t in (*net.parameters(), *net.buffers(), *state)]


def train(
    step: CapturedStep,
    batches: list[tuple[Tensor, Tensor]],
    change: Callable[[], object],
    changed_at: int = CHANGED_AT,
) -> None:
    """Take a step for each batch, and change something before one of them."""
    for number, (x, y) in enumerate(batches):
        if number == changed_at:
            change()
        step(x, y)


CHANGES: dict[str, Callable[[Any, SGDPH], object]] = {
    "a rate of dropout": lambda net, _: setattr(net.drop, "p", 0.6),
    "a momentum of batch norm": lambda net, _: setattr(net.norm, "momentum", 0.5),
    "a number on the CPU": lambda net, _: net.heat.fill_(3.0),
    "a module": lambda net, _: setattr(net, "drop", nn.Identity()),
    "a hook": lambda net, _: net.linear.register_forward_hook(lambda m, args, out: 2 * out),
    "a hook of a parameter": lambda net, _: net.linear.weight.register_hook(torch.zeros_like),
    "a buffer": lambda net, _: net.norm.register_buffer(
        "running_mean", torch.ones(4, device=net.conv.weight.device)
    ),
    "a parameter's memory": lambda net, _: setattr(net.linear.weight, "data", net.linear.weight * 2),
    "weight decay": lambda _, optimizer: [g.update(weight_decay=0.2) for g in optimizer.param_groups],
    "momentum": lambda _, optimizer: [g.update(momentum=0.5) for g in optimizer.param_groups],
    "requires_grad": lambda net, _: net.conv.requires_grad_(False),
    "the mode": lambda net, _: net.norm.eval(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_followed(device: torch.device, name: str) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        net, optimizer, step = made(device, kind)
        train(step, data(device), partial(CHANGES[name], net, optimizer))
        found.append(numbers(net, optimizer))
    assert step.graphs > 2
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_numbers_of_the_loss_function_and_of_clipping_are_followed(device: torch.device) -> None:
    def change() -> None:
        nonlocal most, alpha
        most, alpha = 0.01, 1.0

    found = []
    for kind in (Eager, CapturedStep):
        most, alpha = 1.0, 0.0
        net, optimizer, step = made(
            device,
            kind,
            lambda out, y: cross_entropy(out, y) + alpha * out.square().mean(),  # noqa: B023
            before_step=lambda: nn.utils.clip_grad_norm_(net.parameters(), most),  # noqa: B023
        )
        train(step, data(device), change)
        found.append(numbers(net, optimizer))
    assert step.graphs > 2
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_settings_of_a_scaler_are_followed(device: torch.device) -> None:
    """Twenty-one good steps are seven times three, and eighteen more are nine times two: 2 + 7 + 9 doublings of 1."""
    found = []
    for kind in (Eager, CapturedStep):
        scaler = GradScaler("cuda", init_scale=4.0, growth_interval=3)
        _, _, step = made(device, kind, scaler=scaler)
        train(step, data(device, 39), partial(scaler.set_growth_interval, 2), CHANGED_AT + 1)
        found.append(scaler.get_scale())
    assert found == [2.0**18] * 2


def test_inputs_that_the_loss_is_differentiated_by_leave_no_graph(device: torch.device) -> None:
    """What a step holds does not grow."""
    _, _, step = made(device, CapturedStep)
    held = []
    for x, y in data(device, 60):
        step(x.requires_grad_(), y)
        held.append(torch.cuda.memory_allocated(device))
    assert len(set(held[-20:])) == 1


def test_after_a_reset_the_next_batch_decides_the_shape(device: torch.device) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        net, optimizer, step = made(device, kind)
        for size in (8, 5):
            for x, y in data(device, 30, size):
                step(x, y)
            assert kind is Eager or step.graphs > 2
            step.reset()
        found.append(numbers(net, optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_copy_records_graphs_of_its_own(device: torch.device) -> None:
    _, _, step = made(device, CapturedStep)
    step._model.eval()  # without dropout, which would draw for one after the other
    everything = data(device)
    for x, y in everything[:CHANGED_AT]:
        step(x, y)
    others = [copy.deepcopy(step), pickle.loads(pickle.dumps(step))]
    for some in (step, *others):
        for x, y in everything[CHANGED_AT:]:
            some(x, y)
        assert some.graphs > 2
    for other in others:
        expected, result = (numbers(s._model, s._optimizer) for s in (step, other))
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_a_counter_on_the_cpu_is_refused(device: torch.device) -> None:
    class Counts(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.heat += 1
            return super().forward(x)

    net = Counts().to(device)
    optimizer = SGDPH([{"params": list(net.parameters()), "order": 1}], 0.1)
    step = CapturedStep(net, cross_entropy, optimizer)
    ((x, y),) = data(device, 1)
    with pytest.raises(CaptureError, match=r"lies with the host.*test_captured_changes\.py"):
        step(x, y)
    assert net.heat.item() == 1


@pytest.mark.parametrize("preserve", [False, True])
def test_an_activation_checkpoint_is_captured_rightly_or_refused(
    device: torch.device, preserve: bool
) -> None:
    """Torch puts its generator back for the second forward pass, which a capture may not allow."""

    class Saves(Net):
        def forward(self, x: Tensor) -> Tensor:
            inner = super().forward
            kept: Any = checkpoint(inner, x, use_reentrant=False, preserve_rng_state=preserve)
            return kept

    found = []
    for kind in (Eager, CapturedStep):
        net = Saves().to(device)
        net.drop.p = 0.3 if preserve else 0.0
        optimizer = SGDPH([{"params": list(net.parameters()), "order": 1}], 0.05)
        step = kind(net, cross_entropy, optimizer)
        torch.manual_seed(1)
        try:
            for x, y in data(device):
                step(x, y)
        except CaptureError:
            assert kind is CapturedStep
            return
        found.append(numbers(net, optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)
