"""Whether the output filters of a weight that was viewed, cast or scaled are those of the parameter behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from sgdph_fx.analysis.constants import constant_shape, is_constant
from sgdph_fx.analysis.weight_provenance import Provenance
from sgdph_fx.rules.calls import METADATA, argument_reader, operation_name
from sgdph_fx.rules.kinds import Transparent
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.transform.filters import Filters, filter_numbers

__all__ = ["filters_preserved"]

# These move no number; what they are given says nothing about places.
_IN_PLACE = {"clone", "contiguous", "identity", "neg", "to", "type", "type_as", "cpu", "cuda"}
_IN_PLACE |= {"float", "double", "half", "bfloat16"}


def filters_preserved(
    weight: fx.Node,
    made: Provenance,
    shape: Sequence[int],
    filters: Filters,
    modules: Mapping[str, nn.Module],
) -> bool:
    """Whether the output filters of ``weight`` are those of the parameter itself.

    Args:
        weight: What the convolution was given.
        made: What makes it: a view or a constant multiple of a parameter.
        shape: The parameter's shape.
        filters: How filters lie in what the convolution was given; the same is asked of the parameter.
        modules: The model's modules by path.

    Returns:
        False also where that cannot be told without running the model.
    """
    source = made.parameter
    if weight is source:
        return True
    if source is None:
        return False
    try:
        numbers = filter_numbers(shape, filters)
        moved = _Tracking(source, numbers, modules).value(weight)
        there = filter_numbers(moved.shape, filters)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
        return False
    if moved.numel() != numbers.numel():
        return False  # a part of the parameter, or some of it several times
    # One to one: each filter there holds numbers of one filter here, and no two those of the same.
    one_of = torch.zeros_like(torch.unique(there)).scatter_(0, there.flatten(), moved.flatten())
    same = len(one_of) == len(torch.unique(one_of)) == len(torch.unique(numbers))
    return same and torch.equal(one_of[there], moved)


class _Tracking:
    """What the trace computes, if the parameter held the number of each filter in its place."""

    def __init__(self, source: fx.Node, numbers: Tensor, modules: Mapping[str, nn.Module]) -> None:
        self._source, self._numbers, self._modules = source, numbers, modules

    def value(self, node: Any) -> Any:
        """The value at a node: filter numbers, or a size that was read."""
        if node is self._source:
            return self._numbers
        name = operation_name(node) if node.op in ("call_function", "call_method") else ""
        if name in _IN_PLACE:
            return self.value(argument_reader(node)(0, "input", None))
        if name in ("mul", "div"):
            return self._scaled(node)
        if not (name in METADATA or isinstance(rule_of_operation(node), Transparent)):
            raise ValueError(f"{node} is no view of a parameter")
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), self.value)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)

    def _scaled(self, node: fx.Node) -> Tensor:
        first, second = argument_reader(node)(0, "input", None), argument_reader(node)(1, "other", None)
        if is_constant(first, self._modules):
            first, second = second, first
        numbers: Tensor = self.value(first)
        factor = torch.empty(constant_shape(second, self._modules), device="meta")
        return numbers.expand((factor * numbers.to("meta")).shape)
