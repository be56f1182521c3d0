"""Python's own state around a dry run: what the forward pass changed of it, and how it is put back."""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import is_
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.optim.capture.called_code import filled, parts_of
from sgdph_fx.optim.capture.code_words import words_of
from sgdph_fx.optim.capture.seen_values import VALUES

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
def host_put_back(modules: Sequence[nn.Module], function: object) -> Iterator[None]:
    """Put back what Python may have changed: attributes of modules, variables of the function, random numbers.

    Of lists, dicts and sets that they hold, too: a loss function keeps a record of its losses in one.

    Args:
        modules: All that take part.
        function: The loss function; those that it calls look after themselves.
    """
    kept = [(module.__dict__, dict(module.__dict__)) for module in modules]
    cells, places = _cells(function), _places(function)
    held = [value for _, values in kept for key, value in values.items() if key not in _TORCHS]
    held += [value for _, value in cells] + [value for _, values in places for value in values.values()]
    containers = [(value, copy.copy(value)) for value in held if type(value) in _CONTAINERS]
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
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(drawn_by_numpy)


def _cells(function: object) -> list[tuple[Any, Any]]:
    """The variables around the function, with their values."""
    every = (f for part in parts_of(function) for f in part.functions)
    return [(cell, value) for f in every for _, cell, value in filled(f)]


def _places(function: object) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Where the function finds its global variables and its object's attributes, and those that it reads."""
    found: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
    for part in parts_of(function):
        names = words_of(part.functions)
        own = {} if isinstance(part.owner, ModuleType) else getattr(part.owner, "__dict__", {})
        held = [*((f.__globals__, names.variables) for f in part.functions), (own, names.attributes)]
        found += [(place, {key: place[key] for key in keys & place.keys()}) for place, keys in held]
    return found


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
