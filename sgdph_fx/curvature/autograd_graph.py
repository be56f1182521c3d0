"""Reading the autograd graph that a loss hangs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["leaves", "nodes", "nodes_below"]


def nodes(*outputs: Tensor) -> Iterator[Node]:
    """Every operation that ``outputs`` were made by, each once.

    Lazy: stop reading, and the rest of the graph is not visited.
    """
    return nodes_below(*(output.grad_fn for output in outputs))


def nodes_below(*starts: Node | None) -> Iterator[Node]:
    """The operations ``starts`` and every one that their inputs were made by; as lazy as :func:`nodes`."""
    seen: set[Node] = set()
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
    for node in nodes(output):
        if type(node).__name__ == "AccumulateGrad":
            yield cast(Tensor, node.variable)  # type: ignore[attr-defined]
