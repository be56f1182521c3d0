"""Operations that torch differentiates wrongly, without an error.

The backward of each keeps numbers of the forward pass, such as a norm, that autograd takes for constants. The
next derivative of that backward is wrong then. Torch has no error for these, so this table has them;
:mod:`.norm_gradients` mends those of layer and batch norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import nodes_below
from sgdph_fx.curvature.custom_functions import CHECKPOINT, full_name
from sgdph_fx.errors import NoCurvatureError

__all__ = ["require_right_derivatives"]


@dataclass(frozen=True, slots=True)
class _WrongDerivative:
    """A node whose backward torch cannot be trusted to differentiate.

    Args:
        operation: What the node does, for the message.
        by: The input by which the derivative is wrong; None for any.
        instead: What computes the same and has the derivative.
    """

    operation: str
    by: int | None
    instead: str


_WRONG: Mapping[str, _WrongDerivative] = {
    "WeightNormInterfaceBackward0": _WrongDerivative(
        "a weight norm whose direction is computed", 0, "g * v / torch.norm_except_dim(v, 2, dim)"
    ),
    "torch._library.autograd.GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_default": (
        _WrongDerivative("linear_cross_entropy in chunks", None, "linear and cross_entropy")
    ),
}
"""By node in the graph of a loss; Python functions by module and class."""


def require_right_derivatives(among: Iterable[Node], parameter: Tensor) -> None:
    """Refuse a graph whose second derivative by ``parameter`` torch gets wrong.

    Args:
        among: The nodes of the graph.
        parameter: A leaf.

    Raises:
        NoCurvatureError: naming the first such operation, and what to write in its place.
    """
    for node in among:
        wrong = _WRONG.get(full_name(node) or type(node).__name__)
        if wrong is not None and _depends(node, wrong.by, parameter):
            raise NoCurvatureError(
                f"The Hessian of this loss needs a derivative of {wrong.operation} that torch gets wrong without an "
                "error: it takes numbers that depend on the input for constants. Write the operation in another way "
                f"({wrong.instead}), or put the parameters below it into a group with order=1."
            )


def _depends(node: Node, by: int | None, parameter: Tensor) -> bool:
    edges = node.next_functions if by is None else node.next_functions[by : by + 1]
    return any(_hides(each) or _is(each, parameter) for child, _ in edges for each in nodes_below(child))


def _is(node: Node, parameter: Tensor) -> bool:
    return getattr(node, "variable", None) is parameter


def _hides(node: Node) -> bool:
    """Whether the parameter may be inside, where the graph does not show it."""
    return full_name(node) == CHECKPOINT
