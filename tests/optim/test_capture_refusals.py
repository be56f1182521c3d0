"""What cannot be captured is refused with one error that says what and where, and nothing has changed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DataParallel

from sgdph_fx import CapturedStep
from sgdph_fx.errors import CaptureError, OptimizerError, StaleOptimizerError
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.capture import captured_step as module
from tests.optim.captured_loops import OnTape, noisy_groups, pieces
from tests.optim.recording import FakeRecorder


class Body(nn.Module):
    """Batch norm and dropout, and something in between."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.linear = nn.Linear(4, 3)
        self.calls = 0
        self.marks, self.count, self.last = [0], torch.zeros((), dtype=torch.int64), torch.zeros(4, 3, 3)
        self.kept = {"x": torch.zeros(4, 3, 3)}
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self, self.drop(self.norm(self.conv(x)).tanh()))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def branches(net: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def counts_classes(net: Any, x: Tensor) -> Tensor:
    return x * nn.functional.one_hot((x > 0).long()).shape[-1]


def reads(net: Any, x: Tensor) -> Tensor:
    return x * x.detach().std().item()


def masks(net: Any, x: Tensor) -> Tensor:
    return x + x[x > 0].mean()


def finds(net: Any, x: Tensor) -> Tensor:
    return x + len(x.nonzero())


def draws(net: Any, x: Tensor) -> Tensor:
    return x if random.random() < 2 else -x


def draws_by_numpy(net: Any, x: Tensor) -> Tensor:
    return x * float(numpy.random.rand())


def counts(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x / net.calls


def counts_in_a_list(net: Any, x: Tensor) -> Tensor:
    net.marks[0] += 1
    return x / net.marks[0]


def counts_in_a_tensor(net: Any, x: Tensor) -> Tensor:
    net.count += 1
    return x if int(net.count) < 9 else -x


def counts_afterwards(net: Any, x: Tensor) -> Tensor:
    x = x if int(net.count) < 9 else -x
    net.count += 1
    return x


def remembers(net: Any, x: Tensor) -> Tensor:
    net.last = x.detach() + net.last / 2
    return net.last + x


def remembers_in_a_dict(net: Any, x: Tensor) -> Tensor:
    x = x + net.kept["x"]
    net.kept["x"] = x.detach() / 2
    return x


WRONG: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "a branch on data": (branches, r"the host reads.*_local_scalar_dense at .*test_capture_refusals\.py:\d+"),
    "a number of classes": (counts_classes, r"_local_scalar_dense at .*test_capture_refusals\.py"),
    "a number read": (reads, r"_local_scalar_dense at .*test_capture_refusals\.py"),
    "a mask": (masks, r"index\.Tensor at .*test_capture_refusals\.py"),
    "a search": (finds, r"nonzero at .*test_capture_refusals\.py"),
    "Python's random": (draws, r"draws from Python's `random`"),
    "NumPy's random": (draws_by_numpy, r"draws from NumPy's global generator"),
    "a counter": (counts, r"changes the attribute 'calls' from 2 to 3"),
    "a counter in a list": (counts_in_a_list, r"changes the attribute 'marks\[0 of 1\]' from 2 to 3"),
    "a counter of torch's": (
        counts_in_a_tensor,
        r"the host reads.*_local_scalar_dense at .*test_capture_refus",
    ),
    "a counter read before": (
        counts_afterwards,
        r"writes into a tensor that lies with the host.*test_capture_ref",
    ),
    "a memory": (
        remembers,
        r"puts another tensor into the attribute 'last', which it reads at the next step",
    ),
    "memories": (remembers_in_a_dict, r"puts another tensor into the attribute \"kept\['x'\]\""),
}


@pytest.mark.parametrize("kind", [CapturedStep, OnTape])
@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_depends_on_the_host_is_refused_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type[CapturedStep]
) -> None:
    monkeypatch.setattr(module, "Recorder", FakeRecorder)
    between, says = WRONG[name]
    net = Body(between)
    optimizer = SGDPH(noisy_groups(net), 0.05)
    step = kind(net, cross_entropy, optimizer)
    ((x, y),) = pieces(1)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    generators = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
    with pytest.raises(CaptureError, match=says):
        step(x, y)
    assert all(torch.equal(value, before[0][key]) for key, value in net.state_dict().items())
    assert optimizer.state_dict() == before[1]
    assert (net.calls, net.marks, int(net.count)) == (0, [0], 0)
    assert not net.last.any()
    assert not net.kept["x"].any()
    assert random.getstate() == generators[0]
    assert numpy.random.get_state()[1].tolist() == generators[1]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert all(p.grad is None for p in net.parameters())


def constant(net: Any, x: Tensor) -> Tensor:
    """A number of the host's own is the same at each step."""
    return x * torch.tensor([2.0, 3.0])[1].item()


def cached(net: Any, x: Tensor) -> Tensor:
    net.calls = max(net.calls, x.shape[0])
    return x


def keeps_features(net: Any, x: Tensor) -> Tensor:
    net.last = x  # for whoever looks at it; nothing reads it again
    net.kept = {"x": x.mean()}
    return x


@pytest.mark.parametrize("between", [constant, cached, keeps_features])
def test_what_is_the_same_at_each_step_is_no_such_thing(
    between: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Recorder", FakeRecorder)
    net = Body(between)
    kind = CapturedStep if between is constant else OnTape  # on a tape no read at all is allowed
    step = kind(net, cross_entropy, SGDPH(noisy_groups(net), 0.05))
    for x, y in pieces(12):
        step(x, y)
    assert kind is CapturedStep or step.graphs == 4


@pytest.mark.parametrize("what", ["read", "error"])
def test_what_the_dry_run_does_not_see_is_refused_when_it_is_recorded(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """At the step before all is well; the refused step changes nothing, and the loop can go on written out."""
    monkeypatch.setattr(module, "Recorder", FakeRecorder)
    net = Body(lambda _, x: x)
    optimizer = SGDPH(noisy_groups(net), 0.05)
    seen: list[float] = []

    def look() -> None:
        assert net.linear.weight.grad is not None
        if what == "read":
            seen.append(net.linear.weight.grad.norm().item())
        elif len(seen) >= 4:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        else:
            seen.append(0.0)

    step = OnTape(net, cross_entropy, optimizer, before_step=look)
    data = pieces(6)
    for x, y in data[:4]:
        step(x, y)
    assert len(seen) == 4
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    with pytest.raises(CaptureError, match="operation not permitted when stream is capturing"):
        step(*data[4])
    assert all(torch.equal(value, before[0][key]) for key, value in net.state_dict().items())
    after = optimizer.state_dict()
    assert after["param_groups"] == before[1]["param_groups"]
    torch.testing.assert_close(after["state"], before[1]["state"], rtol=0, atol=0)
    optimizer.zero_grad()
    optimizer.backward(cross_entropy(net(data[5][0]), data[5][1]))
    optimizer.step()
    assert optimizer.statistics()["step"] == 5


def test_wrapped_models_are_refused() -> None:
    net = Body(lambda _, x: x)
    with pytest.raises(CaptureError, match="this DataParallel is wrapped"):
        CapturedStep(DataParallel(net), cross_entropy, SGDPH(noisy_groups(net), 0.05))


def test_a_loss_that_is_none_and_an_optimizer_of_another_model_are_told_as_ever() -> None:
    net, other = Body(lambda _, x: x), Body(lambda _, x: x)
    ((x, y),) = pieces(1)
    with pytest.raises(OptimizerError, match=r"loss of one number, but got shape \(8, 3\)"):
        CapturedStep(net, lambda out, _: out, SGDPH(noisy_groups(net), 0.05))(x, y)
    with pytest.raises(StaleOptimizerError):
        CapturedStep(net, cross_entropy, SGDPH(noisy_groups(other), 0.05))(x, y)
