"""What goes on around captured steps on a GPU: other threads, memory of graphs that are gone, tensors that are kept."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import SGDPH, CapturedStep, prepare
from sgdph_fx.errors import CaptureError
from tests.gpu.test_captured_changes import CHANGES, Eager, Net, data, made, numbers, train

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]


def test_another_thread_may_pin_memory_while_steps_are_recorded(device: torch.device) -> None:
    """As a data loader's does. Each tensor stays, so that the next one needs memory that torch does not hold yet."""
    _, _, step = made(device, CapturedStep)
    pinned: list[Tensor] = []
    failures: list[BaseException] = []
    enough = threading.Event()

    def pin() -> None:
        try:
            while not enough.is_set() and len(pinned) < 20_000:
                pinned.append(torch.empty(1024).pin_memory())
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        for x, y in data(device):
            step(x, y)
    finally:
        enough.set()
        thread.join()
    assert failures == []
    assert pinned
    assert step.graphs > 2


def test_a_loss_of_an_earlier_step_may_still_be_held(device: torch.device) -> None:
    """Its graph has nodes for the parameters' gradients, on the stream that it was made on."""
    net, optimizer, step = made(device, CapturedStep)
    ((x, y), *batches) = data(device)
    held = cross_entropy(net(x), y)
    optimizer.backward(held)
    optimizer.step()
    for x, y in batches:
        step(x, y)
    assert step.graphs > 2
    assert held.grad_fn is not None


class Leaves(Net):
    """Leaves an activation behind, as models do for a look at it: after a recording it lies in the graph's memory."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.last = out.detach().clone()
        return out


def test_graphs_are_recorded_anew_where_something_still_lies_in_the_memory_of_the_old_ones(
    device: torch.device,
) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        net, optimizer, step = made(device, kind)
        net.__class__ = Leaves
        train(step, data(device), partial(CHANGES["a rate of dropout"], net, optimizer))
        found.append(numbers(net, optimizer))
    assert step.graphs > 2
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_decoupled_weight_that_is_kept_follows_replays(device: torch.device) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)).to(device)
    batches = data(device)
    model, groups, _ = prepare(net, batches[0][0], inplace=True)
    step, kept = CapturedStep(model, cross_entropy, SGDPH(groups, 0.05)), model[0].weight
    for x, y in batches:
        step(x, y)
    assert step.graphs > 1
    trained = model[0].weight.detach().clone()
    with torch.no_grad():
        kept.mul_(2)
    torch.testing.assert_close(model[0].weight.detach(), 2 * trained)


def test_draws_on_the_cpu_are_refused(device: torch.device) -> None:
    class Skips(Net):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out if torch.rand(()).item() < 0.5 else 2 * out

    net = Skips().to(device)
    step = CapturedStep(net, cross_entropy, SGDPH([{"params": list(net.parameters()), "order": 1}], 0.1))
    ((x, y),) = data(device, 1)
    before = torch.get_rng_state()
    with pytest.raises(CaptureError, match=r"draws random numbers on the CPU.*test_captured_around\.py"):
        step(x, y)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_of_a_data_loader_may_be_recorded(device: torch.device) -> None:
    """The first one, from memory that is pinned, decides the places; later ones are copied while the host goes on."""
    net, optimizer, step = made(device, CapturedStep)
    for x, y in data(device):
        step(x.cpu().pin_memory(), y.cpu().pin_memory())
    other, others, eager = made(device, Eager)
    for x, y in data(device):
        eager(x, y)
    torch.testing.assert_close(numbers(net, optimizer), numbers(other, others), rtol=0, atol=0)
