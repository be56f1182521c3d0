"""What a loop written out refuses or tells at any step, captured steps do too, not at the first one alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from sgdph_fx.curvature import capturing
from sgdph_fx.errors import CaptureError, NoCurvatureError, StaleOptimizerError
from sgdph_fx.optim import SGDPH
from tests.once import Cut
from tests.optim.captured_loops import KINDS, Noisy, OnTape, made, noisy_groups, pieces, state_of
from tests.squared import Squared

pytestmark = pytest.mark.usefixtures("fake_graphs")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [3, 12])
def test_weights_that_were_exchanged_make_the_optimizer_stale(kind: Any, steps: int) -> None:
    net, _, step = made(kind)
    for x, y in pieces(steps):
        step(x, y)
    net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True)
    with pytest.raises(StaleOptimizerError, match="none of the 6 parameters"):
        step(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_was_exchanged_is_told_by_its_name(kind: Any) -> None:
    net, _, step = made(kind)
    for x, y in pieces(4):
        step(x, y)
    net.linear = nn.Linear(4, 3)
    with pytest.warns(RuntimeWarning, match="no optimizer holds.*'linear.weight', 'linear.bias'"):
        step(x, y)


def differentiated_anew(net: Any, optimizer: SGDPH, batch: Any, backward: Callable[..., object]) -> Any:
    """A ``before_step`` with a backward pass of its own, as SAM has it; at the same point, so that nothing changes."""

    def before_step() -> None:
        optimizer.zero_grad()
        x, y = batch
        backward(optimizer, cross_entropy(net(x), y))

    return before_step


@pytest.mark.parametrize("kind", KINDS)
def test_a_hessian_that_was_dropped_before_the_step_is_missed(kind: Any) -> None:
    """It went on with averages of zero, so with the largest steps there are."""
    net = Noisy().eval()
    optimizer = SGDPH(noisy_groups(net), 0.05)
    (batch,) = pieces(1)
    again = differentiated_anew(net, optimizer, batch, lambda _, loss: loss.backward())
    step = kind(net, cross_entropy, optimizer, before_step=again)
    before = copy.deepcopy(net.state_dict())
    for _ in range(2):
        with pytest.raises(NoCurvatureError, match=r"Call `optimizer.backward\(loss\)`"):
            step(*batch)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert optimizer.statistics()["step"] == 0


@pytest.mark.parametrize(
    "backward",
    [SGDPH.backward, lambda _, loss: loss.backward(create_graph=True)],
    ids=["own", "create_graph"],
)
def test_a_hessian_that_was_found_anew_before_the_step_is_taken(backward: Any) -> None:
    found = []
    for is_anew in (True, False):
        net = Noisy().eval().double()
        optimizer = SGDPH(noisy_groups(net), 0.05)
        ((x, y),) = pieces(1)
        again = differentiated_anew(net, optimizer, (x.double(), y), backward) if is_anew else None
        step = CapturedStep(net, cross_entropy, optimizer, before_step=again)
        for _ in range(6):
            step(x.double(), y)
        found.append(state_of(net, optimizer))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_left_without_gradients_does_nothing_and_counts_as_none(kind: Any) -> None:
    """As those do that leave out a batch whose gradients are too long; the due parameter keeps its turn."""
    kept = {"leaves_out": False}
    net = Noisy()
    optimizer = SGDPH(noisy_groups(net), 0.05)

    def before_step() -> None:
        if kept["leaves_out"]:
            optimizer.zero_grad()

    step = kind(net, cross_entropy, optimizer, before_step=before_step)
    hooked: list[int] = []
    optimizer.register_step_post_hook(lambda *_: hooked.append(1))
    for number, (x, y) in enumerate(pieces(20)):
        kept["leaves_out"] = number in (3, 9, 10, 11, 12, 13, 14)
        due, before = optimizer.due, net.linear.weight.detach().clone()
        step(x, y)
        assert torch.equal(net.linear.weight, before) is kept["leaves_out"]
        assert (optimizer.due is due) is kept["leaves_out"]
    assert (optimizer.statistics()["step"], len(hooked)) == (13, 20)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_functions_in_python_are_recorded_with_their_hessians() -> None:
    """Their backward is looked at by the host, which must read nothing while a step is recorded."""

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        squared: Tensor = Squared.apply(out)
        return cross_entropy(squared, y)

    found = []
    for kind in KINDS:
        net, optimizer, step = made(kind, loss_fn)
        for x, y in pieces(20):
            step(x, y)
        assert optimizer.curvature_missed == 0
        found.append(state_of(net, optimizer))
    assert step.graphs == 4
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_where_a_hessian_must_be_every_step_is_refused_and_not_the_first_alone() -> None:
    class WithCut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = nn.Linear(50, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.above(Cut.apply(self.below(x.flatten(1))))
            return out

    net = WithCut()
    step = OnTape(net, cross_entropy, SGDPH(noisy_groups(net), 0.05, without_curvature="raise"))
    for x, y in pieces(3):
        with pytest.raises(NoCurvatureError):
            step(x, y)
    assert step.graphs == 0


def test_an_error_without_a_message_is_told_by_its_class_where_a_step_is_recorded() -> None:
    def before_step() -> None:
        if capturing.is_capturing():
            raise RuntimeError

    net = Noisy()
    step = OnTape(net, cross_entropy, SGDPH(noisy_groups(net), 0.05), before_step=before_step)
    *first, (x, y) = pieces(5)  # a turn of each of the four parameters, and then the first one's again
    for batch in first:
        step(*batch)
    with pytest.raises(CaptureError, match="cannot be captured as a CUDA graph: RuntimeError Something"):
        step(x, y)
