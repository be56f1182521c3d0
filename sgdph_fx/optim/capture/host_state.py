"""Python's own state around a dry run: what the forward pass changed of it, and how it is put back."""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.optim.capture.host_values import VALUES, variables_put_back

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

    Args:
        modules: All that take part.
        function: The loss function; those that it calls look after themselves.
    """
    kept = [(module.__dict__, dict(module.__dict__)) for module in modules]
    held = [value for _, values in kept for key, value in values.items() if key not in _TORCHS]
    containers = [(value, copy.copy(value)) for value in held if type(value) in _CONTAINERS]
    tensors = [(value, value._version, value.detach().clone()) for value in held if _is_own(value)]
    outside = variables_put_back(function)
    drawn, numpy = random.getstate(), sys.modules.get("numpy")
    drawn_by_numpy = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        for place, values in kept:
            _restore(place, values)
        for container, values in containers:
            _refill(container, values)
        with torch.no_grad():
            for tensor, version, numbers in tensors:
                if tensor._version != version:
                    tensor.copy_(numbers)
        outside()
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(drawn_by_numpy)


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
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(values)
    else:
        container.extend(values)
