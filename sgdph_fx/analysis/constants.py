"""What a trace computes from numbers, buffers and frozen parameters alone, whatever the input is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from sgdph_fx.rules.calls import METADATA, operation_name

__all__ = ["called_on", "constant_shape", "held_at", "is_constant"]

_RANDOM = (
    "rand",
    "dropout",
    "bernoulli",
    "normal",
    "multinomial",
    "poisson",
    "uniform",
    "exponential",
    "empty",
)


def is_constant(value: object, modules: Mapping[str, nn.Module]) -> bool:
    """Whether an operand is a number, a buffer, or computed from such alone."""
    if isinstance(value, int | float):
        return True
    if not isinstance(value, fx.Node):
        return False
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop()
        if node.op == "get_attr":
            if _trains(node, modules):
                return False
        elif node.op not in ("call_function", "call_method"):
            return False
        elif operation_name(node) not in METADATA:
            if any(word in operation_name(node) for word in _RANDOM):
                return False
            fresh = [operand for operand in node.all_input_nodes if operand not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
    return True


def _trains(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    owner, _, leaf = str(node.target).rpartition(".")
    module = modules.get(owner)
    parameter = None if module is None else module._parameters.get(leaf)
    return parameter is not None and parameter.requires_grad


def constant_shape(value: object, modules: Mapping[str, nn.Module]) -> tuple[int, ...]:
    """The shape of a constant: that of the recorded run, else of what it is when it is computed.

    Raises:
        Exception: whatever the computation raises where it cannot be done without a run of the model.
    """
    if isinstance(value, fx.Node) and "shape" in value.meta:
        return tuple(value.meta["shape"])
    return tuple(torch.as_tensor(_computed(value, modules)).shape)


def _computed(node: Any, modules: Mapping[str, nn.Module]) -> Any:
    if not isinstance(node, fx.Node):
        return node
    if node.op == "get_attr":
        return held_at(node, modules)
    return called_on(node, lambda operand: _computed(operand, modules))


def held_at(node: fx.Node, modules: Mapping[str, nn.Module]) -> Any:
    """What the model holds at the dotted name that ``node`` reads."""
    owner, _, leaf = str(node.target).rpartition(".")
    return getattr(modules[owner], leaf)


def called_on(node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """What the function or method of ``node`` returns for the ``value`` of each of its operands.

    Raises:
        Exception: whatever the call raises.
    """
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), value)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)
