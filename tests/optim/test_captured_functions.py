"""What functions, methods, objects and lists of a step read is followed where it changes between captured steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx.optim import SGDPH
from tests.optim.test_captured_changes import held

pytestmark = pytest.mark.usefixtures("fake_graphs")


class Penalty:
    """alpha times the mean square, as an object, a method and a function."""

    def __init__(self) -> None:
        self.alpha = 0.0

    def __call__(self, out: Tensor) -> Tensor:
        return self.alpha * out.square().mean()

    def of(self, out: Tensor) -> Tensor:
        return self(out)

    def function(self) -> Callable[[Tensor], Tensor]:
        return lambda out: self.alpha * out.square().mean()

    def grow(self) -> None:
        self.alpha = 1.0


def beside(term: Any, change: Callable[[], object]) -> Any:
    """What ``held`` takes: a loss function that adds the term, no ``before_step``, and what changes."""
    return lambda out, y: cross_entropy(out, y) + term(out), None, change


def of_two_closures_of_one_factory() -> Any:
    first, second = Penalty(), Penalty()
    f, g = first.function(), second.function()
    return beside(lambda out: f(out) + g(out.tanh()), lambda: (first.grow(), second.grow()))


def of_the_second_alone() -> Any:
    first, second = Penalty(), Penalty()
    f, g = first.function(), second.function()
    return beside(lambda out: g(out.tanh()) + f(out), second.grow)


def of_the_first_alone() -> Any:
    first, second = Penalty(), Penalty()
    f, g = first.function(), second.function()
    return beside(lambda out: f(out) + g(out.tanh()), first.grow)


def of_an_object() -> Any:
    penalty = Penalty()
    return beside(penalty, penalty.grow)


def of_an_object_that_is_the_loss() -> Any:
    class Loss(Penalty):
        def __call__(self, out: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return cross_entropy(out, y) + self.alpha * out.square().mean()

    loss = Loss()
    return loss, None, loss.grow


def of_a_method() -> Any:
    penalty = Penalty()
    return beside(penalty.of, penalty.grow)


def of_a_partial_inside() -> Any:
    penalty = Penalty()
    return beside(functools.partial(penalty.function()), penalty.grow)


def of_functions_in_a_list() -> Any:
    penalties = [Penalty(), Penalty()]
    terms = [penalty.function() for penalty in penalties]
    return beside(lambda out: sum(term(out) for term in terms), penalties[1].grow)


def of_numbers_in_a_list() -> Any:
    rates = [0.0, 0.0]
    return beside(lambda out: rates[1] * out.square().mean(), lambda: rates.__setitem__(1, 1.0))


def of_numbers_in_a_dict() -> Any:
    rates = {"square": 0.0, "mean": 0.0}

    def term(out: Tensor) -> Any:
        made = {"square": out.square().mean(), "mean": out.mean()}
        return sum(rates[name] * value for name, value in made.items())

    return beside(term, lambda: rates.update(square=1.0))


def of_a_tuple_that_is_another() -> Any:
    box = Penalty()
    box.alpha = (0.0,)  # type: ignore[assignment]
    change = lambda: setattr(box, "alpha", (0.5, 0.5))  # noqa: E731
    return beside(lambda out: sum(box.alpha) * out.square().mean(), change)  # type: ignore[call-overload]


def of_a_list_that_is_another() -> Any:
    box = Penalty()
    box.alpha = [0.0]  # type: ignore[assignment]
    change = lambda: setattr(box, "alpha", [0.5, 0.5])  # noqa: E731
    return beside(lambda out: sum(box.alpha) * out.square().mean(), change)  # type: ignore[call-overload]


def of_a_number_of_the_class() -> Any:
    class Own(Penalty):
        rate = 0.0

        def __call__(self, out: Tensor) -> Tensor:
            return self.rate * out.square().mean()

    return beside(Own(), lambda: setattr(Own, "rate", 1.0))


RATES = {"of_a_call": 0.0, "of_a_forward": 0.0}


def of_what_the_call_of_a_parent_reads() -> Any:
    class Base:
        def __call__(self, out: Tensor) -> Tensor:
            return RATES["of_a_call"] * out.square().mean()

    class Own(Base):
        def __call__(self, out: Tensor) -> Tensor:
            return super().__call__(out) + out.mean()

    RATES["of_a_call"] = 0.0
    return beside(Own(), lambda: RATES.update(of_a_call=1.0))


def of_what_the_forward_of_a_parent_reads() -> Any:
    class Base(nn.Module):
        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(out, y) + RATES["of_a_forward"] * out.square().mean()

    class Own(Base):
        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return super().forward(out, y) + out.mean()

    RATES["of_a_forward"] = 0.0
    return Own(), None, lambda: RATES.update(of_a_forward=1.0)


def of_what_a_method_reads_that_only_a_parent_has() -> Any:
    class Base:
        def __init__(self) -> None:
            self.rate = 0.0

        def scaled(self, out: Tensor) -> Tensor:
            return self.rate * out.square().mean()

    class Own(Base):
        def __call__(self, out: Tensor) -> Tensor:
            return super().scaled(out)

    own = Own()
    return beside(own, lambda: setattr(own, "rate", 1.0))


def of_static_and_class_methods() -> Any:
    class Own:
        @staticmethod
        def squared(out: Tensor) -> Tensor:
            return RATES["of_a_call"] * out.square().mean()

        @classmethod
        def of_class(cls, out: Tensor) -> Tensor:
            return RATES["of_a_forward"] * out.mean()

        def __call__(self, out: Tensor) -> Tensor:
            return self.squared(out) + self.of_class(out)

    RATES.update(of_a_call=0.0, of_a_forward=0.0)
    return beside(Own(), lambda: RATES.update(of_a_call=1.0))


def of_a_class_method() -> Any:
    change = of_static_and_class_methods()
    return *change[:2], lambda: RATES.update(of_a_forward=1.0)


def of_a_number_of_a_modules_class() -> Any:
    class Base(nn.Module):
        rate = 0.0

    class Own(Base):
        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(out, y) + self.rate * out.square().mean()

    return Own(), None, lambda: setattr(Base, "rate", 1.0)


def of_nothing_but_a_record() -> Any:
    """A list that grows where a step is recorded ends no graph: the test counts replays."""
    calls: list[int] = []

    def term(out: Tensor) -> float:
        calls.append(1)
        return 0.0

    return beside(term, lambda: None)


OF_FUNCTIONS = [made for name, made in globals().items() if name.startswith("of_")]


@pytest.mark.parametrize("make", OF_FUNCTIONS)
def test_of_functions(make: Callable[[], Any]) -> None:
    held(lambda net, optimizer: make())


class Scaled(nn.Module):
    """Times a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_of_a_view_of_the_same_memory() -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        scaled = Scaled()
        net.linear.register_forward_hook(lambda module, args, out: scaled(out))
        net.scaled = scaled
        return cross_entropy, None, lambda: setattr(scaled, "scale", scaled.scale[:1])

    held(make)


def test_of_a_weight_that_is_read_in_another_order() -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        net.square = nn.Linear(3, 3)
        net.linear.register_forward_hook(lambda module, args, out: net.square(out))
        optimizer.add_param_group({"params": list(net.square.parameters()), "order": 1})
        weight = net.square.weight
        return cross_entropy, None, lambda: setattr(weight, "data", weight.data.t())

    held(make)


def test_of_the_forward_of_a_class() -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        class Own(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x

        net.own = Own()
        net.linear.register_forward_hook(lambda module, args, out: net.own(out))
        return cross_entropy, None, lambda: setattr(Own, "forward", lambda self, x: 3 * x)

    held(make)
