"""The convex functions that a loss is linear in, and a root of the curvature of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, sigmoid
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import saved
from sgdph_fx.errors import NoCurvatureError

__all__ = ["ConvexEnd", "convex_ends"]

Root: TypeAlias = "Callable[[Node, Tensor, Tensor], Tensor]"
"""(node, g, s) ↦ B s: g is the gradient of the loss by the node's output, s has the shape of its input."""

_OF_DIFFERENCES = ("MseLossBackward0",)
_MEAN = 1  # torch's number for reduction="mean"


@dataclass(frozen=True, slots=True)
class ConvexEnd:
    """A convex function in which the loss is linear: its node in autograd's graph, and the root of its curvature."""

    node: Node
    root: Root

    @property
    def output(self) -> GradientEdge:
        """Where the gradient by what the function returns arrives."""
        return GradientEdge(self.node, 0)

    @property
    def inputs(self) -> tuple[tuple[GradientEdge, int], ...]:
        """Where the gradients by what makes up z arrive, and the sign of each in z. Of MSE z is a difference of two."""
        signs = (1, -1) if type(self.node).__name__ in _OF_DIFFERENCES else (1,)
        edges = zip(self.node.next_functions, signs, strict=False)
        return tuple((GradientEdge(child, number), s) for (child, number), s in edges if child is not None)


def convex_ends(loss: Tensor) -> Iterator[ConvexEnd]:
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
            yield ConvexEnd(node, root)
            continue
        _require_linear(node)
        stack.extend(child for child, _ in node.next_functions)


def _applies(node: Node) -> bool:
    """A power is a square or nothing that is known here, and targets that depend on the network are known of MSE."""
    name = type(node).__name__
    if name not in _OF_DIFFERENCES and any(child is not None for child, _ in node.next_functions[1:]):
        return False
    return name != "PowBackward0" or saved(node, "exponent") == 2


def _require_linear(node: Node) -> None:
    if not _is_linear(node):
        raise NoCurvatureError(
            f"The Gauss-Newton matrix of this loss is not known: it passes {type(node).__name__}, which is neither "
            f"linear nor a convex function of the list {', '.join(sorted(ROOTS))}. Compute the loss by cross_entropy, "
            "mse_loss or binary_cross_entropy_with_logits, or use the Hessian."
        )


def _is_linear(node: Node) -> bool:
    name, active = type(node).__name__, [child is not None for child, _ in node.next_functions]
    if name == "DivBackward0":
        return not active[1]
    return name == "AccumulateGrad" or sum(active) < rule_of(node).linearity


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
    q = sigmoid(logits)
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
