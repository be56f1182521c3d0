"""What a forward pass draws, counts, takes from iterators or carries along is refused, by whatever way it holds it."""

from __future__ import annotations

import collections
import copy
import functools
import itertools
import random
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from sgdph_fx.errors import CaptureError
from sgdph_fx.optim import SGDPH
from tests.optim.captured_loops import noisy_groups, pieces

KEPT: dict[str, Any] = {}


class Body(nn.Module):
    calls = 0

    def __init__(self, between: Callable[[Any, Tensor], Tensor], **held: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.norm, self.outer = nn.Linear(50, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.between = between
        self.__dict__.update(held)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.between(self, self.norm(self.inner(x.flatten(1))).tanh()))
        return out


class Recurrent(nn.Module):
    """Goes on from the state that the last batch has left."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.outer = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)
        self.state: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.lstm(x.flatten(1).view(-1, 10, 5), self.state)
        self.state = tuple(part.detach() for part in state)
        last: Tensor = self.outer(out[:, -1])
        return last


def counts_in_an_object(net: Any, x: Tensor) -> Tensor:
    net.box.calls += 1
    return x / net.box.calls


def counts_in_a_class(net: Any, x: Tensor) -> Tensor:
    Body.calls += 1
    return x / Body.calls


def counts_in_the_file(net: Any, x: Tensor) -> Tensor:
    KEPT["calls"] = KEPT.get("calls", 0) + 1
    return x / KEPT["calls"]


def has_a_history(net: Any, x: Tensor) -> Tensor:
    net.past.append(x.detach().mean(0))
    return x - torch.stack(list(net.past)).mean(0)


def goes_by_the_clock(net: Any, x: Tensor) -> Tensor:
    return x * (1 + time.perf_counter())


MODELS: dict[str, Callable[[], nn.Module]] = {
    "a state in a tuple": Recurrent,
    "a generator of Python's": lambda: Body(lambda net, x: x * net.own.random(), own=random.Random(0)),
    "a generator of NumPy's": lambda: Body(
        lambda net, x: x * float(net.own.uniform()), own=numpy.random.default_rng(0)
    ),
    "an old generator of NumPy's": lambda: Body(
        lambda net, x: x * float(net.own.rand()), own=numpy.random.RandomState(0)
    ),
    "a counter in an object": lambda: Body(counts_in_an_object, box=types.SimpleNamespace(calls=0)),
    "a counter in a class": lambda: Body(counts_in_a_class),
    "a counter in a file": lambda: Body(counts_in_the_file),
    "a history": lambda: Body(has_a_history, past=[]),
    "the last few": lambda: Body(has_a_history, past=collections.deque(maxlen=2)),
    "the clock": lambda: Body(goes_by_the_clock),
    "an iterator": lambda: Body(lambda net, x: x * next(net.rates), rates=itertools.cycle([1.0, 2.0])),
}


def held_by(net: Any) -> Any:
    own = {key: value for key, value in net.__dict__.items() if key in ("box", "past", "state")}
    drawn = net.__dict__.get("own")
    if isinstance(drawn, random.Random):
        own["drawn"] = drawn.getstate()
    elif drawn is not None:
        own["drawn"] = repr(getattr(drawn, "bit_generator", drawn).__getstate__())
    return copy.deepcopy((own, Body.calls, KEPT))


@pytest.mark.parametrize("name", MODELS)
def test_what_differs_from_step_to_step_is_refused_and_nothing_has_changed(name: str) -> None:
    net: Any = MODELS[name]()
    ((x, y),) = pieces(1)
    step = CapturedStep(net, cross_entropy, SGDPH(noisy_groups(net), 0.05))
    before, values = held_by(net), copy.deepcopy(net.state_dict())
    says = (
        "takes what comes next of 'rates'"
        if name == "an iterator"
        else "differ|changes the variable '.*calls'"
    )
    with pytest.raises(CaptureError, match=says):
        step(x, y)
    assert held_by(net) == before
    torch.testing.assert_close(net.state_dict(), values, rtol=0, atol=0)
    if name == "an iterator":
        assert next(net.rates) == 1.0


@pytest.mark.parametrize("where", ["loss_fn", "before_step"])
def test_a_loader_inside_is_refused_before_anything_is_taken(where: str) -> None:
    batches: Iterator[Tensor] = iter(torch.ones(4, 3))
    net = Body(lambda _, x: x)

    def takes(*_: Any) -> Tensor:
        return next(batches).mean()

    loss_fn = (lambda out, y: cross_entropy(out, y) + takes()) if where == "loss_fn" else cross_entropy
    before_step = takes if where == "before_step" else None
    step = CapturedStep(net, loss_fn, SGDPH(noisy_groups(net), 0.05), before_step=before_step)
    ((x, y),) = pieces(1)
    with pytest.raises(CaptureError, match="takes what comes next of 'batches'"):
        step(x, y)
    assert len(list(batches)) == 4


def keeps_a_table(net: Any, x: Tensor) -> Tensor:
    size = x.shape[1]
    if size not in net.tables:
        net.tables[size] = torch.arange(size, dtype=x.dtype)
    return x + net.tables[size] + torch.tensor([0.5]) + torch.from_numpy(numpy.ones(6, dtype="float32"))


@functools.cache
def mask(size: int) -> Tensor:
    return torch.ones(size, size).tril()


SAME: dict[str, Callable[[], nn.Module]] = {
    "tables and constants": lambda: Body(keeps_a_table, tables={}),
    "a cached mask": lambda: Body(lambda _, x: x @ mask(6)),
    "dropout": lambda: Body(lambda _, x: nn.functional.dropout(x, 0.5)),
    "a checkpoint": lambda: Body(
        lambda _, x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False)
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same_at_each_run_is_none_of_these(name: str) -> None:
    net = SAME[name]()
    step = CapturedStep(net, cross_entropy, SGDPH(noisy_groups(net), 0.05))
    for x, y in pieces(3):
        assert torch.isfinite(step(x, y))
