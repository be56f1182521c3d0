"""What a step reads of objects, by whatever way it comes to them, is followed between captured steps."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx.optim import SGDPH
from tests.optim.test_captured_changes import held

pytestmark = pytest.mark.usefixtures("fake_graphs")


class Rated:
    """A rate as an attribute, a property and a method."""

    def __init__(self) -> None:
        self.kept = 0.0

    @property
    def rate(self) -> float:
        return self.kept

    def asked(self) -> float:
        return self.kept


class Slotted:
    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.0


def beside(rate: Callable[[], Any], change: Callable[[], object]) -> Any:
    """What ``held`` takes: the loss and a penalty times the rate, no ``before_step``, and what changes."""
    return lambda out, y: cross_entropy(out, y) + rate() * out.square().mean(), None, change


def of_a_property() -> Any:
    rated = Rated()
    return beside(lambda: rated.rate, lambda: setattr(rated, "kept", 1.0))


def of_a_method_of_an_object() -> Any:
    rated = Rated()
    return beside(lambda: rated.asked(), lambda: setattr(rated, "kept", 1.0))


def of_slots() -> Any:
    slotted = Slotted()
    return beside(lambda: slotted.rate, lambda: setattr(slotted, "rate", 1.0))


def of_a_name_that_is_put_together() -> Any:
    config, name = types.SimpleNamespace(rate=0.0), "rate"
    return beside(lambda: getattr(config, name), lambda: setattr(config, "rate", 1.0))


def of_a_dict_in_a_dict() -> Any:
    config, names = {"first": {"rate": 0.0}, "second": {"rate": 0.0}}, ["first", "second"]
    return beside(lambda: sum(config[n]["rate"] for n in names), lambda: config["second"].update(rate=1.0))


def of_objects_in_a_list() -> Any:
    rates = [types.SimpleNamespace(rate=0.0), types.SimpleNamespace(rate=0.0)]
    return beside(lambda: sum(r.rate for r in rates), lambda: setattr(rates[1], "rate", 1.0))


@pytest.mark.parametrize("make", [made for name, made in globals().items() if name.startswith("of_")])
def test_of_objects(make: Callable[[], Any]) -> None:
    held(lambda net, optimizer: make())


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("where", ["forward hook", "gradient hook", "accumulation hook", "attribute"])
def test_of_a_function_that_a_module_or_parameter_holds(where: str) -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        box = types.SimpleNamespace(rate=1.0)
        weight = net.linear.weight
        if where == "forward hook":
            net.linear.register_forward_hook(lambda module, args, out: box.rate * out)
        elif where == "gradient hook":
            weight.register_hook(lambda g: box.rate * g)
        elif where == "accumulation hook":

            def scale(parameter: Any) -> None:
                parameter.grad.mul_(box.rate)

            weight.register_post_accumulate_grad_hook(scale)
        else:
            net.applied = Applied(lambda x: box.rate * x)
            net.linear.register_forward_hook(lambda module, args, out: net.applied(out))
        return cross_entropy, None, lambda: setattr(box, "rate", 0.1)

    held(make)
