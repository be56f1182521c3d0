"""Reading the autograd graph that a loss hangs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.graph import Node

__all__ = [
    "Edge",
    "Order",
    "leaves",
    "leaves_among",
    "nodes",
    "nodes_below",
    "passing_nothing_on",
    "producers_first",
]

Edge: TypeAlias = "tuple[Node | None, int]"
"""One value of the graph: the operation that made it (None for a constant), and which of its outputs it is."""

Order: TypeAlias = "Mapping[Node, tuple[Edge, ...]]"
"""The operations of a loss with their inputs, producers before consumers."""


def nodes(*outputs: Tensor) -> Iterator[Node]:
    """Every operation that ``outputs`` were made by, each once.

    Lazy: stop reading, and the rest of the graph is not visited.
    """
    return nodes_below(*(output.grad_fn for output in outputs))


def nodes_below(*starts: Node | None, ends: Iterable[Node | None] = ()) -> Iterator[Node]:
    """The operations ``starts`` and every one that their inputs were made by; as lazy as :func:`nodes`.

    Args:
        starts: Operations; None is left out.
        ends: Operations at which to stop, left out themselves.
    """
    seen: set[Node | None] = {None, *ends}
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(child for child, _ in node.next_functions)


def leaves(output: Tensor) -> Iterator[Tensor]:
    """The leaf tensors that ``output`` would send a gradient to, each once; as lazy as :func:`nodes`."""
    if output.grad_fn is None and output.requires_grad:
        yield output
    yield from leaves_among(nodes(output))


def leaves_among(among: Iterable[Node]) -> Iterator[Tensor]:
    """The leaf tensors whose gradients arrive at one of these nodes."""
    for node in among:
        if type(node).__name__ == "AccumulateGrad":
            yield cast(Tensor, node.variable)  # type: ignore[attr-defined]


def producers_first(output: Tensor) -> dict[Node, tuple[Edge, ...]]:
    """Every operation that ``output`` was made by, producers before consumers.

    Returns:
        For each operation, where its inputs come from.
    """
    order: dict[Node, tuple[Edge, ...]] = {}
    entered: dict[Node, tuple[Edge, ...]] = {}
    stack = [] if output.grad_fn is None else [output.grad_fn]
    while stack:
        node = stack[-1]
        if node in entered:
            order[stack.pop()] = entered[node]
            continue
        edges = entered[node] = node.next_functions
        for child, _ in edges:
            if child is not None and child not in entered:
                stack.append(child)
    return order


@contextmanager
def passing_nothing_on(ends: Iterable[Node | None]) -> Iterator[None]:
    """Within, a backward pass that comes to one of ``ends`` goes on from it with zeros; None is left out."""
    with ExitStack() as stack:
        for end in ends:
            if end is not None:
                stack.callback(end.register_prehook(_zeros).remove)
        yield


def _zeros(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else torch.zeros_like(g) for g in gradients)
