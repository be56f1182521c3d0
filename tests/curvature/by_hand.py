"""A Hessian-vector product by the rules alone: where there is no GPU, torch's engine has no thread for one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import producers_first
from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.path import path, source
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import BackwardNode, Edge, ForwardNode, as_gradient

__all__ = ["product_by_hand"]


def product_by_hand(loss: Tensor, parameter: Tensor, v: Tensor) -> Tensor | None:
    """Hv of one parameter, each tangent in memory of its own."""
    nodes = path(producers_first(loss), parameter)
    with torch.no_grad():
        forward = _forward(nodes, source(parameter), v)
        return _backward(loss, nodes, forward, source(parameter))


def _forward(nodes: dict[Node, tuple[bool, ...]], start: Edge, v: Tensor) -> dict[Node, ForwardNode]:
    tangents: dict[Edge, Tensor] = {start: v}
    forward = {}
    for node, active in nodes.items():
        given = [tangents.get(edge) for edge in node.next_functions]
        fwd = ForwardNode(node, rule_of(node), active, given, [False] * len(given))
        for number, (made, declared) in enumerate(zip(fwd.rule.jvp(fwd), node._input_metadata, strict=False)):
            if made is not None:
                tangents[node, number] = made.expand(tuple(declared.shape)).to(declared.dtype)
        forward[node] = fwd
    return forward


def _backward(
    loss: Tensor, nodes: dict[Node, tuple[bool, ...]], forward: dict[Node, ForwardNode], start: Edge
) -> Tensor | None:
    assert loss.grad_fn is not None
    gradients: dict[Edge, Tensor] = {(loss.grad_fn, 0): torch.ones_like(loss)}
    tangents: dict[Edge, Tensor] = {}
    for node in reversed(nodes):
        edges = [(node, number) for number in range(len(node._input_metadata))]
        g, dg = [gradients.get(edge) for edge in edges], [tangents.get(edge) for edge in edges]
        by_inputs = apply(node, g)
        bwd = BackwardNode(forward[node], g, dg, [False] * len(dg), by_inputs)
        found = forward[node].rule.vjp_tangent(bwd)
        _add(gradients, node, by_inputs)
        _add(tangents, node, [t if a else None for t, a in zip(found, nodes[node], strict=False)])
    return tangents.get(start)


def _add(totals: dict[Edge, Tensor], node: Node, made: object) -> None:
    assert isinstance(made, list | tuple)
    for edge, t in zip(node.next_functions, made, strict=False):
        if edge[0] is not None and t is not None:
            t = as_gradient(edge, t)
            totals[edge] = totals[edge] + t if edge in totals else t
