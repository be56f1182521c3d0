"""The batches of captured steps: every kind is taken apart, and what does not fit runs without graphs."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils import _pytree as pytree

from sgdph_fx import CapturedStep
from tests.optim.captured_loops import KINDS, Noisy, OnTape, made, pieces, plainly_written, state_of

pytestmark = pytest.mark.usefixtures("fake_graphs")


@dataclasses.dataclass
class Pair:
    x: Tensor
    scale: Any = None


class Takes(nn.Module):
    """A batch of any kind around the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Noisy()

    def forward(self, pair: Any, factor: Any = None) -> Tensor:
        out: Tensor = self.net(pair.x)
        return out if factor is None else out * factor


Named = collections.namedtuple("Named", "x")


def test_batches_of_every_kind_are_taken_apart() -> None:
    if Pair not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(Pair, lambda p: ([p.x, p.scale], None), lambda parts, _: Pair(*parts))
    for wrap in (
        Pair,
        lambda x: Pair(x, "a text"),
        lambda x: (Named(x), None),
        lambda x: {"pair": Named(x), "factor": 2},
    ):
        found = []
        for kind in KINDS:
            net, optimizer, step = made(kind, net=Takes())
            for x, y in pieces(20):
                step(wrap(x), y)
            assert kind is CapturedStep or step.graphs == 4
            found.append(state_of(net, optimizer))
        torch.testing.assert_close(*found, rtol=0, atol=0)


class Smooth(nn.Module):
    """Returns the derivative by its input, too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Noisy().eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(x)
        return out, torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]


def penalized(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    return cross_entropy(out[0], y) + out[1].square().mean()


def test_inputs_that_the_loss_is_differentiated_by_hold_no_graph_and_get_no_gradient() -> None:
    found = []
    for kind in KINDS:
        net, optimizer, step = made(kind, penalized, net=Smooth())
        for x, y in pieces(20):
            step(x.requires_grad_(), y)
            assert x.grad is None
        places = [t for t in step._places.batch.leaves if t.requires_grad]
        assert len(places) == 1
        assert (places[0].grad_fn, places[0].grad) == (None, None)
        found.append(state_of(net, optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_number_that_changes_in_the_batch_is_told_and_followed_as_a_tensor() -> None:
    def scaled(out: Tensor, targets: Any) -> Tensor:
        return cross_entropy(out, targets[0]) * targets[1]

    for wrap in (float, torch.tensor):
        found = []
        for kind in KINDS:
            net, optimizer, step = made(kind, scaled)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                for number, (x, y) in enumerate(pieces(28)):
                    step(x, (y, wrap(1 + number / 64)))
            assert sum("differ from the first one" in str(w.message) for w in told) == (
                kind is OnTape and wrap is float
            )
            found.append(state_of(net, optimizer))
        torch.testing.assert_close(*found, rtol=0, atol=0)
        assert step.graphs == (0 if wrap is float else 4)


def test_after_a_reset_the_next_batch_decides_the_shape() -> None:
    found = []
    for kind in KINDS:
        net, optimizer, step = made(kind)
        for number, (x, y) in enumerate(pieces(40)):
            if number == 20:
                step.reset()
            step(x[: 8 if number < 20 else 5], y[: 8 if number < 20 else 5])
        assert kind is CapturedStep or step.graphs == 4
        found.append(state_of(net, optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_numpys_numbers_are_numbers() -> None:
    def scaled(out: Tensor, targets: Any) -> Tensor:
        return cross_entropy(out, targets[0]) * float(targets[1])

    found = []
    for number in (2, numpy.int64(2), numpy.float32(2)):
        net, optimizer, step = made(OnTape, scaled)
        for x, y in pieces(20):
            step(x, (y, number))
        assert step.graphs == 4
        found.append(state_of(net, optimizer))
    for some in found[1:]:
        torch.testing.assert_close(some, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_batches_run_without_graphs(layout: torch.layout) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.norm = nn.Linear(5, 3), nn.LayerNorm(3)

        def forward(self, x: Tensor) -> Tensor:
            means = torch.stack([part.mean(0) for part in x.unbind()])  # type: ignore[no-untyped-call]
            out: Tensor = self.norm(self.linear(means))
            return out

    found = []
    for kind in (OnTape, plainly_written):
        net, _, step = made(kind, net=Pooled().double())
        for x, y in pieces(6):
            parts = [part.double().flatten(0, 1)[: 3 + number] for number, part in enumerate(x)]
            step(torch.nested.nested_tensor(parts, layout=layout), y)
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_sparse_batches_run_without_graphs() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(50, 4), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(torch.sparse.mm(x, self.linear.weight.t()) + self.linear.bias)
            return out

    _, _, step = made(OnTape, net=Sparse())
    for x, y in pieces(12):
        step(x.flatten(1).to_sparse(), y)
    assert step.graphs == 0
