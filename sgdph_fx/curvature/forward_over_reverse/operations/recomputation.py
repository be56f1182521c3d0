"""Operations whose backward has no derivative, by other operations that compute the same.

The operation runs once more, on what it saved, as a small graph of its own that torch can differentiate twice. A
product then takes the time and the memory of those other operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    total,
)

__all__ = ["Recomputed", "recomputed"]


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One application, with a graph.

    Args:
        leaves: The inputs, in the order of the node's; active ones require a gradient.
        outputs: The first outputs of the node, computed from the leaves.
    """

    leaves: Sequence[Tensor]
    outputs: Sequence[Tensor]

    @classmethod
    def of(
        cls,
        given: Sequence[Tensor],
        active: Sequence[bool],
        run: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    ) -> Recomputed:
        """Run an operation again, in single precision at least.

        Args:
            given: Its inputs.
            active: For each edge of the node, whether it depends on the due parameter.
            run: Inputs ↦ outputs.
        """
        leaves = [_leaf(t, is_active) for t, is_active in zip(given, active, strict=False)]
        with torch.enable_grad():
            outputs = list(run(leaves))
        # Arguments that are not there leave edges as well.
        missing = [torch.empty(0, device=given[0].device)] * (len(active) - len(leaves))
        return cls([*leaves, *missing], outputs)

    @property
    def active(self) -> list[Tensor]:
        """The leaves that depend on the due parameter."""
        return [leaf for leaf in self.leaves if leaf.requires_grad]

    def gradients(self, g: Tensors, *, differentiable: bool = False) -> Tensors:
        """Compute the gradients by the leaves; None is zero, in ``g`` and in the result."""
        pairs = [(out, each) for out, each in zip(self.outputs, g, strict=True) if each is not None]
        if not pairs:
            return [None] * len(self.leaves)
        outputs, given = zip(*pairs, strict=True)
        with torch.enable_grad():
            found = torch.autograd.grad(
                outputs, self.active, given, retain_graph=True, create_graph=differentiable, allow_unused=True
            )
        return self.in_place(found)

    def in_place(self, found: Tensors) -> Tensors:
        """Put what was found for the active leaves in their places."""
        each = iter(found)
        return [next(each) if leaf.requires_grad else None for leaf in self.leaves]

    def like_outputs(self, tensors: Tensors) -> Tensors:
        """Cast one tensor for each output to its dtype."""
        pairs = zip(tensors, self.outputs, strict=False)
        return [None if t is None else t.detach().to(out.dtype) for t, out in pairs]


def recomputed(again: Callable[[ForwardNode], Recomputed]) -> Rule:
    """Make the rule of an operation that ``again`` runs once more."""

    def jvp(fwd: ForwardNode) -> Tensors:
        """Differentiate the gradients, which are linear in g, by g along ẋ."""
        fwd.memo = one = again(fwd)
        probes = [torch.zeros_like(out).requires_grad_() for out in one.outputs]
        return _along(one.gradients(probes, differentiable=True), fwd.tangents, probes)

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        """Add up the gradients of ġ, and the derivatives of the gradients of g by the inputs along ẋ."""
        one: Recomputed = bwd.fwd.memo
        passed = one.gradients(one.like_outputs(bwd.dg))
        gradients = one.gradients(one.like_outputs(bwd.g), differentiable=True)
        bent = one.in_place(_along(gradients, bwd.tangents, one.active))
        return [total(first, second) for first, second in zip(passed, bent, strict=True)]

    return Rule(jvp, vjp_tangent, NONLINEAR)


def _along(gradients: Tensors, tangents: Tensors, wanted: Sequence[Tensor]) -> Tensors:
    pairs = [
        (g, t.to(g.dtype))
        for g, t in zip(gradients, tangents, strict=True)
        if g is not None and t is not None and g.requires_grad
    ]
    if not pairs:
        return [None] * len(wanted)
    outputs, along = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, wanted, along, retain_graph=True, allow_unused=True)


def _leaf(t: Tensor, is_active: bool) -> Tensor:
    return t.detach().to(torch.promote_types(t.dtype, torch.float32)).requires_grad_(is_active)
