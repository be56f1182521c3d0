"""Whether a parameter is the gain that a layer written by hand already carries: one factor for each output filter.

A weight-standardized convolution may call ``F.conv2d(x, (w - mean) / std * self.gain)``, an NFNet's
``F.conv2d(x, w * scale - mean * scale)`` with the gain in its scale. What counts is that each filter of the weight is
proportional to one number of the parameter, and to no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from sgdph_fx.analysis.constants import called_on, held_at
from sgdph_fx.analysis.conv_candidates import groups_of
from sgdph_fx.analysis.filter_tracking import MOVES_NO_NUMBER, same_filters
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.parameter_paths import BROADCASTS, tells_nothing, writes_into
from sgdph_fx.rules.calls import argument_reader, is_in_place, operation_name
from sgdph_fx.rules.kinds import Conv, Transparent
from sgdph_fx.rules.operations import operands_of, rule_of_operation
from sgdph_fx.transform.filters import Filters, filter_numbers

__all__ = ["carried_by"]


def carried_by(flow: Flow, source: fx.Node, parameter: nn.Parameter) -> fx.Node | None:
    """The first layer whose weight has ``parameter`` as its gain; None unless all that read it have.

    Args:
        flow: The flow graph.
        source: The node that reads the parameter.
        parameter: The parameter.
    """
    if parameter.numel() < 2:
        return None
    made: set[fx.Node] = {source}
    layers: list[fx.Node] = []
    waiting = [source]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if _weight_of(user) is node:
                layers.append(user)
            elif user not in made and not tells_nothing(node, user):
                if not (_may_be_proportional(user) or writes_into(user, source)):
                    return None
                made.add(user)
                waiting.append(user)
    places = torch.arange(parameter.numel()).view(parameter.shape)
    tracked = _Factors(source, places, frozenset(made), flow)
    if not layers or not all(_one_factor_each(layer, tracked, parameter) for layer in layers):
        return None
    return layers[0]


def _weight_of(node: fx.Node) -> fx.Node | None:
    """The weight of a convolution or a linear layer, as far as the trace computes it."""
    if node.op not in ("call_function", "call_method"):
        return None
    operands = operands_of(node)
    layer = isinstance(rule_of_operation(node), Conv) or operation_name(node) == "linear"
    weight = argument_reader(node)(*operands.weight, None) if layer and operands is not None else None
    return weight if isinstance(weight, fx.Node) else None


def _may_be_proportional(node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method") or is_in_place(node):
        return False
    name, rule = operation_name(node), rule_of_operation(node)
    shapes = isinstance(rule, Transparent) and rule.shape_only
    return (
        shapes or name in MOVES_NO_NUMBER | BROADCASTS or name in ("mul", "div", "add", "sub", "batch_norm")
    )


def _one_factor_each(layer: fx.Node, tracked: _Factors, parameter: nn.Parameter) -> bool:
    rule, operands = rule_of_operation(layer), operands_of(layer)
    assert operands is not None
    transposed = isinstance(rule, Conv) and rule.transposed
    try:
        found = tracked.places(_weight_of(layer))
        there = filter_numbers(found.shape, Filters(transposed, groups_of(layer, operands)))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
        return False  # it cannot be told without running the model
    # If each filter were one number alone, the parameter could be the weight itself.
    return found.numel() > parameter.numel() and same_filters(there, found, parameter.numel())


@dataclass(frozen=True, slots=True)
class _Factors:
    """Which number of the parameter each number of what it makes is proportional to.

    Args:
        source: The node that reads the parameter.
        numbers: The number of each of its places.
        made: What is computed from its numbers.
        flow: The flow graph.
        known: What else the trace computes, without its numbers, as far as it has been asked for.
    """

    source: fx.Node
    numbers: Tensor
    made: frozenset[fx.Node]
    flow: Flow
    known: dict[fx.Node, Any] = field(default_factory=dict)

    def places(self, node: Any) -> Tensor:
        """The places in the parameter that the numbers of ``node`` are proportional to.

        Raises:
            ValueError: if they are not, or not each to one.
        """
        if node is self.source or (isinstance(node, fx.Node) and writes_into(node, self.source)):
            return self.numbers
        if node not in self.made:
            raise ValueError("not computed from the parameter")
        name, arg = operation_name(node), argument_reader(node)
        first, second = arg(0, "input", None), arg(1, "other", None)
        if name in MOVES_NO_NUMBER:
            return self.places(first)
        if name in ("mul", "div"):
            return self._multiplied(name, first, second)
        if name in ("add", "sub"):
            return self._both(first, second)
        if name == "batch_norm":
            return self._normalized(node)
        found: Tensor = called_on(node, self._seen)
        return found

    def _multiplied(self, name: str, first: Any, second: Any) -> Tensor:
        if first not in self.made and name == "mul":
            first, second = second, first
        if second in self.made:
            raise ValueError("proportional to a product or a quotient of the parameter's numbers")
        found = self.places(first)
        return found.expand((found.to("meta") * self._empty(second)).shape)

    def _both(self, first: Any, second: Any) -> Tensor:
        one, other = self.places(first), self.places(second)
        one, other = one + torch.zeros_like(other), other + torch.zeros_like(one)
        if not torch.equal(one, other):
            raise ValueError("a sum of several of the parameter's numbers")
        return one

    def _normalized(self, node: fx.Node) -> Tensor:
        arg, operands = argument_reader(node), operands_of(node)
        assert operands is not None
        assert operands.bias is not None
        x, bias = arg(0, "input", None), arg(*operands.bias, None)
        if x in self.made or bias is not None:
            raise ValueError("normalized, or shifted")
        like = self._empty(x)
        return self.places(arg(*operands.weight, None)).view(-1, *[1] * (like.dim() - 2)).expand(like.shape)

    def _seen(self, node: fx.Node) -> Any:
        return self.places(node) if node in self.made else self._empty(node)

    def _empty(self, value: Any) -> Any:
        """What the trace computes, without its numbers."""
        if not isinstance(value, fx.Node):
            return value
        if value not in self.known:
            self.known[value] = self._made_empty(value)
        return self.known[value]

    def _made_empty(self, node: fx.Node) -> Any:
        if "shape" in node.meta:
            return torch.empty(tuple(node.meta["shape"]), device="meta")
        if node.op == "get_attr":
            held = held_at(node, self.flow.modules)
            return held.to("meta") if isinstance(held, Tensor) else held
        if node.op not in ("call_function", "call_method"):
            raise ValueError(f"{node} is known only when the model runs")
        return called_on(node, self._empty)
