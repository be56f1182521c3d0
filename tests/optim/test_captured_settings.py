"""Captured steps follow settings wherever people keep them: in files, classes, objects and containers of many kinds."""

from __future__ import annotations

import collections
import functools
import random
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx.optim import SGDPH
from tests.optim import captured_settings
from tests.optim.captured_loops import KINDS, made, pieces
from tests.optim.test_captured_changes import held, train
from tests.optim.test_captured_functions import beside

pytestmark = pytest.mark.usefixtures("fake_graphs")


def of_file(term: Any) -> Any:
    captured_settings.reset()
    return beside(term, captured_settings.grow)


def of_a_function_of_a_file() -> Any:
    return of_file(lambda out: captured_settings.penalty(out))


def of_a_class_in_a_file() -> Any:
    return of_file(lambda out: captured_settings.Settings.rate * out.square().mean())


def of_a_class_method() -> Any:
    return of_file(lambda out: captured_settings.Settings.penalty(out))


def of_an_import_inside() -> Any:
    def term(out: Tensor) -> Tensor:
        from tests.optim.captured_settings import RATE

        return RATE * out.square().mean()

    return of_file(term)


def of_a_cached_function() -> Any:
    @functools.cache
    def rate() -> float:
        return captured_settings.RATE

    captured_settings.reset()
    return beside(
        lambda out: rate() * out.square().mean(), lambda: (captured_settings.grow(), rate.cache_clear())
    )


class Settings:
    """By attributes that it does not have, by keys, and as a number."""

    def __init__(self, **values: Any) -> None:
        self.__dict__["_kept"] = values

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["_kept"][name]

    def __getitem__(self, name: str) -> Any:
        return self._kept[name]

    def __mul__(self, other: Tensor) -> Tensor:
        return other * self._kept["rate"]


def of_attributes_that_a_method_finds() -> Any:
    settings = Settings(loss=Settings(rate=0.0))
    return beside(
        lambda out: settings.loss.rate * out.square().mean(), lambda: settings.loss._kept.update(rate=1.0)
    )


def of_an_item() -> Any:
    settings = Settings(rate=0.0)
    return beside(lambda out: settings["rate"] * out.square().mean(), lambda: settings._kept.update(rate=1.0))


def of_an_operator() -> Any:
    settings = Settings(rate=0.0)
    return beside(lambda out: settings * out.square().mean(), lambda: settings._kept.update(rate=1.0))


def of_a_long_way() -> Any:
    inner = types.SimpleNamespace(rate=0.0)
    outer = functools.reduce(lambda held, _: types.SimpleNamespace(held=held), range(4), inner)
    return beside(
        lambda out: outer.held.held.held.held.rate * out.square().mean(),
        lambda: setattr(inner, "rate", 1.0),
    )


def of_an_array() -> Any:
    rates = numpy.zeros(3)
    return beside(lambda out: float(rates[1]) * out.square().mean(), lambda: rates.__setitem__(1, 1.0))


def of_a_set() -> Any:
    active = {"entropy"}
    return beside(lambda out: out.square().mean() * ("square" in active), lambda: active.add("square"))


def of_a_list_that_grows() -> Any:
    rates = [0.0]
    return beside(lambda out: sum(rates) * out.square().mean(), lambda: rates.append(1.0))


def of_a_queue() -> Any:
    rates = collections.deque([0.0])
    return beside(lambda out: rates[0] * out.square().mean(), lambda: rates.append(rates.popleft() + 1.0))


def of_a_tensor_in_a_list() -> Any:
    rates = [torch.zeros(()), torch.zeros(())]
    return beside(lambda out: sum(rates) * out.square().mean(), lambda: rates.__setitem__(1, torch.ones(())))


def of_a_term_that_joins() -> Any:
    terms: list[Callable[[Tensor], Tensor]] = [lambda out: 0 * out.mean()]
    return beside(
        lambda out: sum(term(out) for term in terms), lambda: terms.append(lambda out: out.square().mean())
    )


def of_code_that_is_exchanged() -> Any:
    """As `%autoreload` does."""

    def old(out: Tensor) -> Tensor:
        return 0 * out.mean()

    def new(out: Tensor) -> Tensor:
        return out.square().mean()

    return beside(old, lambda: setattr(old, "__code__", new.__code__))


def of_a_list_of_a_modules_class() -> Any:
    class Weighted(nn.Module):
        rates: ClassVar = [0.0, 0.0]

        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(out, y) + self.rates[1] * out.square().mean()

    return Weighted(), None, lambda: Weighted.rates.__setitem__(1, 1.0)


def of_an_object_of_a_module_that_is_passed() -> Any:
    model: Any = nn.Identity()
    model.settings = types.SimpleNamespace(rate=0.0)

    def rate_of(module: Any) -> Any:
        return module.settings.rate

    return beside(
        lambda out: rate_of(model) * out.square().mean(), lambda: setattr(model.settings, "rate", 1.0)
    )


def of_a_function_of_autograds() -> Any:
    class Reversed(torch.autograd.Function):
        rate = 1.0

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return -Reversed.rate * grad

    return beside(lambda out: Reversed.apply(out).square().mean() / 9, lambda: setattr(Reversed, "rate", 0.1))


@pytest.mark.parametrize("make", [made for name, made in globals().items() if name.startswith("of_a")])
def test_of_settings(make: Callable[[], Any]) -> None:
    held(lambda net, optimizer: make())


def test_of_torchs_own() -> None:
    """Numbers that Python makes tensors of are float64 from then on."""
    before, found = torch.get_default_dtype(), []

    def make(net: Any, optimizer: SGDPH) -> Any:
        term = lambda out: (out.double() * torch.full((3,), 0.37)).square().mean().float()  # noqa: E731
        return beside(term, lambda: torch.set_default_dtype(torch.float64))

    for kind in KINDS:
        try:
            found.append(train(kind, make))
        finally:
            torch.set_default_dtype(before)
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["before the step", "a gradient hook"])
@pytest.mark.parametrize("drawn", ["Python's", "NumPy's", "one's own"])
@pytest.mark.filterwarnings("ignore:.*changes at every step:RuntimeWarning")
def test_what_python_draws_where_no_dry_run_looks_ends_the_graphs(where: str, drawn: str) -> None:
    found = []
    for kind in KINDS:
        random.seed(1)
        numpy.random.seed(1)
        own = numpy.random.default_rng(1)
        draw = {
            "Python's": random.random,
            "NumPy's": lambda: float(numpy.random.rand()),
            "one's own": own.random,
        }[drawn]
        net = made(kind)[0]
        optimizer = SGDPH([{"params": list(net.parameters()), "order": 1}], 0.1)

        def scale(net: Any = net, draw: Any = draw) -> None:
            net.linear.weight.grad.mul_(draw())

        before_step = scale if where == "before the step" else None
        if where == "a gradient hook":
            net.linear.weight.register_hook(lambda grad, draw=draw: grad * draw())
        step = kind(net, cross_entropy, optimizer, before_step=before_step)
        torch.manual_seed(1)
        for x, y in pieces(8):
            step(x, y)
        found.append(net.linear.weight.detach())
    torch.testing.assert_close(*found, rtol=0, atol=0)
