"""What more is told of each parameter than its order and role: its kind, its place, its fans and its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from sgdph_fx.analysis.details.fans import fans_of
from sgdph_fx.analysis.details.kinds import Subject, kind_of, uses_by_name
from sgdph_fx.analysis.details.layers import layers_of
from sgdph_fx.analysis.details.places import depths, first_nodes, last_nodes
from sgdph_fx.analysis.details.weight_uses import weight_uses
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.plan.entries import ParameterEntry, Place

__all__ = ["with_details"]


def with_details(
    model: nn.Module, entries: Sequence[ParameterEntry], flows: Sequence[Flow], weights: Mapping[str, str]
) -> tuple[tuple[ParameterEntry, ...], int]:
    """The entries with kind, place, fan-in, fan-out and layer filled in, and how many layers there are.

    Args:
        model: The model as it is.
        entries: Its parameters' entries.
        flows: Its flows; the first one decides.
        weights: The weight that each planned direction and gain stands for, by name.
    """
    flow = flows[0]
    uses = weight_uses(flow)
    depth = depths(flow, uses)
    first = {uses.applied[node] for node in first_nodes(flow, uses, depth)}
    last = {uses.applied[node] for node in last_nodes(flow, uses, depth)}
    layers = layers_of(flow, uses, depth)
    names = _every_name(model, flow)
    read = uses_by_name(flows)
    result = []
    for entry in entries:
        name = weights.get(entry.name, entry.name)
        path = name.rpartition(".")[0]
        owner = flow.modules[path]
        known = names[id(owner._parameters[name.rpartition(".")[2]])]
        aliases = {other.rpartition(".")[0] for other, _ in known}
        is_last = bool(aliases & last) or path in last
        subject = Subject(entry, name, owner, known, read.get(name, ()), is_last)
        kind = kind_of(subject, flow.modules)
        place: Place = "last" if is_last else "first" if path in first else ""
        fan_in, fan_out = fans_of(entry, kind, owner)
        layer = layers.get(name)
        entry = replace(entry, kind=kind, place=place, fan_in=fan_in, fan_out=fan_out, layer=layer)
        result.append(entry)
    return tuple(result), 1 + max(layers.values(), default=0)


def _every_name(model: nn.Module, flow: Flow) -> dict[int, list[tuple[str, nn.Module]]]:
    """All names of each parameter, by its identity, each with the module that owns it under that name."""
    found: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{path}.{leaf}" if path else leaf
                found.setdefault(id(parameter), []).append((name, module))
    return found
