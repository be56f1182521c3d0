"""The operations that lead from one parameter to the loss, in the order of the forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from sgdph_fx.curvature.forward_over_reverse.rule import Edge

__all__ = ["path", "saved_as_it_is", "source"]


def source(parameter: Tensor) -> Edge:
    """Where the gradient of a leaf arrives."""
    edge = get_gradient_edge(parameter)
    return edge.node, edge.output_nr


def path(loss: Tensor, parameter: Tensor) -> dict[Node, tuple[bool, ...]]:
    """Every operation that depends on ``parameter``, producers before consumers.

    Returns:
        For each operation, which of its inputs depend on the parameter. Empty if ``loss`` does not, or is
        the parameter itself.
    """
    start, _ = source(parameter)
    found: dict[Node, tuple[bool, ...]] = {}
    for node in _producers_first(loss):
        active = tuple(child is start or child in found for child, _ in node.next_functions)
        if any(active):
            found[node] = active
    return found


def saved_as_it_is(node: Node) -> bool:
    """Whether what the operation saved is simply there, and not recomputed or fetched at each reading.

    Activation checkpoints allow one reading in each backward pass, which autograd itself needs.
    """
    pairs = zip(_saved(node), _saved(node), strict=True)
    return all(_address(first) == _address(second) for first, second in pairs)


def _saved(node: Any) -> list[Any]:
    if not callable(node):
        return list(node.saved_tensors)
    names = (name for name in dir(node) if name.startswith("_saved_") and "_sym_" not in name)
    return [getattr(node, name) for name in names]


def _address(value: Any) -> int:
    return value.data_ptr() if isinstance(value, Tensor) else 0


def _producers_first(loss: Tensor) -> list[Node]:
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(loss.grad_fn, False)] if loss.grad_fn is not None else []
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    return order
