"""Parameters → order, role and reason: which of them are channel-wise.

Being one-dimensional is not the criterion: a gain may be four-dimensional, a class token one-dimensional. What
counts is the module that owns the parameter, or else the operation that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.verdicts import name_of
from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry, Role
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Affine, Conv, Linear, Norm, Rule, Transparent
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import OPERANDS
from sgdph_fx.trace import is_scripted
from sgdph_fx.transform.decouple import Decoupled, plain_class_of
from sgdph_fx.transform.filters import decoupled_names

__all__ = ["parameter_entries"]

_MATRIX_PRODUCTS = frozenset(
    {"matmul", "bmm", "mm", "baddbmm", "einsum", "softmax", "scaled_dot_product_attention"}
)
_RESHAPES = frozenset(
    {"getitem", "view", "reshape", "unsqueeze", "squeeze", "flatten", "to", "type_as", "float"}
)


@dataclass(frozen=True, slots=True)
class _Tag:
    order: Literal[1, 2]
    role: Role
    reason: str


def parameter_entries(
    model: nn.Module, convolutions: Sequence[ConvolutionEntry], flows: Sequence[Flow]
) -> tuple[ParameterEntry, ...]:
    """A row for each trainable parameter of the prepared model, in the order of its ``named_parameters()``.

    Args:
        model: The model as it is, not yet prepared.
        convolutions: What was decided about its convolutions.
        flows: Its flow graphs, which show how parameters without a known owner are used.
    """
    by_weight = {row.weight: row for row in reversed(convolutions)}
    uses, modules = _uses(flows), flows[0].modules
    rows: list[ParameterEntry] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = modules[name.rpartition(".")[0]]
        kind = plain_class_of(owner).__name__
        row = by_weight.get(name)
        if row is not None and row.decouple:
            rows.extend(_decoupled_rows(row, kind))
            continue
        tag = _tag(name, parameter, owner, uses.get(name, []), row)
        rows.append(ParameterEntry(name, tuple(parameter.shape), tag.order, tag.role, kind, tag.reason))
    return tuple(rows)


def _decoupled_rows(row: ConvolutionEntry, kind: str) -> Iterator[ParameterEntry]:
    direction, gain = decoupled_names(row.weight)
    what = f"{row.verdict} {row.kind} {row.name}".rstrip()
    yield ParameterEntry(direction, row.shape, 1, "direction", kind, f"first-order: direction of the {what}")
    reason = f"second-order: gain of the {what}, one number for each of its {row.out_channels} output filters"
    yield ParameterEntry(gain, (row.out_channels,), 2, "gain", kind, reason)


def _tag(
    name: str, parameter: nn.Parameter, owner: nn.Module, uses: Sequence[_Tag], row: ConvolutionEntry | None
) -> _Tag:
    leaf = name.rpartition(".")[2]
    own = _own_gain(owner, leaf) if isinstance(owner, Decoupled) else _weight_norm(owner, leaf)
    if own is not None:
        return own
    known = _by_owner(rule_of(owner), leaf, parameter, type(owner).__name__, row)
    if known is not None:
        return known
    if uses:
        # Used in several ways, it is what the least channel-wise of them says.
        return min(uses, key=lambda tag: tag.order)
    if is_scripted(owner):
        return _Tag(1, "other", "first-order: inside TorchScript, where its use cannot be seen")
    return _Tag(1, "other", f"first-order: {type(owner).__name__}.{leaf} is no channel-wise parameter")


def _own_gain(owner: Decoupled, leaf: str) -> _Tag | None:
    for weight in owner._filters:
        direction, gain = decoupled_names(weight)
        if leaf == direction:
            return _Tag(1, "direction", "first-order: direction of a convolution that is decoupled already")
        if leaf == gain:
            return _Tag(2, "gain", "second-order: gain of a convolution that is decoupled already")
    return None


def _weight_norm(owner: nn.Module, leaf: str) -> _Tag | None:
    """torch's own weight normalization, parametrized (original0, original1) or by hook (weight_g, weight_v)."""
    stem = leaf[:-2]
    by_hook = (
        leaf[-2:] in ("_g", "_v") and f"{stem}_g" in owner._parameters and f"{stem}_v" in owner._parameters
    )
    parametrized = isinstance(owner, ParametrizationList) and isinstance(owner[0], _WeightNorm)
    if by_hook or parametrized:
        if leaf.endswith(("_g", "0")):
            return _Tag(2, "gain", "second-order: gain of a weight normalization, whatever its shape")
        return _Tag(1, "direction", "first-order: direction of a weight normalization")
    return None


def _by_owner(
    rule: Rule | None, leaf: str, parameter: nn.Parameter, kind: str, row: ConvolutionEntry | None
) -> _Tag | None:
    if isinstance(rule, Norm) and leaf in (rule.weight, rule.bias):
        return _norm_tag("norm.weight" if leaf == rule.weight else "norm.bias", parameter, kind)
    if isinstance(rule, Conv) and leaf == rule.weight:
        return _Tag(1, "weight", f"first-order: weight of {kind}, {_why_kept(row)}")
    if isinstance(rule, Conv) and leaf == rule.bias:
        return _Tag(2, "bias", f"second-order: bias of {kind}, one number for each output channel")
    if isinstance(rule, Linear) and leaf in rule.weights:
        return _Tag(1, "weight", f"first-order: weight of {kind}")
    if isinstance(rule, Linear) and leaf in rule.biases:
        return _Tag(2, "bias", f"second-order: bias of {kind}, one number for each output feature")
    if isinstance(rule, Conv) and leaf == rule.gain:
        return _Tag(2, "gain", f"second-order: gain that {kind} carries, one number for each output channel")
    if isinstance(rule, Affine) and leaf in (*rule.weights, *rule.biases):
        return _affine_tag("layer_scale" if leaf in rule.weights else "bias", kind)
    if isinstance(rule, Transparent) and leaf == rule.weight and rule.role == "layer_scale":
        return _affine_tag("layer_scale", kind)
    if isinstance(rule, Transparent) and leaf == rule.weight:
        return _Tag(
            2, "activation", f"second-order: slope of {kind}, one number for each channel it is given for"
        )
    return None


def _affine_tag(role: Literal["layer_scale", "bias"], kind: str) -> _Tag:
    does = "multiplies" if role == "layer_scale" else "shifts"
    return _Tag(2, role, f"second-order: {kind} {does} each channel by one number")


def _norm_tag(role: Literal["norm.weight", "norm.bias"], parameter: nn.Parameter, kind: str) -> _Tag:
    what = "scale" if role == "norm.weight" else "shift"
    if not _channel_wise(parameter.shape):
        shape = "×".join(map(str, parameter.shape))
        return _Tag(
            1, role, f"first-order: {what} of {kind} is {shape}, an element-wise map, not channel-wise"
        )
    return _Tag(
        2, role, f"second-order: {what} of {kind}, one number for each of {parameter.numel()} channels"
    )


def _why_kept(row: ConvolutionEntry | None) -> str:
    if row is None:
        return "as it is"
    return f"which {row.norm} normalizes" if row.verdict == "normalized" else "bare but left as it is"


def _channel_wise(shape: Sequence[int]) -> bool:
    return sum(size > 1 for size in shape) <= 1


def _uses(flows: Sequence[Flow]) -> Mapping[str, list[_Tag]]:
    """How the operations of the graph use each parameter that they read directly."""
    uses: dict[str, list[_Tag]] = {}
    for flow in flows:
        for _, attributes in flow.graph.nodes(data=True):
            node: fx.Node = attributes["node"]
            if node.op == "get_attr":
                uses.setdefault(str(node.target), []).extend(_uses_of(flow, node))
    return uses


def _uses_of(flow: Flow, source: fx.Node) -> Iterator[_Tag]:
    parameter = _parameter(flow, source)
    if parameter is None:
        return
    waiting = [source]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if user.op == "call_method" or user.op == "call_function":
                if operation_name(user) in _RESHAPES and user.args[:1] == (node,):
                    waiting.append(user)
                else:
                    yield _use(flow, node, user, parameter)
            elif user.op != "output":
                yield _Tag(1, "other", f"first-order: {source.target} is passed to {user.target}")


def _parameter(flow: Flow, source: fx.Node) -> nn.Parameter | None:
    owner, _, leaf = str(source.target).rpartition(".")
    module = flow.modules.get(owner)
    return module._parameters.get(leaf) if module is not None else None


def _use(flow: Flow, node: fx.Node, user: fx.Node, parameter: nn.Parameter) -> _Tag:
    name, rule = operation_name(user), flow.graph.nodes[user.name]["rule"]
    arg = argument_reader(user)
    operands = OPERANDS.get(name)
    if operands is not None and arg(*operands.weight, None) is node:
        return _as_weight(rule, name, parameter)
    if operands is not None and operands.bias is not None and arg(*operands.bias, None) is node:
        if isinstance(rule, Norm):
            return _norm_tag("norm.bias", parameter, name)
        return _Tag(2, "bias", f"second-order: bias of {name}, one number for each output channel")
    return _elementwise(name, node, user, parameter)


def _as_weight(rule: Rule, name: str, parameter: nn.Parameter) -> _Tag:
    if isinstance(rule, Norm):
        return _norm_tag("norm.weight", parameter, name)
    if isinstance(rule, Transparent):
        return _Tag(2, "activation", f"second-order: slope of {name}, one number for each channel")
    return _Tag(1, "weight", f"first-order: weight of {name}")


def _elementwise(name: str, node: fx.Node, user: fx.Node, parameter: nn.Parameter) -> _Tag:
    others = [n for n in user.all_input_nodes if n is not node]
    one_per_channel = parameter.numel() > 1 and _channel_wise(parameter.shape)
    on_channels = bool(others) and not any(
        operation_name(o) in _MATRIX_PRODUCTS for o in others if o.op != "call_module"
    )
    if one_per_channel and on_channels and name == "mul":
        return _Tag(
            2, "layer_scale", f"second-order: multiplies each of {parameter.numel()} channels by one number"
        )
    if one_per_channel and on_channels and name == "add":
        return _Tag(2, "bias", f"second-order: adds one number to each of {parameter.numel()} channels")
    return _Tag(1, "other", f"first-order: used by {name_of(user)}, not as one number for each channel")
