"""Which weights come first, next to the model's input, and which come last, next to its output."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from torch import fx

from sgdph_fx.analysis.details.weight_uses import WeightUses
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.rules.calls import CONCATENATIONS, operation_name
from sgdph_fx.rules.kinds import Norm

__all__ = ["depths", "first_nodes", "last_nodes"]

# Joining results side by side leaves each of them an output.
_JOINS = CONCATENATIONS | {"stack"}


def depths(flow: Flow, uses: WeightUses) -> dict[str, int]:
    """How many weights lie on the longest path from the inputs to each node, itself included."""
    found: dict[str, int] = {}
    for name in flow.graph.nodes:
        before = max(
            (found[source] for source in flow.graph.predecessors(name) if source in found), default=0
        )
        found[name] = before + (name in uses.applied)
    return found


def first_nodes(flow: Flow, uses: WeightUses, depth: dict[str, int]) -> Iterator[str]:
    """The nodes that apply a weight to the model's input, before any other weight does."""
    of_input: set[str] = set()
    for name in flow.graph.nodes:
        before = list(flow.graph.predecessors(name))
        is_root = not before and flow.graph.nodes[name]["node"].op != "get_attr"
        if is_root or not of_input.isdisjoint(before):
            of_input.add(name)
    return (name for name in uses.applied if depth[name] == 1 and name in of_input)


def last_nodes(flow: Flow, uses: WeightUses, depth: dict[str, int]) -> Iterator[str]:
    """The nodes whose result becomes an output: through no further weight or norm, and no sum but of such results."""
    passes: dict[str, bool] = {}
    for name in reversed(list(flow.graph.nodes)):
        node: fx.Node = flow.graph.nodes[name]["node"]
        followers = list(flow.graph.successors(name))
        onward = functools.partial(_passes_on, flow, uses, depth, name)
        passes[name] = (
            node.op == "output"
            or _is_loss(node)
            or (bool(followers) and all(passes[follower] and onward(follower) for follower in followers))
        )
    return (name for name in uses.applied if passes[name])


def _passes_on(flow: Flow, uses: WeightUses, depth: dict[str, int], name: str, follower: str) -> bool:
    """Whether an operation hands a result on without weights, norms or other data that weights made."""
    attributes = flow.graph.nodes[follower]
    node: fx.Node = attributes["node"]
    if node.op == "output" or _is_loss(node):
        return True
    # Heads whose results are averaged are heads, of one depth; a block and its shortcut are not.
    others = [other for other in flow.graph.predecessors(follower) if other != name and depth[other]]
    if follower in uses.applied or isinstance(attributes["rule"], Norm):
        return False
    if node.op != "call_module" and operation_name(node) in _JOINS:
        return True
    averaged = uses.applied.keys() >= {name, *others} and {depth[other] for other in others} == {depth[name]}
    return not others or averaged


def _is_loss(node: fx.Node) -> bool:
    name = operation_name(node) if node.op in ("call_function", "call_method") else ""
    return name.endswith("_loss") or "cross_entropy" in name
