"""What a replay must do that its kernels do not: say which tensors were written, and drop the memory of old graphs."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy

from sgdph_fx import SGDPH, prepare
from tests.optim.captured_loops import OnTape, made, pieces, state_of

pytestmark = pytest.mark.usefixtures("fake_graphs")


def test_every_tensor_that_a_replay_writes_counts_it() -> None:
    net, optimizer, step = made(OnTape)
    data = pieces(12)
    for x, y in data[:10]:
        step(x, y)
    recorder: Any = step._recorder
    assert recorder.replayed > 2
    steps = [*net.parameters(), *net.norm.buffers(), *state_of(net, optimizer)]
    before = [t._version for t in steps]
    step(*data[10])
    assert all(t._version > version for t, version in zip(steps, before, strict=True))


def test_a_decoupled_weight_that_is_kept_follows_replays() -> None:
    """Its memory is computed anew where direction or gain were written since; stale, it would undo the training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))
    data = pieces(14)
    model, groups, _ = prepare(net, data[0][0], inplace=True)
    optimizer = SGDPH(groups, 0.05)
    step, kept = OnTape(model, cross_entropy, optimizer), model[0].weight
    for x, y in data:
        step(x, y)
    trained = model[0].weight.detach().clone()
    assert not torch.equal(trained, kept.detach().as_subclass(Tensor))
    with torch.no_grad():
        kept.mul_(2)
    torch.testing.assert_close(model[0].weight.detach(), 2 * trained)


def test_a_graph_that_somebody_holds_is_not_added_to() -> None:
    """Its nodes for the parameters' gradients lie on the stream of its own pass, where nothing can be recorded."""
    net, optimizer, step = made(OnTape)
    data, hooked = pieces(10), []
    net.conv.weight.register_hook(lambda g: hooked.append(1))
    held = cross_entropy(net(data[0][0]), data[0][1])
    old = [get_gradient_edge(p).node for p in net.parameters()]
    for node in old:
        node.register_hook(lambda *_: pytest.fail("of the graph that is held"))  # type: ignore[attr-defined]
    places = [(p.data_ptr(), p.dtype) for p in net.parameters()]
    for x, y in data:
        step(x, y)
    assert step.graphs > 2
    assert [(p.data_ptr(), p.dtype) for p in net.parameters()] == places
    assert hooked
    assert held.grad_fn is not None
    assert optimizer.statistics()["step"] == 10


def test_graphs_of_what_has_changed_take_their_pool_along(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, step = made(OnTape)
    forgotten: list[int] = []
    monkeypatch.setattr(step._recorder, "forget", lambda: forgotten.append(step.graphs))
    for number, (x, y) in enumerate(pieces(16)):
        if number == 8:
            net.drop.p = 0.5
        step(x, y)
    assert forgotten == [0]
    assert step.graphs > 1


def test_memory_that_a_cache_lets_go_stays_for_the_graphs() -> None:
    """A graph would go on to read what is another tensor's by then."""

    @functools.lru_cache(maxsize=1)
    def mask(size: int) -> Tensor:
        return torch.ones(size).cumsum(0)

    _, _, step = made(OnTape, lambda out, y: cross_entropy(out * mask(3), y))
    for x, y in pieces(3):
        step(x, y)
    memory = StorageWeakRef(mask(3).untyped_storage())
    mask(4)  # as an evaluation at another length does
    assert not memory.expired()
    step.reset()
    assert memory.expired()


def test_what_finds_no_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who look for the largest batch wait for this error."""

    _, _, step = made(OnTape)

    def record(run: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def train() -> None:
        for x, y in pieces(8):
            step(x, y)

    monkeypatch.setattr(step._recorder, "record", record)
    with pytest.raises(torch.OutOfMemoryError):
        train()
