"""An error at every single step of putting a model back: it is as it was all the same."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import analyze, prepare, restore
from sgdph_fx.errors import ModelChangedError, ModelError, TraceError
from sgdph_fx.trace.reachable import Found
from tests.trace.restless import CHANGES, Restless
from tests.trace.states import state_of

X = torch.rand(2, 3, 6, 6)
pytestmark = pytest.mark.filterwarnings("ignore")


def all_changes(m: Restless, x: Tensor) -> None:
    for name, change in CHANGES.items():
        if name not in ("modules and class", "transposed in place", "flags"):
            change(m, x)


class Fault:
    """Raises at one step, once or each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int, always: bool) -> None:
        self.count, self.raised = 0, 0
        self._error, self._at, self._always = error, at, always
        self._target = None
        for name in ("steps", "glances"):
            original = getattr(Found, name)
            monkeypatch.setattr(Found, name, lambda found, original=original: self._steps(found, original))

    def _steps(
        self, found: Found, original: Callable[[Found], Iterator[Callable[[], None]]]
    ) -> Iterator[Callable[[], None]]:
        for place, step in enumerate(original(found)):
            self.count = max(self.count, place + 1)
            if place == self._at and self._target is None:
                self._target = step.__self__  # in the next round it may stand elsewhere
            yield self._failing(step) if step.__self__ is self._target else step

    def _failing(self, step: Callable[[], None]) -> Callable[[], None]:
        def fail() -> None:
            if self._always or not self.raised:
                self.raised += 1
                raise self._error
            step()

        return fail


def steps_of(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> int:
    with monkeypatch.context() as m:
        fault = Fault(m, ValueError(), -1, False)
        analyze(model, X)
    return fault.count


def changed() -> Restless:
    model = Restless(lambda m, x: None)
    model(X).sum().backward()
    model.change = all_changes
    return model


@pytest.mark.parametrize("error", [ValueError("once"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_one_that_passes_loses_nothing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    model = changed()
    before, steps = state_of(model), steps_of(monkeypatch, model)
    assert steps > 50
    for at in range(steps):
        with monkeypatch.context() as m:
            fault = Fault(m, error, at, False)
            with nullcontext() if isinstance(error, Exception) else pytest.raises(type(error)):
                analyze(model, X)
        assert fault.raised == 1
        assert state_of(model) == before, at


def test_one_that_stays_leaves_only_its_own_object_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed()
    before, steps = state_of(model), steps_of(monkeypatch, model)
    for at in range(0, steps, 7):
        with monkeypatch.context() as m:
            Fault(m, RuntimeError("no way back"), at, True)
            with pytest.raises(
                ModelChangedError, match=r"1 change could not be undone \(RuntimeError: no way back\)"
            ):
                analyze(model, X)
        after = state_of(model)
        different = [name for name in before if before[name] != after[name]]
        assert len(different) <= 4, different
        model, before = (again := changed()), state_of(again)


class Failing:
    """Does what a function does, but fails at one call."""

    def __init__(self, function: Callable[..., Any], at: int, error: BaseException | None = None) -> None:
        self.function, self.at, self.calls = function, at, 0
        self.error = error or MemoryError("injected")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.at + 1:
            raise self.error
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return functools.partial(self, instance)


@pytest.mark.parametrize("name", ["copy_", "equal", "resize_", "clone", "detach"])
def test_an_error_of_torch_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each call of an operation that putting back may need fails in its turn."""
    owner: Any = torch if name == "equal" else Tensor
    model, at = changed(), 0
    before = state_of(model)
    while True:
        failing = Failing(getattr(owner, name), at)
        with monkeypatch.context() as m, suppress(TraceError, ModelError):
            m.setattr(owner, name, failing)
            analyze(model, X)
        assert state_of(model) == before, at
        if failing.calls <= at:
            break
        at += 1
    assert at > 0


@pytest.mark.parametrize("place", ["decompose", "_replace", "decoupled_class", "plain_class_of"])
def test_a_preparation_in_place_that_fails_is_taken_back(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Whatever step of the rewriting fails: classes, parameters, numbers and gradients are those of before."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    nn.init.zeros_(model[2].weight)
    model(X).sum().backward()
    before = state_of(model)
    module: Any = importlib.import_module("sgdph_fx.transform.decouple")
    original = getattr(module, place)
    for at in range(2):
        with monkeypatch.context() as m:
            m.setattr(module, place, Failing(original, at))
            with pytest.raises(MemoryError, match="injected"):
                prepare(model, X, inplace=True)
        assert state_of(model) == before


@pytest.mark.parametrize("error", [MemoryError("injected"), KeyboardInterrupt()], ids=repr)
def test_a_restoring_in_place_that_fails_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    prepare(model, X, inplace=True)
    torch.nn.init.constant_(model[2].direction, 3.0)
    model(X).sum().backward()
    before = state_of(model)
    module: Any = importlib.import_module("sgdph_fx.transform.decouple")
    for place in ("compose", "_parts", "_replace", "_restore_module"):
        original = getattr(module, place)
        for at in range(2):
            failing = Failing(original, at, error)
            with monkeypatch.context() as m:
                m.setattr(module, place, failing)
                with pytest.raises(type(error)):
                    restore(model, inplace=True)
            assert failing.calls == at + 1
            assert state_of(model) == before, (place, at)
    assert list(restore(model, inplace=True).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_an_interruption_leaves_no_stand_in_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rooted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    before = math.sqrt, nn.Module.__call__, nn.Module.__getattr__
    with pytest.raises(KeyboardInterrupt):
        analyze(Rooted())
    assert (math.sqrt, nn.Module.__call__, nn.Module.__getattr__) == before
