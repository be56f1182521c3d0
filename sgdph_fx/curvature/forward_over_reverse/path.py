"""The operations that lead from parameters to the loss, in the order of the forward pass."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from sgdph_fx.curvature.autograd_graph import Edge, Order

__all__ = ["path", "source"]


def source(parameter: Tensor) -> Edge:
    """Where the gradient of a leaf arrives."""
    edge = get_gradient_edge(parameter)
    return edge.node, edge.output_nr


def path(order: Order, *parameters: Tensor) -> dict[Node, tuple[bool, ...]]:
    """Find every operation that depends on one of the ``parameters``.

    Args:
        order: The operations of a loss with their inputs, producers before consumers.
        parameters: Leaves.

    Returns:
        For each operation, in the same order, which of its inputs depend on a parameter. Empty if the loss depends on
        none, or is the parameter itself.
    """
    starts = {source(parameter)[0] for parameter in parameters}
    found: dict[Node, tuple[bool, ...]] = {}
    reached: set[Node | None] = {*starts}
    for node, edges in order.items():
        active = tuple([child in reached for child, _ in edges])
        if True in active:
            found[node] = active
            reached.add(node)
    return found
