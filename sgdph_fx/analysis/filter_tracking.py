"""Whether the output filters of a weight that was viewed, cast or scaled are those of the parameter behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from sgdph_fx.analysis.constants import called_on, constant_shape, is_constant
from sgdph_fx.analysis.weight_provenance import Provenance
from sgdph_fx.rules.calls import METADATA, argument_reader, operation_name
from sgdph_fx.rules.kinds import Transparent
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.transform.filters import Filters, filter_numbers

__all__ = ["MOVES_NO_NUMBER", "filters_preserved", "same_filters"]

_CASTS = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda")
MOVES_NO_NUMBER = frozenset({"clone", "contiguous", "identity", "neg", *_CASTS})
"""Operations whose further operands say nothing about places."""


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
    return same_filters(there, moved, len(torch.unique(numbers)))


def same_filters(there: Tensor, numbers: Tensor, count: int) -> bool:
    """Whether each filter holds one number alone, and no two filters the same.

    Args:
        there: The filter of each place of a weight, counted from 0.
        numbers: What each place holds, one of 0, …, ``count`` - 1.
        count: How many filters there must be.
    """
    one_of = torch.zeros_like(torch.unique(there)).scatter_(0, there.flatten(), numbers.flatten())
    return len(one_of) == len(torch.unique(one_of)) == count and torch.equal(one_of[there], numbers)


class _Tracking:
    """What the trace computes, if the parameter held the number of each filter in its place."""

    def __init__(self, source: fx.Node, numbers: Tensor, modules: Mapping[str, nn.Module]) -> None:
        self._source, self._numbers, self._modules = source, numbers, modules

    def value(self, node: Any) -> Any:
        """The value at a node: filter numbers, or a size that was read."""
        if node is self._source:
            return self._numbers
        name = operation_name(node) if node.op in ("call_function", "call_method") else ""
        if name in MOVES_NO_NUMBER:
            return self.value(argument_reader(node)(0, "input", None))
        if name in ("mul", "div"):
            return self._scaled(node)
        if not (name in METADATA or isinstance(rule_of_operation(node), Transparent)):
            raise ValueError(f"{node} is no view of a parameter")
        return called_on(node, self.value)

    def _scaled(self, node: fx.Node) -> Tensor:
        first, second = argument_reader(node)(0, "input", None), argument_reader(node)(1, "other", None)
        if is_constant(first, self._modules):
            first, second = second, first
        numbers: Tensor = self.value(first)
        factor = torch.empty(constant_shape(second, self._modules), device="meta")
        return numbers.expand((factor * numbers.to("meta")).shape)
