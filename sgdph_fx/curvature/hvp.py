"""Hessian-vector products of one parameter's own block, by differentiating its gradient once more.

H is ∂²L/∂p² for one parameter p: the products never leave the block, so nothing below p is visited.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.curvature.probes import Product
from sgdph_fx.errors import NoCurvatureError

__all__ = [
    "block_product",
    "differentiable_gradient",
    "missing_derivatives_explained",
    "no_second_derivative",
]

# How torch words, in several places, that an operation has a first derivative and no second one.
ONCE_ONLY = (
    "is not implemented",
    "once_differentiable",
    "differentiate twice",
    "double backward",
    "double_backward",
)


def differentiable_gradient(loss: Tensor, parameter: Tensor) -> Tensor | None:
    """∂L/∂p with the graph that a Hessian-vector product needs; the graph of ``loss`` is kept as well.

    Args:
        loss: One number, with its graph.
        parameter: A leaf of any shape.

    Returns:
        The gradient, of the parameter's shape, dtype and device; None where the loss does not depend on the
        parameter, or the parameter requires no gradient. ``parameter.grad`` is not touched. Where the loss is
        linear in everything that the gradient could depend on, the gradient is a constant without a graph.

    Raises:
        NoCurvatureError: if an operation on the way refuses to be differentiated with a graph.
    """
    if not parameter.requires_grad:
        return None
    with missing_derivatives_explained():
        (gradient,) = torch.autograd.grad(loss, parameter, create_graph=True, allow_unused=True)
    return gradient


def block_product(gradient: Tensor, parameter: Tensor) -> Product:
    """The function v ↦ Hv of one parameter's block.

    Args:
        gradient: ∂L/∂p as :func:`differentiable_gradient` or ``loss.backward(create_graph=True)`` leaves it.
            One that does not depend on the parameter (a loss linear in it) is fine: the products are zeros.
        parameter: The leaf p.

    Returns:
        A function whose results carry no graph; it may be called many times, as the graph is kept.

    Raises:
        NoCurvatureError: at once or in a call, if an operation on the way has no second derivative.
    """
    # autograd walks around such a function when asked for one input, and would return a part of the product.
    if any(type(node).__name__ == "Error" for node in nodes(gradient)):
        raise no_second_derivative("a custom function is marked with @once_differentiable")

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(parameter, requires_grad=False)
        with missing_derivatives_explained():
            (column,) = torch.autograd.grad(
                gradient, parameter, grad_outputs=v, retain_graph=True, allow_unused=True
            )
        return torch.zeros_like(parameter, requires_grad=False) if column is None else column

    return product


@contextmanager
def missing_derivatives_explained() -> Iterator[None]:
    """BackwardNode torch's complaints that an operation has no second derivative into one that says what to do.

    Raises:
        NoCurvatureError: in place of any of them.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(mark in text for mark in ONCE_ONLY):
            raise
        raise no_second_derivative(text.splitlines()[0]) from error


def no_second_derivative(found: str) -> NoCurvatureError:
    """The error for an operation that has none, ``found`` being what gave it away."""
    return NoCurvatureError(
        "An operation between the loss and the parameter whose Hessian is due has no second derivative "
        f"({found}). Run the forward pass with an implementation that has one: the module uncompiled "
        "(`sgdph_fx.compile_between_refreshes` sees to it), attention under "
        "`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, plain batch norm instead of SyncBatchNorm; "
        "or put the parameters below that operation into a group with order=1."
    )
