"""The operations that lead from parameters to the loss, in the order of the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from sgdph_fx.curvature.forward_over_reverse.rule import Edge

__all__ = ["path", "producers_first", "saved_as_it_is", "source"]


def source(parameter: Tensor) -> Edge:
    """Where the gradient of a leaf arrives."""
    edge = get_gradient_edge(parameter)
    return edge.node, edge.output_nr


def path(order: Sequence[Node], *parameters: Tensor) -> dict[Node, tuple[bool, ...]]:
    """Find every operation that depends on one of the ``parameters``.

    Args:
        order: The operations of a loss, producers before consumers.
        parameters: Leaves.

    Returns:
        For each operation, in the same order, which of its inputs depend on a parameter. Empty if the loss depends on
        none, or is the parameter itself.
    """
    starts = {source(parameter)[0] for parameter in parameters}
    found: dict[Node, tuple[bool, ...]] = {}
    for node in order:
        active = tuple(child in starts or child in found for child, _ in node.next_functions)
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
    """The memory of a tensor, by its storage: tensors that only describe a device have no address of data."""
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else 0


def producers_first(loss: Tensor) -> list[Node]:
    """List every operation that ``loss`` was made by, producers before consumers."""
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
