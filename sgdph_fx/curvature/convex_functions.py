"""Convex functions that losses end in, each with a root of its curvature in closed form.

Let a function read z, let g be the gradient of the loss by what it returns, and A the Hessian of g times the function
by z. Its root is a matrix B with B Bᵀ = A. Where g has the sign that makes the function concave, A counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.losses import BENDS, Bend
from sgdph_fx.curvature.forward_over_reverse.operations.reduction import widened
from sgdph_fx.curvature.forward_over_reverse.operations.smooth import second_derivative
from sgdph_fx.curvature.forward_over_reverse.rule import saved

__all__ = ["KINKED", "ROOTS", "Root", "applies"]

Root: TypeAlias = "Callable[[Node, Tensor, Tensor], Tensor]"
"""(node, g, s) ↦ B s: g is the gradient of the loss by the node's output, s has the shape of z."""

_MEAN = 1  # torch's number for reduction="mean"


def _of_each(bend: Bend) -> Root:
    """A function of each number alone: A = diag(g f'')."""

    def root(node: Node, g: Tensor, s: Tensor) -> Tensor:
        found: Tensor = s * (g * bend(node)).clamp_min(0).sqrt()
        return found

    return root


def _reduced(bend: Bend) -> Root:
    """A loss of each number, and their sum or mean: A = diag(g ℓ''), and g over n for a mean over n numbers."""

    def root(node: Node, g: Tensor, s: Tensor) -> Tensor:
        share = g / s.numel() if saved(node, "reduction") == _MEAN else g
        found: Tensor = s * (share * bend(node)).clamp_min(0).sqrt()
        return found

    return root


def _softmax(weight: Tensor, p: Tensor, s: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """A = m (diag(p) - p pᵀ) for each row, whose root is √m (diag(√p) - p √pᵀ)."""
    along = p.sqrt() * s
    found: Tensor = (along - p * along.sum(dim, keepdim=True)) * weight.clamp_min(0).sqrt()
    return found


def _log_softmax(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """The softmax's, with m = -Σ g."""
    dim: int = saved(node, "dim")
    return _softmax(g.sum(dim, keepdim=True).neg_(), saved(node, "result").exp(), s, dim)


def _logsumexp(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """The softmax's, with m = g."""
    x, dim = saved(node, "self"), saved(node, "dim")
    p = (x - widened(node, saved(node, "result"), x.dim())).exp_()
    return _softmax(widened(node, g, x.dim()), p, s, dim)


ROOTS: Mapping[str, Root] = {
    **{name: _reduced(bend) for name, bend in BENDS.items()},
    "ExpBackward0": _of_each(second_derivative),
    "LogSigmoidBackward0": _of_each(second_derivative),
    "LogSoftmaxBackward0": _log_softmax,
    "LogsumexpBackward0": _logsumexp,
    "MulBackward0": _of_each(lambda node: 2.0),
    "PowBackward0": _of_each(lambda node: 2.0),
    "SoftplusBackward0": _of_each(second_derivative),
}
"""By node."""

KINKED = (
    *("AbsBackward0", "ClampBackward0", "ClampBackward1", "ClampMaxBackward0", "ClampMinBackward0"),
    *("HardtanhBackward0", "LeakyReluBackward0", "MaximumBackward0", "MinimumBackward0", "ReluBackward0"),
    "ThresholdBackward0",
)
"""Functions that are straight but for kinks, as L1 and hinge losses are: their curvature is zero."""


def applies(node: Node) -> bool:
    """Whether the function is of the table: a power must be a square, and a product that of a value with itself."""
    name = type(node).__name__
    if name == "MulBackward0":
        first, second = node.next_functions
        return first[0] is not None and first == second
    return name in ROOTS and (name != "PowBackward0" or saved(node, "exponent") == 2)
