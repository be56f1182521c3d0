r"""The diagonal of the Gauss-Newton matrix, for all parameters at once, by one more backward pass.

Let z be what the last convex function of the loss reads (the logits of a cross-entropy, say), J = ∂z/∂p, and A the
Hessian of the loss by z. The Gauss-Newton matrix :math:`J^\top A J` drops the second derivative of the network itself,
so it is never negative. For cross-entropy it is the Fisher matrix (Martens, "New insights and perspectives on the
natural gradient method", 2020, section 8).

With a root :math:`A = B B^\top` and random signs s, the vector :math:`J^\top B s` has the diagonal as the mean of its
squares:

.. math:: \operatorname{diag}(J^\top A J) = \mathbb{E}_s \bigl[ (J^\top B s)^2 \bigr] .

One draw takes one backward pass from z, which computes no gradient of a weight that you did not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import saved
from sgdph_fx.errors import NoCurvatureError

__all__ = ["gauss_newton_diagonal"]

Root: TypeAlias = "Callable[[Node, Tensor, Tensor], Tensor]"
"""(node, g, s) ↦ B s: g is the gradient of the loss by the node's output, s has the shape of its input."""

_MEAN = 1  # torch's number for reduction="mean"


@dataclass(frozen=True, slots=True)
class _ConvexEnd:
    """A convex function in which the loss is linear: its node in autograd's graph, and the root of its curvature."""

    node: Node
    root: Root

    @property
    def output(self) -> GradientEdge:
        return GradientEdge(self.node, 0)

    @property
    def input(self) -> GradientEdge:
        child, number = self.node.next_functions[0]
        assert child is not None
        return GradientEdge(child, number)


def gauss_newton_diagonal(
    loss: Tensor, params: Sequence[Tensor], generator: torch.Generator, *, draws: int = 1
) -> list[Tensor]:
    """Estimate the diagonal of the Gauss-Newton matrix, without bias and never negative.

    Args:
        loss: One number with its graph, which is kept. It must be linear in known convex functions of the network's
            outputs: log-softmax (and so cross-entropy, also with soft targets, class weights or label smoothing),
            squares and MSE, binary cross-entropy with logits, or a sum of several of these. A part
            that enters with a negative weight counts as zero.
        params: The leaves to take it for, of any shapes, dtypes and devices.
        generator: Decides the signs; on the CPU or on the device of the loss.
        draws: How many draws to average. The relative standard deviation of one draw is at most about √2, and falls
            with the square root of the number of draws.

    Returns:
        For each parameter a tensor of its shape, dtype and device, without graph. Zeros where the loss does not depend
        on it.

    Raises:
        NoCurvatureError: if the loss is not of this form; the message names the operation.

    Example:
        Of the loss (2 p)² / 2 the Gauss-Newton matrix is the Hessian, 4:

        >>> p = torch.tensor([3.0], requires_grad=True)
        >>> gauss_newton_diagonal((2 * p).pow(2).sum() / 2, [p], torch.Generator().manual_seed(0))
        [tensor([4.])]
    """
    ends = list(_convex_ends(loss))
    found = [torch.zeros_like(p, requires_grad=False) for p in params]
    if not ends:
        return found
    outer = torch.autograd.grad(loss, [end.output for end in ends], retain_graph=True)
    inputs = [end.input for end in ends]
    for _ in range(draws):
        along = [
            end.root(end.node, g, _signs(end.input, generator)) for end, g in zip(ends, outer, strict=True)
        ]
        pulled = torch.autograd.grad(inputs, params, along, retain_graph=True, allow_unused=True)
        for total, one in zip(found, pulled, strict=True):
            if one is not None:
                total.addcmul_(one, one, value=1 / draws)
    return found


def _convex_ends(loss: Tensor) -> Iterator[_ConvexEnd]:
    """Walk from the loss through linear operations to the convex functions in which it is linear."""
    seen: set[Node] = set()
    stack = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        root = ROOTS.get(type(node).__name__)
        if root is not None and _applies(node):
            yield _ConvexEnd(node, root)
            continue
        _require_linear(node)
        stack.extend(child for child, _ in node.next_functions)


def _applies(node: Node) -> bool:
    """A power is a square or nothing that is known here."""
    return type(node).__name__ != "PowBackward0" or saved(node, "exponent") == 2


def _require_linear(node: Node) -> None:
    if not _is_linear(node):
        raise NoCurvatureError(
            f"The Gauss-Newton matrix of this loss is not known: the loss bends in {type(node).__name__}, which is no "
            f"convex function of the list {', '.join(sorted(ROOTS))}. Compute the loss by cross_entropy, mse_loss or "
            "binary_cross_entropy_with_logits, or use the Hessian."
        )


def _is_linear(node: Node) -> bool:
    name, active = type(node).__name__, [child is not None for child, _ in node.next_functions]
    if name == "DivBackward0":
        return not active[1]
    return name == "AccumulateGrad" or sum(active) < rule_of(node).linearity


def _signs(edge: GradientEdge, generator: torch.Generator) -> Tensor:
    declared = edge.node._input_metadata[edge.output_nr]
    shape = tuple(declared.shape)
    bits = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8, device=generator.device)
    return bits.to(declared.device, declared.dtype, non_blocking=True).mul_(2).sub_(1)


def _log_softmax(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """A = m (diag(p) − p pᵀ) for each row, with m = −Σ g, whose root is √m (diag(√p) − p √pᵀ)."""
    dim = saved(node, "dim")
    p = saved(node, "result").exp()
    weight = g.sum(dim, keepdim=True).neg_().clamp_min_(0)
    along = p.sqrt() * s
    found: Tensor = (along - p * along.sum(dim, keepdim=True)) * weight.sqrt()
    return found


def _square(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """A = diag(2 g)."""
    return s * (2 * g).clamp_min(0).sqrt()


def _mse(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """A = diag(2 g), and g over n where the mean over n numbers is taken."""
    return s * (2 * _each(node, g, s)).clamp_min(0).sqrt()


def _bce_with_logits(node: Node, g: Tensor, s: Tensor) -> Tensor:
    """A = diag(g w (π y + 1 − y) σ (1 − σ)), with the weights w, the positive weights π and the targets y."""
    logits, target = saved(node, "self"), saved(node, "target")
    weight, positive = saved(node, "weight"), saved(node, "pos_weight")
    q = torch.sigmoid(logits)
    a: Tensor = _each(node, g, s) * q * (1 - q)
    a = a if positive is None else a * (positive * target + 1 - target)
    a = a if weight is None else a * weight
    return s * a.clamp_min(0).sqrt()


def _each(node: Node, g: Tensor, like: Tensor) -> Tensor:
    """The gradient by each number before the loss function's own reduction."""
    return g / like.numel() if saved(node, "reduction") == _MEAN else g


ROOTS: Mapping[str, Root] = {
    "BinaryCrossEntropyWithLogitsBackward0": _bce_with_logits,
    "LogSoftmaxBackward0": _log_softmax,
    "MseLossBackward0": _mse,
    "PowBackward0": _square,
}
"""By node."""
