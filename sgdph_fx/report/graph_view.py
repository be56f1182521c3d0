"""Flow graph → the model's graph as data: its parts, the links between them, and where each convolution's output goes.

A module that the rules know is one part. An operation that a convolution's output passes is a part of its own; other
operations that follow each other are merged. Each part belongs to a module, so a page can fold the graph by the model's
own hierarchy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from sgdph_fx.analysis.flow import Flow, walk
from sgdph_fx.analysis.verdicts import name_of
from sgdph_fx.report.node_clustering import cluster_nodes
from sgdph_fx.rules.kinds import Conv, Norm

__all__ = ["GraphView", "Kind", "Part", "graph_view_of"]

Kind = Literal["convolution", "norm", "module", "operation", "parameter", "input", "output"]


@dataclass(frozen=True, slots=True)
class Part:
    """One node of the graph view.

    Args:
        kind: What it is.
        label: Class of the module, name of the operation, or how many operations were merged.
        path: Path of the module or name of the parameter; empty if it has none.
        scope: Path of the module that contains it; empty for the model itself.
        source: ``file.py:line`` of the call, if known.
        shape: Shape of the result, if a run was recorded.
    """

    kind: Kind
    label: str
    path: str
    scope: str
    source: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class GraphView:
    """The model as a graph, without any module or tensor.

    Args:
        parts: The nodes, in the order in which they run.
        edges: Pairs of places in ``parts``: the result of the first goes into the second.
        routes: For each call of a convolution, by its place in ``parts``, the places of the parts that its output
            passes and of those where its paths end, without the call itself.
        modules: Class of each module that contains parts, by path; the model itself has the empty path.
    """

    parts: tuple[Part, ...]
    edges: tuple[tuple[int, int], ...]
    routes: Mapping[int, tuple[int, ...]]
    modules: Mapping[str, str]


def graph_view_of(flow: Flow) -> GraphView:
    """The graph view of a flow graph."""
    drawn = _drawn(flow)
    place = {node.name: position for position, node in enumerate(drawn)}
    successors = [{place[user] for user in flow.graph[node.name] if user in place} for node in drawn]
    routes = {position: _route(flow, node) for position, node in enumerate(drawn) if _is_conv(flow, node)}
    parts = _parts(flow, drawn)
    reaching = (route for route in routes.values() if _reaches_norm(flow, route))
    to_norms = {place[name] for route in reaching for name in route if name in place}
    kinds = [None if position in to_norms else _kind(part) for position, part in enumerate(parts)]
    group = _with_one_input(cluster_nodes(successors, kinds), parts)
    members: dict[int, list[Part]] = {first: [] for first in sorted(set(group))}
    for part, first in zip(parts, group, strict=True):
        members[first].append(part)
    number = {first: position for position, first in enumerate(members)}
    edges = {(number[group[a]], number[group[b]]) for a, users in enumerate(successors) for b in users}
    return GraphView(
        parts=tuple(_together(together) for together in members.values()),
        edges=tuple(sorted(edge for edge in edges if edge[0] != edge[1])),
        routes={
            number[group[start]]: tuple(
                sorted({number[group[place[name]]] for name in route if name in place})
            )
            for start, route in routes.items()
        },
        modules={path: type(flow.modules[path]).__name__ for path in _holders(parts, flow.modules)},
    )


def _drawn(flow: Flow) -> list[fx.Node]:
    """The nodes between an input or a parameter and a module or the output.

    Left out are the arithmetic of shapes and constants, buffers, and results that nothing uses.
    """
    nodes: list[fx.Node] = [attributes["node"] for _, attributes in flow.graph.nodes(data=True)]
    leading: set[str] = set()
    for node in reversed(nodes):
        is_end = node.op in ("call_module", "output") or _is_conv(flow, node)
        if is_end or not leading.isdisjoint(flow.graph[node.name]):
            leading.add(node.name)
    fed: set[str] = set()
    for node in nodes:
        if _is_start(flow, node) or not fed.isdisjoint(flow.graph.predecessors(node.name)):
            fed.add(node.name)
    return [node for node in nodes if node.name in leading and node.name in fed]


def _is_start(flow: Flow, node: fx.Node) -> bool:
    if node.op == "get_attr":
        owner, _, leaf = str(node.target).rpartition(".")
        return owner in flow.modules and leaf in flow.modules[owner]._parameters
    return node.op in ("placeholder", "call_module", "output") or _is_outside(node)


def _is_outside(node: fx.Node) -> bool:
    return node.op.startswith("call_") and node.meta.get("scope") is None


def _is_conv(flow: Flow, node: fx.Node) -> bool:
    return isinstance(flow.graph.nodes[node.name]["rule"], Conv)


def _route(flow: Flow, start: fx.Node) -> set[str]:
    """Names of the nodes between a convolution and the ends of its paths, with those ends."""
    ends = {ending.node.name for ending in walk(flow, start)}
    seen: set[str] = set()
    queue = deque([start.name])
    while queue:
        for name in flow.graph[queue.popleft()]:
            if name not in seen:
                seen.add(name)
                if name not in ends:
                    queue.append(name)
    return seen


def _reaches_norm(flow: Flow, route: set[str]) -> bool:
    return any(isinstance(flow.graph.nodes[name]["rule"], Norm) for name in route)


def _parts(flow: Flow, nodes: Sequence[fx.Node]) -> list[Part]:
    """A part for each node. Operations that make the model's inputs, before it is called, are inputs."""
    parts: list[Part] = []
    inputs: set[str] = set()
    for node in nodes:
        is_input = node.op == "placeholder" or (
            _is_outside(node) and inputs.issuperset(flow.graph.predecessors(node.name))
        )
        if is_input:
            inputs.add(node.name)
        parts.append(
            Part("input", "input", "", "", shape=node.meta.get("shape")) if is_input else _part(flow, node)
        )
    return parts


def _part(flow: Flow, node: fx.Node) -> Part:
    scope = node.meta.get("scope") or ""
    source, shape = node.meta.get("source"), node.meta.get("shape")
    if node.op == "call_module":
        path = str(node.target)
        label = type(flow.modules[path]).__name__
        return Part(_module_kind(flow, node), label, path, path.rpartition(".")[0], source, shape)
    if node.op == "get_attr":
        path = str(node.target)
        return Part("parameter", path.rpartition(".")[2], path, path.rpartition(".")[0], source, shape)
    if node.op == "output":
        return Part("output", "output", "", "")
    kind: Kind = "convolution" if _is_conv(flow, node) else "operation"
    return Part(kind, name_of(node), "", scope, source, shape)


def _module_kind(flow: Flow, node: fx.Node) -> Kind:
    rule = flow.graph.nodes[node.name]["rule"]
    return "convolution" if isinstance(rule, Conv) else "norm" if isinstance(rule, Norm) else "module"


def _kind(part: Part) -> str | None:
    """What a part may be merged with: operations of the same module."""
    return part.scope if part.kind == "operation" else None


def _with_one_input(groups: Sequence[int], parts: Sequence[Part]) -> list[int]:
    """All inputs in one group. Nothing comes before an input, so this closes no cycle."""
    first = next((groups[place] for place, part in enumerate(parts) if part.kind == "input"), None)
    return [
        first if first is not None and part.kind == "input" else group
        for group, part in zip(groups, parts, strict=True)
    ]


def _together(parts: Sequence[Part]) -> Part:
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return first
    if first.kind == "input":
        return Part("input", "inputs", "", "")
    return Part("operation", f"{len(parts)} operations", "", first.scope, first.source, last.shape)


def _holders(parts: Sequence[Part], modules: Mapping[str, nn.Module]) -> list[str]:
    """The modules that contain parts, and all modules around them."""
    paths = {""}
    for scope in {part.scope for part in parts}:
        names = scope.split(".")
        paths.update(".".join(names[:length]) for length in range(1, len(names) + 1))
    return [path for path in modules if path in paths]
