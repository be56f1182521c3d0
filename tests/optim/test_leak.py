"""No graph outlives its step: what autograd saved is counted, also where Python's collector cannot see it."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.optim import SGDPH

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")

STEPS, SAMPLED = 300, 60


class Saved:
    """A tensor that a graph holds; it dies with the graph."""

    def __init__(self, tensor: Tensor, alive: weakref.WeakSet[Saved]) -> None:
        # Detached, as a graph that holds its own output through this object would be a circle of the test's.
        self.tensor = tensor.detach()
        alive.add(self)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_after_each_step(net: Any, data: list[Any], step: Any) -> list[tuple[int, int]]:
    """After each step: tensors held by graphs, and tensors that Python sees."""
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    counts: list[tuple[int, int]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: Saved(t, alive), lambda s: s.tensor):
        for batch in data:
            step(net, batch)
            seen = len(counts) % SAMPLED == 0
            tensors = sum(issubclass(type(o), Tensor) for o in gc.get_objects()) if seen else 0
            counts.append((len(alive), tensors))
    return counts


def with_backward(optimizer: SGDPH, net: Any, batch: Any) -> None:
    optimizer.zero_grad()
    optimizer.backward(net.loss(batch))
    optimizer.step()


def with_create_graph(optimizer: SGDPH, net: Any, batch: Any) -> None:
    net.loss(batch).backward(create_graph=True)
    optimizer.step()
    # To zero, not to None, which would break the circle by itself.
    optimizer.zero_grad(set_to_none=False)


def with_part(optimizer: SGDPH, net: Any, batch: Any) -> None:
    optimizer.zero_grad()
    optimizer.backward(net.loss(batch), hessian_loss=lambda: net.loss((batch[0][::2], batch[1][::2])))
    optimizer.step()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("way", [with_backward, with_create_graph])
@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_no_step_holds_anything(
    small: Any, make_batches: Any, make_groups: Any, way: Any, variant: Any
) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.01, variant=variant)
    counts = count_after_each_step(net, make_batches(4) * (STEPS // 4), lambda n, b: way(optimizer, n, b))
    assert {graphs for graphs, _ in counts} == {0}
    # The state of every parameter is there once the first cycle is over.
    assert len({tensors for _, tensors in counts[SAMPLED::SAMPLED]}) == 1


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("way", [with_backward, with_create_graph, with_part])
def test_the_memory_of_the_process_stays_flat(
    small: Any, make_batches: Any, make_groups: Any, way: Any
) -> None:
    """One kept graph of such a batch is half a megabyte; 200 of them may not add 20."""
    net = small()
    optimizer = SGDPH(make_groups(net), 0.01)
    (batch,) = make_batches(1, size=128)
    resident = []
    for _ in range(STEPS):
        way(optimizer, net, batch)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert max(resident[100:]) - resident[100] < 20e6


@pytest.mark.usefixtures("_no_collector")
def test_the_count_sees_the_leak_that_a_kept_graph_is(small: Any, make_batches: Any) -> None:
    net = small()
    counts = count_after_each_step(net, make_batches(5), lambda n, b: n.loss(b).backward(create_graph=True))
    graphs = [g for g, _ in counts]
    assert graphs == sorted(set(graphs))
    assert graphs[0] > 0
    net.zero_grad()
