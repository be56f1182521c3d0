"""The operations of a flow that apply a weight: a convolution, a matrix, an embedding; and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx, nn

from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.found_roles import channel_wise
from sgdph_fx.analysis.weight_provenance import provenance
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv, Linear, Norm, Transparent
from sgdph_fx.rules.operations import operands_of, rule_of_operation

__all__ = ["WeightUses", "parameter_behind", "weight_uses"]

_PRODUCTS = frozenset({"matmul", "bmm", "mm", "einsum", "baddbmm", "embedding", "embedding_bag"})


@dataclass(frozen=True, slots=True)
class WeightUses:
    """Where a flow applies weights.

    Args:
        places: The place of each node in the order of execution, by its name.
        applied: The nodes that apply a weight, in that order, each with the path of the module that owns the weight.
        first_use: The place of the first node that reads each parameter, by the parameter's name.
    """

    places: dict[str, int] = field(default_factory=dict)
    applied: dict[str, str] = field(default_factory=dict)
    first_use: dict[str, int] = field(default_factory=dict)


def weight_uses(flow: Flow) -> WeightUses:
    """Index the weights of a flow."""
    found = WeightUses()
    for place, (name, attributes) in enumerate(flow.graph.nodes(data=True)):
        found.places[name] = place
        node: fx.Node = attributes["node"]
        for parameter in _parameters_read(flow, node):
            found.first_use.setdefault(parameter, place)
        path = _owner_of_weight(flow, node)
        if path is not None:
            found.applied[name] = path
    return found


def _parameters_read(flow: Flow, node: fx.Node) -> Iterator[str]:
    if node.op == "call_module":
        path = str(node.target)
        for name, _ in flow.modules[path].named_parameters():
            yield f"{path}.{name}" if path else name
    elif node.op in ("call_function", "call_method"):
        for operand in node.all_input_nodes:
            source = parameter_behind(flow, operand)
            if source is not None:
                yield source


def _owner_of_weight(flow: Flow, node: fx.Node) -> str | None:
    """The path of the module whose weight a node applies; None if it applies none."""
    rule = flow.graph.nodes[node.name]["rule"]
    if node.op == "call_module":
        module = flow.modules[str(node.target)]
        # The matrix of a head with one output has a single row.
        applies = isinstance(rule, Conv | Linear) or (
            not isinstance(rule, Norm | Transparent) and _has_matrix(module)
        )
        return str(node.target) if applies else None
    if node.op not in ("call_function", "call_method"):
        return None
    operands = operands_of(node)
    if isinstance(rule, Conv) and operands is not None:
        weight = argument_reader(node)(*operands.weight, None)
        made = provenance(weight, node.meta.get("scope") or "", flow.modules)
        return made.name.rpartition(".")[0] if made is not None and made.name else None
    if isinstance(rule, Linear) or operation_name(node) in _PRODUCTS:
        for operand in node.all_input_nodes:
            source = parameter_behind(flow, operand)
            if source is not None and (
                len(_shape(flow, source)) == 2 or not channel_wise(_shape(flow, source))
            ):
                return source.rpartition(".")[0]
    return None


def _has_matrix(module: nn.Module) -> bool:
    return any(not channel_wise(parameter.shape) for parameter in module.parameters())


def _shape(flow: Flow, name: str) -> tuple[int, ...]:
    owner, _, leaf = name.rpartition(".")
    parameter = flow.modules[owner]._parameters[leaf]
    assert parameter is not None
    return tuple(parameter.shape)


def parameter_behind(flow: Flow, node: fx.Node) -> str | None:
    """The name of the parameter that a node is, or is a view, a part or a cast of."""
    while node.op in ("call_function", "call_method"):
        rule = rule_of_operation(node)
        first = next((arg for arg in node.args if isinstance(arg, fx.Node)), None)
        moves_only = isinstance(rule, Transparent) and (rule.shape_only or operation_name(node) == "mul")
        if not (moves_only or operation_name(node) in ("expand", "repeat", "transpose")) or first is None:
            return None
        node = first
    name = str(node.target)
    return name if node.op == "get_attr" and flow.parameter(name) is not None else None
