"""Operations that no rule knows: torch's own second derivative of that one operation.

The backward of an operation, B(g; x), is linear in g. Its derivative by g along ẋ is therefore the tangent ẏ, and
by symmetry of the second derivative its derivative by x along ẋ is what the curvature adds to ġ by x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.autograd_graph import passing_nothing_on
from sgdph_fx.curvature.backward_checks import mixed_signs
from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    GiveUp,
    Rule,
    Tensors,
    as_gradient,
    total,
)
from sgdph_fx.curvature.hvp import missing_derivatives_explained

__all__ = ["FALLBACK", "apply", "require_known_kind", "torch_jvp", "torch_vjp_tangent"]


def apply(node: Node, gradients: Tensors) -> Tensors:
    """B(g; x): what the operation's backward makes of other gradients, by all of its inputs."""
    call: Any = node if callable(node) else node.apply  # type: ignore[attr-defined]
    found = call(*gradients)
    return found if isinstance(found, tuple) else (found,)


def torch_jvp(fwd: ForwardNode) -> Tensors:
    """ẏ, as the derivative of B by g along ẋ."""
    node = fwd.node
    probes = [mixed_signs(m).requires_grad_() for m in node._input_metadata]
    outputs, along = _differentiable(node, probes, fwd.tangents)
    if not outputs:
        return [None] * len(probes)
    with missing_derivatives_explained():
        return torch.autograd.grad(outputs, probes, along, allow_unused=True)


def torch_vjp_tangent(bwd: BackwardNode) -> Tensors:
    """ġ by the inputs: B(ġ; x), and the derivative of B(g; x) by x along ẋ."""
    node = bwd.node
    first: Tensors = [None] * len(bwd.active)
    if any(t is not None for t in bwd.dg):
        first = apply(node, bwd.dg)
    second = _by_inputs(bwd)
    return [
        total(None if own is None else as_gradient(edge, own), second.get(edge)) if active else None
        for own, edge, active in zip(first, node.next_functions, bwd.active, strict=False)
    ]


def _by_inputs(bwd: BackwardNode) -> dict[Any, Tensor | None]:
    node = bwd.node
    inputs = zip(node.next_functions, bwd.active, strict=True)
    edges = list(dict.fromkeys((child, nr) for (child, nr), active in inputs if active and child is not None))
    gradients = [None if g is None else g.detach().requires_grad_() for g in bwd.g]
    outputs, along = _differentiable(node, gradients, bwd.tangents)
    if not outputs:
        return {}
    wanted = [GradientEdge(child, number) for child, number in edges]
    # A derivative by several values must not flow through one of them into another.
    with passing_nothing_on({child for child, _ in edges}), missing_derivatives_explained():
        found = torch.autograd.grad(outputs, wanted, along, allow_unused=True, retain_graph=True)
    # An input given twice gets the sum, and passes it on once.
    return _Once(zip(edges, found, strict=True))


def _differentiable(node: Node, gradients: Tensors, tangents: Tensors) -> tuple[list[Tensor], list[Tensor]]:
    """B(g; x) with a graph, by those inputs that have a tangent; and those tangents."""
    with torch.enable_grad(), missing_derivatives_explained():
        outputs = apply(node, gradients)
    pairs = [
        # The backward of an operation that broadcasts leaves the sum to the engine.
        (out, along.expand(out.shape).to(out.dtype))
        for out, along in zip(outputs, tangents, strict=False)
        if out is not None and along is not None and out.requires_grad
    ]
    return [out for out, _ in pairs], [along for _, along in pairs]


class _Once(dict[Any, "Tensor | None"]):
    """A mapping that gives each value one time."""

    def get(self, key: Any, default: Any = None) -> Any:
        return self.pop(key, default)


def require_known_kind(node: Node) -> None:
    """Raise GiveUp unless torch's derivative of this operation alone is known to be that of the whole.

    Python functions may do anything in their backward, and have semantics that only the engine gives them. The
    operations of double backward have outputs that were never computed.
    """
    if not callable(node):
        raise GiveUp("it is a function written in Python")
    if type(node).__name__.count("Backward") > 1:
        raise GiveUp("it is a gradient, differentiated in the loss")
    values = [
        m
        for child, number in node.next_functions
        if child is not None
        for m in [child._input_metadata[number]]
    ]
    if any(m.dtype.is_complex for m in (*values, *node._input_metadata)):
        raise GiveUp("it is complex")


def _tried_jvp(fwd: ForwardNode) -> Tensors:
    """ẏ, once the backward half has been tried as well: an operation may have a first half alone."""
    made = torch_jvp(fwd)
    g = [mixed_signs(m) for m in fwd.node._input_metadata]
    torch_vjp_tangent(BackwardNode(fwd, g, made, [False] * len(g), [None] * len(fwd.active)))
    return made


FALLBACK = Rule(_tried_jvp, torch_vjp_tangent, NONLINEAR)
