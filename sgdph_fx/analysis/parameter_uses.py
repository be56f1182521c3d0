"""How the operations of a trace use each parameter that they read by themselves, and not inside its module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx, nn

from sgdph_fx.analysis.carried_gains import carried_by
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.found_roles import FoundRole, channel_wise, norm_role, weight_norm_role
from sgdph_fx.analysis.parameter_paths import VIEWS, Reader, is_data, readers_of
from sgdph_fx.analysis.verdicts import name_of
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv, Norm, Rule, Transparent
from sgdph_fx.rules.operations import operands_of

__all__ = ["uses_of_parameters"]

_LAYERS = frozenset({"matmul", "bmm", "mm"})
_MATRIX_PRODUCTS = _LAYERS | {"baddbmm", "einsum", "softmax", "scaled_dot_product_attention"}
_TRANSPOSES = frozenset(
    {
        *("t", "T", "mT", "H", "mH", "adjoint", "transpose", "permute"),
        *("swapaxes", "swapdims", "movedim", "moveaxis"),
    }
)


def uses_of_parameters(flows: Sequence[Flow]) -> Mapping[str, list[FoundRole]]:
    """How the operations of the graph use each parameter that they read directly."""
    uses: dict[str, list[FoundRole]] = {}
    for flow in flows:
        for _, attributes in flow.graph.nodes(data=True):
            node: fx.Node = attributes["node"]
            if node.op == "get_attr":
                uses.setdefault(str(node.target), []).extend(_uses_of(flow, node))
    return uses


def _uses_of(flow: Flow, source: fx.Node) -> Iterator[FoundRole]:
    parameter = _parameter(flow, source)
    if parameter is None:
        return
    layer = carried_by(flow, source, parameter)
    if layer is not None:
        reason = f"second-order: gain that the weight of {name_of(layer)} carries, one number for each output channel"
        yield FoundRole(2, "gain", reason)
        return
    for reader in readers_of(source, parameter, flow.modules):
        if reader.node.op == "call_method" or reader.node.op == "call_function":
            yield _use(flow, reader, parameter)
        else:
            yield FoundRole(1, "other", f"first-order: {source.target} is passed to {reader.node.target}")


def _parameter(flow: Flow, source: fx.Node) -> nn.Parameter | None:
    return flow.parameter(str(source.target)) if source.op == "get_attr" else None


def _use(flow: Flow, reader: Reader, parameter: nn.Parameter) -> FoundRole:
    node, user = reader.operand, reader.node
    name, rule = operation_name(user), flow.graph.nodes[user.name]["rule"]
    arg = argument_reader(user)
    operands = operands_of(user)
    if name == "weight_norm":  # torch._weight_norm(v, g)
        return weight_norm_role(arg(1, "g", None) is node)
    if operands is not None and arg(*operands.weight, None) is node:
        return _as_weight(rule, name, parameter)
    if operands is not None and operands.bias is not None and arg(*operands.bias, None) is node:
        if isinstance(rule, Norm):
            return norm_role("norm.bias", parameter, name)
        if isinstance(rule, Conv) and not rule.twice_differentiable:
            return FoundRole(
                1, "bias", f"first-order: bias of {name}, through which no second derivative goes"
            )
        return FoundRole(2, "bias", f"second-order: bias of {name}, one number for each output channel")
    return _elementwise(flow, reader, parameter)


def _as_weight(rule: Rule, name: str, parameter: nn.Parameter) -> FoundRole:
    if isinstance(rule, Norm):
        return norm_role("norm.weight", parameter, name)
    if isinstance(rule, Transparent):
        return FoundRole(2, "activation", f"second-order: slope of {name}, one number for each channel")
    return FoundRole(1, "weight", f"first-order: weight of {name}")


def _elementwise(flow: Flow, reader: Reader, parameter: nn.Parameter) -> FoundRole:
    node, user = reader.operand, reader.node
    name = operation_name(user)
    others = [n for n in user.all_input_nodes if n is not node and reader.meets(n)]
    # A flat table of positions may have been given the shape of a map, which no channel has one number of.
    shape = parameter.shape if reader.shape is None else reader.shape
    one_per_channel = parameter.numel() > 1 and channel_wise(parameter.shape) and channel_wise(shape)
    on_channels = any(map(is_data, others)) and not any(_is_product(other) for other in others)
    place = user.args.index(node) if node in user.args else None
    if one_per_channel and name == "mul" and _is_dotted(user, shape):
        return FoundRole(
            1, "weight", "first-order: multiplies channels that are summed at once, as in a matrix product"
        )
    if one_per_channel and on_channels and name == "div" and place == 1:
        reason = f"second-order: divides each of {parameter.numel()} channels by one number"
        return FoundRole(2, "layer_scale", reason)
    if one_per_channel and on_channels and (name == "mul" or (name == "addcmul" and place in (1, 2))):
        reason = f"second-order: multiplies each of {parameter.numel()} channels by one number"
        return FoundRole(2, "layer_scale", reason)
    shifts = name in ("add", "sub") or (name == "addcmul" and place == 0)
    if one_per_channel and shifts and (on_channels or any(_is_layer(flow, other) for other in others)):
        return FoundRole(2, "bias", f"second-order: adds one number to each of {parameter.numel()} channels")
    how = (
        "neither as scale nor as shift of channels"
        if one_per_channel
        else "not as one number for each channel"
    )
    return FoundRole(1, "other", f"first-order: used by {name_of(user)}, {how}")


def _is_dotted(product: fx.Node, shape: Sequence[int]) -> bool:
    """Whether all that is read of a product with one number for each channel is its sum over the channels."""
    after = product.meta.get("shape")
    channels = next((place for place, size in enumerate(reversed(shape), start=1) if size > 1), None)
    for user in product.users:
        if user.op not in ("call_function", "call_method") or operation_name(user) != "sum":
            return False
        dims = argument_reader(user)(1, "dim", None)
        found = [dims] if isinstance(dims, int) else dims
        if not isinstance(found, list | tuple) or not all(isinstance(dim, int) for dim in found):
            return False
        from_last = [-dim if dim < 0 else None if after is None else len(after) - dim for dim in found]
        if channels not in from_last:
            return False
    return bool(product.users)


def _is_product(node: fx.Node) -> bool:
    return node.op != "call_module" and operation_name(node) in _MATRIX_PRODUCTS


def _is_layer(flow: Flow, node: fx.Node) -> bool:
    """Whether a matrix product is a linear layer written out: one of its operands is a parameter."""
    if node.op not in ("call_function", "call_method") or operation_name(node) not in _LAYERS:
        return False
    return any(_parameter(flow, _before_reshapes(operand)) is not None for operand in node.all_input_nodes)


def _before_reshapes(node: fx.Node) -> fx.Node:
    while node.op in ("call_function", "call_method") and operation_name(node) in VIEWS | _TRANSPOSES:
        operand = argument_reader(node)(0, "input", None)
        if not isinstance(operand, fx.Node):
            break
        node = operand
    return node
