"""loss.backward() and a Hessian-vector product, in one forward sweep of tangents and one backward pass.

Forward over reverse: the tangents ẋ of all that depends on the due parameter are pushed from it up to the loss,
operation by operation, along the graph that the forward pass left. Then ``loss.backward()`` runs as it always
does; beside each of those operations, as soon as autograd is done with it, the tangent ġ of its gradient is
hooks down. What arrives at the parameter is Hv. Nothing below the parameter is differentiated twice, no gradient of
a weight is taken that Hv does not need, and no graph of a gradient is ever built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.buffer_reuse import owned_results
from sgdph_fx.curvature.forward_over_reverse.path import path, saved_as_it_is, source
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import (
    BackwardNode,
    Edge,
    ForwardNode,
    GiveUp,
    Tensors,
    as_gradient,
)
from sgdph_fx.curvature.hvp import block_product, differentiable_gradient

__all__ = ["backward_with_product", "product_only"]


def backward_with_product(loss: Tensor, parameter: Tensor, v: Tensor) -> Tensor | None:
    """``loss.backward()``, and Hv of one parameter's block beside it.

    Args:
        loss: One number with its graph, which is freed.
        parameter: A leaf p of any shape that requires a gradient.
        v: Of the shape, dtype and device of p.

    Returns:
        Hv, without a graph, of the shape, dtype and device of p; None where the loss does not depend on p.
        Every ``.grad`` is what ``loss.backward()`` leaves, to the bit, and each hook runs once, as in it; where
        activations between p and the loss are checkpointed or offloaded, torch's double backward does it all.

    Raises:
        NoCurvatureError: if an operation between p and the loss has no second derivative. No ``.grad`` has
            been written then, unless the operation hides it from its derivative by the gradient.
    """
    return _product(loss, parameter, v, loss.backward)


def product_only(loss: Tensor, parameter: Tensor, v: Tensor) -> Tensor | None:
    """As :func:`backward_with_product`, but no ``.grad`` is written, and no gradient taken but what Hv needs."""
    return _product(loss, parameter, v, lambda: torch.autograd.grad(loss, parameter, allow_unused=True))


def _product(loss: Tensor, parameter: Tensor, v: Tensor, backward: Callable[[], object]) -> Tensor | None:
    start, nodes = source(parameter), path(loss, parameter)
    if not all(saved_as_it_is(node) for node in nodes):
        column = _by_torch(loss, parameter, v)
        backward()
        return column
    with torch.no_grad(), _no_autocast([v]):
        forward_nodes = _jvp(nodes, start, v)
    hooks = _BackwardHooks(forward_nodes)
    try:
        backward()
    finally:
        hooks.stop()
    if not forward_nodes:
        return torch.zeros_like(parameter, requires_grad=False) if loss is parameter else None
    column = hooks.tangents.get(start)
    return torch.zeros_like(parameter, requires_grad=False) if column is None else column


def _by_torch(loss: Tensor, parameter: Tensor, v: Tensor) -> Tensor | None:
    gradient = differentiable_gradient(loss, parameter)
    return None if gradient is None else block_product(gradient, parameter)(v)


def _jvp(nodes: Mapping[Node, tuple[bool, ...]], start: Edge, v: Tensor) -> list[ForwardNode]:
    tangents: dict[Edge, Tensor] = {start: v}
    writable: set[Edge] = set()
    without_tangent: set[Edge] = set()
    waiting = _consumers(nodes)
    forward_nodes = []
    for node, active in nodes.items():
        edges = node.next_functions
        _refuse_unknown(without_tangent.intersection(edges))
        writable_inputs = [edge in writable for edge in edges]
        fwd = ForwardNode(
            node, rule_of(node), active, [tangents.get(edge) for edge in edges], writable_inputs
        )
        made = _conforming(node, fwd.rule.jvp(fwd))
        without_tangent.update((node, number) for number in range(len(made), len(node._input_metadata)))
        tangents.update({(node, number): t for number, t in enumerate(made) if t is not None})
        for number, is_own in enumerate(owned_results(fwd.rule, made, fwd.tangents, writable_inputs)):
            if is_own and waiting.get((node, number)) == 1:
                writable.add((node, number))
        if sum(active) < fwd.rule.linearity:
            fwd.tangents = [None] * len(edges)
        for edge in edges:
            waiting[edge] = waiting.get(edge, 0) - 1
            if waiting[edge] == 0:
                tangents.pop(edge, None)
        forward_nodes.append(fwd)
    return forward_nodes


def _refuse_unknown(outputs: set[Edge]) -> None:
    for node, number in outputs:
        raise GiveUp(f"its rule knows no tangent of output {number} of {type(node).__name__}, which is used")


def _consumers(nodes: Mapping[Node, tuple[bool, ...]]) -> dict[Edge, int]:
    """How many inputs each value is."""
    counts: dict[Edge, int] = {}
    for node in nodes:
        for edge in node.next_functions:
            counts[edge] = counts.get(edge, 0) + 1
    return counts


class _BackwardHooks:
    """The tangents of the gradients, beside a running backward pass."""

    def __init__(self, forward_nodes: list[ForwardNode]) -> None:
        self.tangents: dict[Edge, Tensor] = {}
        self._writable: set[Edge] = set()
        self._forward_nodes = {fwd.node: fwd for fwd in forward_nodes}
        # A rule may run autograd itself, over operations that have their own turn still to come.
        self._busy = False
        self._handles = [fwd.node.register_hook(self._hook(fwd.node)) for fwd in forward_nodes]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._forward_nodes.clear()

    def _hook(self, node: Node) -> Any:
        return lambda by_inputs, g: self._after_node(node, by_inputs, g)

    def _after_node(self, node: Node, by_inputs: Tensors, g: Tensors) -> None:
        if self._busy:
            return
        fwd = self._forward_nodes.pop(node)
        edges = [(node, number) for number in range(len(g))]
        dg = [self.tangents.pop(edge, None) for edge in edges]
        writable_inputs = [edge in self._writable for edge in edges]
        if fwd.rule.linearity > sum(fwd.active) and all(t is None for t in dg):
            return
        self._busy = True
        try:
            with torch.no_grad(), _no_autocast(g):
                found = fwd.rule.vjp_tangent(BackwardNode(fwd, g, dg, writable_inputs, by_inputs))
                asked = [t if active else None for t, active in zip(found, fwd.active, strict=False)]
                own = owned_results(fwd.rule, asked, dg, writable_inputs)
                for edge, tangent, is_own in zip(node.next_functions, asked, own, strict=False):
                    self._add(edge, tangent, is_own)
        finally:
            self._busy = False

    def _add(self, edge: Edge, tangent: Tensor | None, is_own: bool) -> None:
        if edge[0] is None or tangent is None:
            return
        tangent = as_gradient(edge, tangent)
        held = self.tangents.get(edge)
        if held is None:
            self.tangents[edge] = tangent
        elif edge in self._writable:
            held.add_(tangent)
        else:
            self.tangents[edge] = tangent.add_(held) if is_own else held + tangent
        if is_own or held is not None:
            self._writable.add(edge)


def _conforming(node: Node, tangents: Tensors) -> Tensors:
    """ẏ as the outputs are: operations that broadcast leave it to be spread, or to be of another dtype."""
    declared = node._input_metadata
    return [
        t if t is None else t.expand(tuple(d.shape)).to(d.dtype)
        for t, d in zip(tangents, declared, strict=False)
    ]


def _no_autocast(tensors: Tensors) -> torch.autocast:
    device = next((t.device.type for t in tensors if t is not None), "cpu")
    return torch.autocast(device, enabled=False)
