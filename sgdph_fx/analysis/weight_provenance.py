"""Weights that reach a functional convolution through views: whose they are, and whether their filters survive.

``F.conv1d(x, self.conv.weight.squeeze(1).unsqueeze(1))`` convolves by a parameter as much as ``self.conv(x)`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from sgdph_fx.rules.calls import METADATA, argument_reader, operation_name
from sgdph_fx.rules.kinds import Transparent
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.transform.filters import Filters, filter_numbers

__all__ = ["filters_preserved", "parameter_behind"]

# No gradient comes back through these.
_CUT = frozenset({"detach", "data"})
# These move no number; what they are given says nothing about places.
_IN_PLACE = frozenset(
    {"clone", "contiguous", "to", "type_as", "float", "double", "half", "bfloat16", "identity"}
)


def parameter_behind(weight: object) -> fx.Node | None:
    """The ``get_attr`` node that ``weight`` is a view, a part or a cast of; None if it is computed."""
    while isinstance(weight, fx.Node) and weight.op in ("call_function", "call_method"):
        rule = rule_of_operation(weight)
        passes = isinstance(rule, Transparent) and rule.shape_only and operation_name(weight) not in _CUT
        weight = argument_reader(weight)(0, "input", None) if passes else None
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def filters_preserved(weight: fx.Node, source: fx.Node, shape: Sequence[int], filters: Filters) -> bool:
    """Whether the output filters of ``weight`` are those of the parameter itself.

    Args:
        weight: What the convolution was given.
        source: The parameter's node, which ``weight`` is a view of.
        shape: The parameter's shape.
        filters: How filters lie in what the convolution was given; the same is asked of the parameter.

    Returns:
        False also where that cannot be told without running the model.
    """
    if weight is source:
        return True
    try:
        numbers = filter_numbers(shape, filters)
        moved = _value(weight, source, numbers)
        there = filter_numbers(moved.shape, filters)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    if moved.numel() != numbers.numel():
        return False  # a part of the parameter, or some of it several times
    # One to one: each filter there holds numbers of one filter here, and no two those of the same.
    one_of = torch.zeros_like(torch.unique(there)).scatter_(0, there.flatten(), moved.flatten())
    same = len(one_of) == len(torch.unique(one_of)) == len(torch.unique(numbers))
    return same and torch.equal(one_of[there], moved)


def _value(node: Any, source: fx.Node, numbers: Tensor) -> Any:
    """What the trace computes at ``node``, if the parameter held ``numbers``."""
    if node is source:
        return numbers
    name = operation_name(node) if node.op in ("call_function", "call_method") else ""
    if name in _IN_PLACE:
        return _value(argument_reader(node)(0, "input", None), source, numbers)
    if not (name in METADATA or isinstance(rule_of_operation(node), Transparent)):
        raise ValueError(f"{node} is no view of a parameter")
    args, kwargs = fx.node.map_arg(
        (node.args, dict(node.kwargs)), lambda operand: _value(operand, source, numbers)
    )
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    return node.target(*args, **kwargs)
