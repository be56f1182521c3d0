"""Numbers are compared at a glance between two steps, and all of them at the end: nothing is lost by that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import analyze, prepare
from sgdph_fx.errors import ModelChangedError
from sgdph_fx.trace import memory, read_model
from tests.trace.states import state_of

SIZE = 20_000  # numbers: 80 kB, where a glance sees 64
X = torch.rand(2, 3, 6, 6)
INPUTS = pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])


class Marking(nn.Module):
    """A convolution and a batch norm; a change of large memory."""

    runs = 0

    def __init__(self, change: Callable[[Marking], Any]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.weight = nn.Parameter(torch.zeros(SIZE))
        self.register_buffer("table", torch.zeros(SIZE))
        self.plain = torch.zeros(SIZE)
        self.several = [torch.zeros(SIZE), torch.zeros(2)]
        shared = torch.zeros(2 * SIZE)
        self.halves = (shared[:SIZE], shared[SIZE:].view(2, -1).t())
        self.registered = (self.weight, self.table)  # a symbolic trace has stand-ins in the other places
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        type(self).runs += 1
        x = self.conv(x)
        if not bool(self.plain[-1]):
            x = self.norm(x)
        self.change(self)
        return x


def _in_place(tensor: Tensor, place: int) -> None:
    with torch.no_grad():
        tensor[place] += 1


def _by_data(tensor: Tensor, place: int) -> None:
    tensor.data[place] = 1


def _by_numpy(tensor: Tensor, place: int) -> None:
    tensor.detach().numpy()[place] = 1


WAYS = {"in place": _in_place, "by data": _by_data, "by NumPy": _by_numpy}
HELD: dict[str, Callable[[Marking], Tensor]] = {
    "a parameter": lambda m: m.registered[0],
    "a buffer": lambda m: m.registered[1],
    "a plain tensor": lambda m: m.plain,
    "a tensor in a list": lambda m: m.several[0],
    "a view": lambda m: m.halves[0],
    "a view of another shape": lambda m: m.halves[1],
}


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("way", WAYS)
@INPUTS
def test_one_number_of_large_memory(inputs: Tensor | None, way: str, held: str, place: int, how: str) -> None:
    model = Marking(lambda m: WAYS[way](HELD[held](m), place))
    before = state_of(model)
    for look in (analyze, prepare):
        if (how, way) == ("watched", "by NumPy"):
            with pytest.raises(ModelChangedError, match="code that PyTorch does not see"):
                look(model, inputs)
            model = Marking(model.change)
        else:
            look(model, inputs)
            assert state_of(model) == before


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("way", WAYS)
@INPUTS
def test_each_step_starts_from_the_numbers_as_they_are(inputs: Tensor | None, way: str, place: int) -> None:
    """A mark that one trace leaves would take the norm out of the next."""

    class Bare(Marking):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            if not bool(self.registered[1][place]):
                x = self.norm(x)
            self.change(self)
            return x

    model = Bare(lambda m: WAYS[way](m.registered[1], place))
    assert [row.verdict for row in analyze(model, inputs).convolutions] == ["normalized"]
    kinds = read_model(
        model,
        inputs,
        lambda reading: [
            *(any(n.target == "norm" for n in trace.graph.nodes) for trace in reading.traces),
            bool(model.registered[1].any()),
        ],
    )
    assert kinds in ([True, False], [True, True, False])


@INPUTS
def test_an_error_that_comes_of_an_earlier_change_is_none(inputs: Tensor | None) -> None:
    class Once(Marking):
        def forward(self, x: Tensor) -> Tensor:
            if bool(self.plain[-1]):
                raise ValueError("twice")
            self.plain[-1] = 1
            return self.norm(self.conv(x))

    model = Once(lambda m: None)
    assert [row.verdict for row in analyze(model, inputs).convolutions] == ["normalized"]
    assert not model.plain.any()


def test_what_a_glance_sees_takes_one_run_in_each_mode() -> None:
    Marking.runs = 0
    analyze(Marking(lambda m: WAYS["in place"](m.registered[1], 0)), X)
    assert Marking.runs == 2


def test_130_million_numbers() -> None:
    model = Marking(lambda m: WAYS["in place"](m.large, -1))
    model.large = torch.zeros(135_000_000, dtype=torch.bfloat16)
    assert model.large.nbytes > memory.COPIED_AT_ONCE
    analyze(model)
    assert not model.large.any()


def test_memory_that_becomes_shorter_in_between() -> None:
    model = Marking(lambda m: m.registered[1].untyped_storage().resize_(16))
    before = state_of(model)
    analyze(model, X)
    assert state_of(model) == before


@pytest.mark.usefixtures("watched")
def test_an_unseen_write_before_one_that_is_seen() -> None:
    """What is copied before the second write holds the first one."""

    def both(m: Marking) -> None:
        m.registered[1].numpy()[-1] = 1
        m.registered[1].mul_(2)

    with pytest.raises(ModelChangedError, match="code that PyTorch does not see"):
        analyze(Marking(both), X)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("steps", [1, 2, 3, 256, 512, 4096])
def test_numbers_that_only_move(steps: int) -> None:
    """As in a mask of ones and zeros, whose sum stays the same."""

    def move(m: Marking) -> None:
        numbers = m.registered[1].numpy()
        numbers[:] = np.roll(numbers, steps)

    model = Marking(move)
    model.registered[1][SIZE // 2] = 1
    with pytest.raises(ModelChangedError, match="code that PyTorch does not see"):
        analyze(model, X)
