"""Functions written in Python on the way of a product: which of them torch's double backward can be trusted with.

The backward of any function is linear in the gradient g that it gets. So where g carries a graph, a result without one
is either zero or cut off: the function computed it in NumPy, in a kernel of its own, or under ``no_grad``. Torch takes
such a result for a constant, and the product would be silently wrong. :func:`watched` finds it.

Reentrant checkpoints are Python functions as well; :mod:`sgdph_fx.curvature.reentrant` has a way for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.errors import NoCurvatureError

__all__ = ["CHECKPOINT", "full_name", "leaves_grads_alone", "watched"]

CHECKPOINT = "torch.utils.checkpoint.CheckpointFunction"
"""The function that a reentrant checkpoint puts into the graph."""


def full_name(node: Node) -> str:
    """Module and class of the Python function whose backward the node is; empty for an operation of torch's own."""
    function = getattr(type(node), "_forward_cls", None)
    return f"{function.__module__}.{function.__qualname__}" if function is not None else ""


@contextmanager
def watched(among: Sequence[Node]) -> Iterator[None]:
    """Refuse, at the end, functions written in Python whose backward dropped its graph meanwhile.

    Args:
        among: Nodes of a graph that is differentiated inside, with gradients that carry a graph.

    Raises:
        NoCurvatureError: naming the first such function.
    """
    cut: list[str] = []
    with ExitStack() as stack:
        for node in among:
            if full_name(node) not in ("", CHECKPOINT):
                stack.callback(node.register_hook(_hook(node, cut)).remove)
        yield
    if cut:
        raise NoCurvatureError(
            f"The backward of {cut[0]} returns gradients that do not depend on the gradient it was given, as far as "
            "autograd can see: it computes them outside of PyTorch, in a kernel of its own, or under torch.no_grad. So "
            "it has no second derivative. Write its backward with PyTorch operations, or put the parameters below it "
            "into a group with order=1."
        )


def _hook(node: Node, cut: list[str]) -> Any:
    def check(by_inputs: tuple[Tensor | None, ...], g: tuple[Tensor | None, ...]) -> None:
        graphless = [t for t in by_inputs if t is not None and not t.requires_grad]
        along_graph = any(t is not None and t.requires_grad for t in g)
        if along_graph and any(bool(t.any()) for t in graphless):
            cut.append(full_name(node))

    return check


@contextmanager
def leaves_grads_alone(leaves: Sequence[Tensor], among: Sequence[Node]) -> Iterator[None]:
    """Undo what functions written in Python write into ``.grad`` inside, and refuse them.

    Args:
        leaves: The parameters to look at.
        among: The nodes that are run inside; without a Python function among them nothing is looked at.

    Raises:
        NoCurvatureError: naming such a function.
    """
    names = [name for name in map(full_name, among) if name not in ("", CHECKPOINT)]
    if not names:
        yield
        return
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in leaves]
    yield
    changed = False
    for parameter, gradient, value in before:
        if parameter.grad is not gradient:
            parameter.grad, changed = gradient, True
        elif gradient is not None and value is not None and not torch.equal(gradient, value):
            with torch.no_grad():
                gradient.copy_(value)
            changed = True
    if changed:
        raise NoCurvatureError(
            f"The backward of {' or '.join(dict.fromkeys(names))} runs autograd by itself and writes gradients, which "
            "cannot be differentiated again. Use a function whose backward returns its gradients, or put the "
            "parameters below and inside it into a group with order=1."
        )
