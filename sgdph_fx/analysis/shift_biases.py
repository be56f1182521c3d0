"""Biases that only layer or group norms read: one number added to all channels at once changes nothing.

So the rows of such a bias's Hessian sum to zero. The bias itself matters, as the channels' differences do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx, nn

from sgdph_fx.analysis.flow import Flow
from sgdph_fx.plan.entries import Hint, ParameterEntry
from sgdph_fx.plan.wording import first_few
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv, Linear, Norm, Transparent
from sgdph_fx.transform.filters import dotted

__all__ = ["shift_biases", "shifts"]

# Sums of tensors, and the same factor for all numbers of one sample.
_SUMS = ("add", "sub", "stochastic_depth")
_PER_SAMPLE = ("DropPath", "StochasticDepth")
_OVER_CHANNELS = ("layer", "group")


def shift_biases(flow: Flow, parameters: Sequence[ParameterEntry]) -> Iterator[Hint]:
    """One hint for all of them that are second-order."""
    second = {entry.name for entry in parameters if entry.order == 2}
    found = [name for name in shifts(flow) if name in second]
    if found:
        which = "1 bias" if len(found) == 1 else f"{len(found):,} biases"
        message = (
            f"only layer or group norms read {which} ({first_few(found)}): the Hessian's rows sum to zero there, which "
            "is all that the ones probe sees; set max_preconditioner=1, or probe='rademacher'"
        )
        yield Hint("shift-bias", found[0], message)


def shifts(flow: Flow) -> list[str]:
    """The biases of layers, by name, that wherever they are added only norms over channels read."""
    absorbed = _absorbed(flow)
    names: dict[int, str] = {}
    seen_otherwise = {*_read_by_name(flow)}
    for node, name, bias in _added(flow):
        names.setdefault(id(bias), name)
        if node.name not in absorbed:
            seen_otherwise.add(id(bias))
    return [name for bias, name in names.items() if bias not in seen_otherwise]


def _read_by_name(flow: Flow) -> Iterator[int]:
    """The parameters that the model reads itself."""
    return (id(flow.parameter(str(node.target))) for node in _nodes(flow) if node.op == "get_attr")


def _added(flow: Flow) -> Iterator[tuple[fx.Node, str, nn.Parameter]]:
    """Each call of a layer that adds a bias to all its results, with the name of the bias and the bias."""
    for node in _nodes(flow):
        rule = flow.graph.nodes[node.name]["rule"]
        if node.op != "call_module" or not isinstance(rule, Conv | Linear):
            continue
        path = str(node.target)
        known = (rule.bias,) if isinstance(rule, Conv) else rule.biases
        if isinstance(
            flow.modules[path], nn.MultiheadAttention
        ):  # its last layer is a module that nobody calls
            path, known = dotted(path, "out_proj"), ("bias",)
        bias = flow.modules[path]._parameters.get("bias")
        if "bias" in known and bias is not None:
            yield node, dotted(path, "bias"), bias


def _absorbed(flow: Flow) -> set[str]:
    """The nodes all whose paths end in norms that subtract what all numbers share, one of them over channels."""
    ends: dict[str, bool] = {}  # those that are absorbed → whether a norm over channels is among the ends
    for name in reversed(list(flow.graph)):  # readers before what they read
        found = [_end(flow, reader, edge["data"], ends) for reader, edge in flow.graph[name].items()]
        if None not in found:
            ends[name] = any(found)
    return {name for name, over_channels in ends.items() if over_channels}


def _end(flow: Flow, name: str, data: bool, ends: Mapping[str, bool]) -> bool | None:
    """Whether a reader leads to a norm over channels; None if it leads to anything else than norms."""
    node, rule = flow.graph.nodes[name]["node"], flow.graph.nodes[name]["rule"]
    if isinstance(rule, Norm) and data and rule.absorbs_constants:
        return rule.statistics in _OVER_CHANNELS
    return ends.get(name) if _keeps_shifts(flow, node, data) else None


def _keeps_shifts(flow: Flow, node: fx.Node, data: bool) -> bool:
    """Whether a number added to all of an input is one added to all of the result, but for a factor."""
    rule = flow.graph.nodes[node.name]["rule"]
    if isinstance(rule, Transparent) and rule.shape_only:
        return data
    if node.op == "call_module":
        module = flow.modules[str(node.target)]
        drops_nothing = isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0
        return drops_nothing or type(module).__name__ in _PER_SAMPLE
    name = operation_name(node) if node.op in ("call_function", "call_method") else ""
    return name in _SUMS or (name == "dropout" and argument_reader(node)(1, "p", 0.5) == 0)


def _nodes(flow: Flow) -> Iterator[fx.Node]:
    return (attributes["node"] for _, attributes in flow.graph.nodes(data=True))
