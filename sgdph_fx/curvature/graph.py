"""Reading the autograd graph that a loss hangs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["leaves"]


def leaves(output: Tensor) -> Iterator[Tensor]:
    """The leaf tensors that ``output`` would send a gradient to, each once.

    Lazy: stop reading, and the rest of the graph is not visited.
    """
    if output.grad_fn is None:
        if output.requires_grad:
            yield output
        return
    seen: set[Node] = set()
    stack: list[Node] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            yield cast(Tensor, node.variable)  # type: ignore[attr-defined]
        stack.extend(child for child, _ in node.next_functions if child is not None)
