"""Where a loss ends: the convex functions in which it is linear, found in autograd's graph.

A Gauss-Newton matrix has to know where the network ends and the convex part of the loss begins. Autograd's graph shows
it: walk from the loss through linear operations until you meet a function of the table
:data:`sgdph_fx.curvature.convex_functions.ROOTS`. What it reads is an output z of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.convex_functions import KINKED, ROOTS, Root, applies
from sgdph_fx.curvature.forward_over_reverse.operations.losses import OF_DIFFERENCES
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import BILINEAR
from sgdph_fx.errors import NoCurvatureError

__all__ = ["ConvexEnd", "convex_ends"]

# Of these operations no more than what stands here is a known function.
_ONLY = {"MulBackward0": " (z * z)", "PowBackward0": " (z ** 2)"}


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
        """Where the gradients by what makes up z arrive, and the sign of each in z, which may be a difference."""
        signs = (1, -1) if type(self.node).__name__ in OF_DIFFERENCES else (1,)
        edges = zip(self.node.next_functions, signs, strict=False)
        return tuple((GradientEdge(child, number), s) for (child, number), s in edges if child is not None)


def convex_ends(loss: Tensor) -> list[ConvexEnd]:
    """Walk from the loss through linear operations to the convex functions in which it is linear.

    The loss may use the outputs that these functions read linearly as well, as logsumexp(z) - z[label] does. So the
    walk may end at what makes an output, too.

    Raises:
        NoCurvatureError: if the walk meets any other operation that is not linear.
    """
    ends: list[ConvexEnd] = []

    def stop(node: Node) -> bool:
        is_end = _is_end(node)
        if is_end:
            ends.append(ConvexEnd(node, ROOTS[type(node).__name__]))
        return is_end

    others = _walk([loss.grad_fn], stop)
    if others:
        makers = {edge.node for end in ends for edge, _ in end.inputs}
        makers.update(_walk(makers, _never))
        refused = {node: kink for node, kink in others.items() if node not in makers}
        if refused:
            raise _unknown(refused)
    return ends


def _walk(starts: Iterable[Node | None], stop: Callable[[Node], bool]) -> dict[Node, str]:
    """Go down through linear operations, except where told to stop, and find the others that are met.

    Returns:
        For each the name of the last function with a kink on the way to it; empty if there is none.
    """
    seen: set[Node] = set()
    others: dict[Node, str] = {}
    stack = [(node, "") for node in starts]
    while stack:
        node, kink = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if stop(node):
            continue
        if _is_linear(node):
            name = type(node).__name__
            stack.extend((child, name if name in KINKED else kink) for child, _ in node.next_functions)
        else:
            others[node] = kink
    return others


def _never(node: Node) -> bool:
    return False


def _is_end(node: Node) -> bool:
    """Whether it is a convex function of the network; targets that depend on the network are known of differences."""
    name, children = type(node).__name__, node.next_functions
    if not applies(node):
        return False
    of_network = 2 if name in OF_DIFFERENCES or name == "MulBackward0" else 1
    return all(child is None for child, _ in children[of_network:])


def _unknown(refused: Mapping[Node, str]) -> NoCurvatureError:
    """The error for operations that are not linear, each with the kink above it.

    One of them may read what another one made. The first is a function of the loss then, the second a layer.
    """
    made = _walk((child for node in refused for child, _ in node.next_functions), _never)
    node = next((node for node in refused if node not in made), next(iter(refused)))
    name, kink = type(node).__name__, refused[node]
    if kink:
        return NoCurvatureError(
            f"The Gauss-Newton matrix of this loss is not known: it reads {name} through {kink}, which is straight but "
            "for kinks, as L1 and hinge losses are, so nothing says how the loss bends there. Compute that part by "
            "huber_loss, smooth_l1_loss or softplus, or use the Hessian."
        )
    known, layer = ", ".join(known + _ONLY.get(known, "") for known in sorted(ROOTS)), ""
    if rule_of(node).linearity == BILINEAR:
        layer = (
            " If it is a layer, the loss is linear in its outputs, as a critic's mean is, and does not bend."
        )
    return NoCurvatureError(
        f"The Gauss-Newton matrix of this loss is not known: it passes {name}, which is neither linear nor a convex "
        f"function of the list {known}. Compute the loss by cross_entropy, mse_loss or "
        f"binary_cross_entropy_with_logits, or use the Hessian.{layer}"
    )


def _is_linear(node: Node) -> bool:
    name, active = type(node).__name__, [child is not None for child, _ in node.next_functions]
    if name == "DivBackward0":
        return not active[1]
    return name == "AccumulateGrad" or sum(active) < rule_of(node).linearity
