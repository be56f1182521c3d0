"""The operations that lead from one parameter to the loss, in the order of the forward pass."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from sgdph_fx.curvature.autograd_graph import Edge, Order

__all__ = ["path", "source"]


def source(parameter: Tensor) -> Edge:
    """Where the gradient of a leaf arrives."""
    edge = get_gradient_edge(parameter)
    return edge.node, edge.output_nr


def path(order: Order, parameter: Tensor) -> dict[Node, tuple[bool, ...]]:
    """Find every operation that depends on ``parameter``.

    Args:
        order: The operations of a loss with their inputs, producers before consumers.
        parameter: A leaf.

    Returns:
        For each operation, in the same order, which of its inputs depend on the parameter. Empty if the loss does not
        depend on it, or is the parameter itself.
    """
    start, _ = source(parameter)
    found: dict[Node, tuple[bool, ...]] = {}
    reached: set[Node | None] = {start}
    for node, edges in order.items():
        active = tuple([child in reached for child, _ in edges])
        if True in active:
            found[node] = active
            reached.add(node)
    return found
