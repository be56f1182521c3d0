"""What Python holds and somebody changes between captured steps is followed: a loop written out is the oracle."""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from sgdph_fx.optim import SGDPH
from tests.optim.captured_loops import Noisy, OnTape, Tempered, noisy_groups, pieces, state_of

pytestmark = pytest.mark.usefixtures("fake_graphs")

STEPS = 30
CHANGED_AT = 15  # each of the four turns has been replayed by then


class WrittenOut:
    """The steps that CapturedStep stands for."""

    def __init__(self, net: nn.Module, loss_fn: Any, optimizer: SGDPH, before_step: Any = None) -> None:
        self.net, self.loss_fn, self.optimizer, self.before_step = net, loss_fn, optimizer, before_step

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.net.zero_grad()
        self.optimizer.zero_grad()
        loss: Tensor = self.loss_fn(self.net(x), y)
        self.optimizer.backward(loss)
        if self.before_step is not None:
            self.before_step()
        self.optimizer.step()
        return loss.detach()


def train(kind: Any, make: Callable[[Any, SGDPH], Any]) -> list[Tensor]:
    """``make`` gives the loss function, ``before_step``, what changes, and what else is to be compared."""
    net = Noisy()
    optimizer = SGDPH(noisy_groups(net), 0.05, weight_decay=0.01)
    loss_fn, before_step, change, *more = make(net, optimizer)
    step = kind(net, loss_fn, optimizer, before_step=before_step)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also the word that graphs are given up
        for number, (x, y) in enumerate(pieces(STEPS)):
            if number == CHANGED_AT:
                change()
            step(x, y)
    if kind is OnTape:
        assert step._recorder.replayed > STEPS // 3
    return [*(t.clone() for t in state_of(net, optimizer)), *more]


def held(make: Callable[[Any, SGDPH], Any]) -> None:
    written, plain, taped = (train(kind, make) for kind in (WrittenOut, CapturedStep, OnTape))
    torch.testing.assert_close(taped, plain, rtol=0, atol=0)
    torch.testing.assert_close(plain, written, rtol=1e-3, atol=2e-4)


def set_(owner: Any, **values: Any) -> Callable[[], None]:
    return lambda: owner.__dict__.update(values)


def hooked(net: Any) -> Callable[[], object]:
    return lambda: net.linear.register_forward_hook(lambda m, args, out: 2 * out)


def tripled(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(3)


CHANGES: dict[str, Callable[[Any], Callable[[], object]]] = {
    "dropout's rate": lambda net: set_(net.drop, p=0.7),
    "batch norm's momentum": lambda net: set_(net.norm, momentum=0.5),
    "a module": lambda net: lambda: setattr(net, "drop", nn.Identity()),
    "a buffer": lambda net: lambda: net.norm.register_buffer("running_mean", torch.ones(4)),
    "a parameter's memory": lambda net: lambda: setattr(net.linear.weight, "data", net.linear.weight * 2),
    "a forward hook": hooked,
    "a hook of a parameter": lambda net: lambda: net.linear.weight.register_hook(torch.zeros_like),
    "a hook after accumulation": lambda net: (
        lambda: net.linear.weight.register_post_accumulate_grad_hook(tripled)
    ),
    "the forward of an object": lambda net: set_(net.linear, forward=lambda x: net.conv.bias[:3] + x[:, :3]),
    "requires_grad": lambda net: lambda: net.conv.requires_grad_(False),
    "the mode of a module": lambda net: net.norm.eval,
}


@pytest.mark.parametrize("name", CHANGES)
def test_of_the_model(name: str) -> None:
    held(lambda net, _: (cross_entropy, None, CHANGES[name](net)))


def weighted(net: Any, optimizer: SGDPH) -> Any:
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    return loss, None, lambda: setattr(loss, "weight", torch.tensor([1.0, 5.0, 0.1]))


def smoothed(net: Any, optimizer: SGDPH) -> Any:
    loss = nn.CrossEntropyLoss()
    return loss, None, set_(loss, label_smoothing=0.3)


def of_a_closure(net: Any, optimizer: SGDPH) -> Any:
    alpha = 0.0

    def change() -> None:
        nonlocal alpha
        alpha = 1.0

    return lambda out, y: cross_entropy(out, y) + alpha * out.square().mean(), None, change


ALPHA = {"rate": 0.0}


def penalty(out: Tensor) -> Tensor:
    return ALPHA["rate"] * out.square().mean()


def of_a_function_that_is_called(net: Any, optimizer: SGDPH) -> Any:
    ALPHA["rate"] = 0.0
    return lambda out, y: cross_entropy(out, y) + penalty(out), None, lambda: ALPHA.update(rate=1.0)


def of_a_partial(net: Any, optimizer: SGDPH) -> Any:
    weight = torch.ones(3)
    return (
        functools.partial(cross_entropy, weight=weight),
        None,
        lambda: weight.copy_(torch.tensor([1, 5, 0.1])),
    )


def of_a_trainers_method(net: Any, optimizer: SGDPH) -> Any:
    class Trainer:
        alpha, steps = 0.0, 0

        def __init__(self) -> None:
            self.config = types.SimpleNamespace(beta=1.0)

        def loss(self, out: Tensor, y: Tensor) -> Tensor:
            return self.config.beta * self.scaled(out, y)

        def scaled(self, out: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(out, y) * self.factor

        @property
        def factor(self) -> float:
            return 1 + self.alpha

        def count(self, *_: object) -> None:
            self.steps += 1  # what the loss does not read ends no graph

        def change(self) -> None:
            self.alpha, self.config.beta = 0.5, 0.3

    trainer = Trainer()
    optimizer.register_step_post_hook(trainer.count)
    return trainer.loss, None, trainer.change


def of_clipping(net: Any, optimizer: SGDPH) -> Any:
    most, norms = 1.0, []

    def clip() -> None:
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), most))

    def change() -> None:
        nonlocal most
        most = 0.01

    return cross_entropy, clip, change


def second_optimizer(net: Any, optimizer: SGDPH) -> torch.optim.SGD:
    own = list(net.linear.parameters())
    for group in optimizer.param_groups:
        kept = [i for i, p in enumerate(group["params"]) if not any(p is q for q in own)]
        group.update({key: [group[key][i] for i in kept] for key in ("params", "index")})
    return torch.optim.SGD(own, 0.1, momentum=0.5)


def of_a_second_optimizer(net: Any, optimizer: SGDPH) -> Any:
    second = second_optimizer(net, optimizer)
    return cross_entropy, second.step, lambda: second.param_groups[0].update(lr=0.01)


def of_a_second_optimizers_state(net: Any, optimizer: SGDPH) -> Any:
    second = second_optimizer(net, optimizer)

    def load() -> None:
        state = copy.deepcopy(second.state_dict())
        for own in state["state"].values():
            own["momentum_buffer"].mul_(-5)
        second.load_state_dict(state)

    return cross_entropy, second.step, load


def of_a_loss_with_parameters(net: Any, optimizer: SGDPH) -> Any:
    loss = Tempered()
    optimizer.add_param_group({"params": [loss.heat], "order": 1})
    return loss, None, loss.eval, loss.heat.detach(), loss.seen


FUNCTIONS = (
    weighted,
    smoothed,
    of_a_closure,
    of_a_function_that_is_called,
    of_a_partial,
    of_a_trainers_method,
    of_clipping,
    of_a_second_optimizer,
    of_a_second_optimizers_state,
    of_a_loss_with_parameters,
)


@pytest.mark.parametrize("make", FUNCTIONS)
def test_of_the_functions(make: Any) -> None:
    held(make)


@pytest.mark.parametrize("key", ["probe", "momentum", "hessian_interval", "max_preconditioner", "seed"])
def test_of_the_groups(key: str) -> None:
    value = {"probe": "rademacher-4", "momentum": 0.0, "hessian_interval": 3, "seed": 9}.get(key, 0.5)

    def make(net: Any, optimizer: SGDPH) -> Any:
        for group in optimizer.param_groups:
            group["probe"] = "rademacher"
        return cross_entropy, None, lambda: [group.update({key: value}) for group in optimizer.param_groups]

    held(make)
