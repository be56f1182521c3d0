"""Python's own state around a dry run: what the forward pass changed of it, and how it is put back."""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import is_
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.optim.capture.called_code import filled, is_your_file
from sgdph_fx.optim.capture.reached_values import elements, is_holder, parts_in
from sgdph_fx.optim.capture.seen_values import VALUES
from sgdph_fx.optim.capture.step_code import StepCode

__all__ = ["host_put_back", "plain_values", "tensors_held"]

_CONTAINERS = (list, dict, set, deque)
_TORCHS = frozenset({"_parameters", "_buffers", "_modules"})


def plain_values(named: Sequence[tuple[str, nn.Module]]) -> dict[str, Any]:
    """Numbers and texts that modules hold as attributes, also in lists and dicts there."""
    return {name: value for name, value in _attributes(named) if isinstance(value, VALUES)}


def tensors_held(named: Sequence[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Tensors that modules hold as attributes, in lists and dicts too, and have not registered as buffers."""
    return {name: value for name, value in _attributes(named) if _is_own(value)}


def _attributes(named: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Any]]:
    for name, module in named:
        for key, value in module.__dict__.items():
            if key not in _TORCHS:
                yield from _parts(f"{name}.{key}" if name else key, value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) is list:
        # By the length too: one that grows is a record of what was, and nothing is computed from it.
        yield from ((f"{name}[{place} of {len(value)}]", part) for place, part in enumerate(value))
    elif type(value) is dict:
        yield from ((f"{name}[{key!r}]", part) for key, part in value.items())
    else:
        yield name, value


@contextmanager
def host_put_back(code: StepCode) -> Iterator[None]:
    """Put back what Python may have changed: attributes of modules and objects, variables, random numbers.

    Of lists, dicts and sets that they hold, too: a loss function keeps a record of its losses in one.

    Args:
        code: Of the model and the loss function.
    """
    owners = [*code.modules, *_objects(code)]
    kept = [(owner.__dict__, dict(owner.__dict__)) for owner in owners]
    cells, places, classes = _cells(code), _places(code), _of_classes(code)
    held = [value for _, values in kept for key, value in values.items() if key not in _TORCHS]
    held += [value for _, value in cells] + [value for _, values in places for value in values.values()]
    held += [found.held for part in code.parts for found in part.found]
    containers = [(value, copy.copy(value)) for value in _containers(held)]
    generators = [(set_state, state) for value in held for set_state, state in _drawn_from(value)]
    drawn, numpy = random.getstate(), sys.modules.get("numpy")
    drawn_by_numpy = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        for attributes, own in kept:
            _restore(attributes, own)
        for container, values in containers:
            _refill(container, values)
        for cell, value in cells:
            cell.cell_contents = value
        for variables, values in places:
            variables.update(values)
        for kind, key, value in classes:
            if kind.__dict__.get(key) is not value:
                setattr(kind, key, value)
        for set_state, state in generators:
            set_state(state)
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(drawn_by_numpy)


def _cells(code: StepCode) -> list[tuple[Any, Any]]:
    """The variables around the functions, with their values."""
    every = (function for part in code.parts for function in part.functions)
    return [(cell, value) for function in every for _, cell, value in filled(function)]


def _places(code: StepCode) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Where the code finds global variables and attributes of files, and those that it reads."""
    found: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
    for part in code.parts:
        files = (f.held.__dict__ for f in part.found if isinstance(f.held, ModuleType))
        held = [
            *((function.__globals__, part.words.variables) for function in part.functions),
            *((place, part.words.attributes) for place in files),
            *([(part.owner.__dict__, part.words.attributes)] if isinstance(part.owner, FunctionType) else []),
        ]
        found += [(place, {key: place[key] for key in keys & place.keys()}) for place, keys in held]
    return found


def _objects(code: StepCode) -> list[Any]:
    """Objects of classes of yours, and those that methods of a library belong to."""
    held = [f.held for part in code.parts for f in part.found] + [part.owner for part in code.parts]
    held += [v for module in code.modules for key, v in module.__dict__.items() if key not in _TORCHS]
    several = {id(value): value for one in held for value in (one, *elements(one))}
    return [
        value
        for value in several.values()
        if not isinstance(value, (type, nn.Module, ModuleType, Tensor))
        and isinstance(getattr(value, "__dict__", None), dict)
        and is_holder(type(value))
    ]


def _of_classes(code: StepCode) -> list[tuple[type, str, Any]]:
    """What classes of yours hold for all of their objects, where code may read it."""
    kinds = dict.fromkeys(map(type, (*code.modules, *_objects(code))))
    kinds |= dict.fromkeys(f.held for part in code.parts for f in part.found if isinstance(f.held, type))
    names = code.names
    return [
        (ancestor, key, ancestor.__dict__[key])
        for kind in kinds
        for ancestor in kind.__mro__
        if is_your_file(ancestor.__module__)
        for key in parts_in(ancestor, names)
        if key in ancestor.__dict__
    ]


def _containers(held: Iterable[Any]) -> list[Any]:
    """Lists, dicts and sets, and those in them."""
    found: dict[int, Any] = {}
    waiting = list(held)
    while waiting:
        value = waiting.pop()
        if type(value) in _CONTAINERS and id(value) not in found:
            found[id(value)] = value
            waiting += [part for part in elements(value) if type(part) in _CONTAINERS]
    return list(found.values())


def _drawn_from(value: Any) -> Iterator[tuple[Callable[[Any], object], Any]]:
    """How a generator of Python's or NumPy's is put back, and its state."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield value.setstate, value.getstate()
    elif numpy is not None and isinstance(value, numpy.random.RandomState):
        yield value.set_state, value.get_state()
    elif numpy is not None and isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        yield partial(setattr, bits, "state"), bits.state


def _restore(place: dict[str, Any], values: dict[str, Any]) -> None:
    for key in [key for key in place if key not in values]:
        del place[key]
    for key, value in values.items():
        if place.get(key, _TORCHS) is not value:
            place[key] = value


def _is_own(value: Any) -> bool:
    """Whether it is a tensor that no table of torch's modules holds."""
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout is torch.strided


def _refill(container: Any, values: Any) -> None:
    now, before = _contents(container), _contents(values)
    if len(now) == len(before) and all(map(is_, now, before)):
        return
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(values)
    else:
        container.extend(values)


def _contents(container: Any) -> list[Any]:
    return (
        [part for pair in container.items() for part in pair] if type(container) is dict else list(container)
    )
