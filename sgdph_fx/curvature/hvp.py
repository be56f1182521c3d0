"""Hessian-vector products of one parameter's own block, by differentiating its gradient once more.

H is ∂²L/∂p² for one parameter p: the products never leave the block, so nothing below p is visited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import leaves, nodes
from sgdph_fx.curvature.backward_checks import WRITTEN_OVER
from sgdph_fx.curvature.custom_functions import leaves_grads_alone, watched
from sgdph_fx.curvature.data_parallel import extra_pass, sinks
from sgdph_fx.curvature.norm_gradients import norms_followed
from sgdph_fx.curvature.probes import Product
from sgdph_fx.curvature.reentrant import OpenCheckpoints, reentrant_checkpoints
from sgdph_fx.curvature.wrong_derivatives import require_right_derivatives
from sgdph_fx.errors import NoCurvatureError, first_line

__all__ = [
    "MISUSED",
    "block_product",
    "differentiable_gradient",
    "missing_derivatives_explained",
    "no_second_derivative",
    "product_by_double_backward",
]

MISUSED = ("backward through the graph a second time", WRITTEN_OVER)
"""How torch words what a plain backward pass fails with as well."""

# How torch words, in several places, that an operation has a first derivative and no second one.
_ONCE_ONLY = (
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
        parameter, or the parameter requires no gradient. ``parameter.grad`` is not touched.

    Raises:
        NoCurvatureError: if an operation on the way refuses to be differentiated with a graph, drops it, or has a next
            derivative that torch gets wrong.

    Example:
        >>> p = torch.tensor([2.0], requires_grad=True)
        >>> differentiable_gradient((p**3).sum(), p).tolist()
        [12.0]
    """
    if not parameter.requires_grad:
        return None
    among = list(nodes(loss))
    require_right_derivatives(among, parameter)
    with _watched_pass(loss, among):
        (gradient,) = torch.autograd.grad(loss, parameter, _seed(loss), create_graph=True, allow_unused=True)
    return gradient


@contextmanager
def _watched_pass(loss: Tensor, among: Sequence[Node]) -> Iterator[None]:
    """An extra backward pass whose gradients carry a graph: it leaves no trace, or is refused."""
    alone = leaves_grads_alone([*leaves(loss)], among)
    with (
        missing_derivatives_explained(),
        watched(among),
        extra_pass(sinks(among)),
        alone,
        norms_followed(among),
    ):
        yield


def _seed(loss: Tensor) -> Tensor:
    """∂L/∂L = 1 with a graph, so that every gradient carries one: a function that drops it gives itself away."""
    return torch.ones_like(loss, requires_grad=True)


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

    Example:
        >>> p = torch.tensor([2.0], requires_grad=True)
        >>> product = block_product(differentiable_gradient((p**3).sum(), p), p)
        >>> product(torch.ones(1)).tolist()
        [12.0]
    """
    among = list(nodes(gradient))
    _require_no_dead_end(among)
    models = sinks(among)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(parameter, requires_grad=False)
        with missing_derivatives_explained(), extra_pass(models):
            (column,) = torch.autograd.grad(
                gradient, parameter, grad_outputs=v, retain_graph=True, allow_unused=True
            )
        return torch.zeros_like(parameter, requires_grad=False) if column is None else column

    return product


def _require_no_dead_end(among: Sequence[Node]) -> None:
    """Refuse a graph with an operation that only raises an error: autograd walks around it when asked for one input.

    The product would come out as the part that goes by other ways.
    """
    for node in among:
        if type(node).__name__ == "Error":
            try:
                node(*(torch.zeros(()) for _ in node._input_metadata))  # type: ignore[operator]
            except RuntimeError as error:
                raise no_second_derivative(first_line(error)) from error


@contextmanager
def product_by_double_backward(loss: Tensor, parameter: Tensor) -> Iterator[Product | None]:
    """v ↦ Hv by torch's own double backward, for whatever it can differentiate twice, reentrant checkpoints included.

    Args:
        loss: One number with its graph, which is kept.
        parameter: A leaf p of any shape.

    Yields:
        The function, which may be called many times inside; None where the loss does not depend on p.

    Raises:
        NoCurvatureError: if an operation on the way has no second derivative. No ``.grad`` has been written.

    Example:
        >>> p = torch.tensor([2.0], requires_grad=True)
        >>> with product_by_double_backward((p**3).sum(), p) as product:
        ...     product(torch.ones(1)).tolist()
        [12.0]
    """
    checkpoints = reentrant_checkpoints(loss)
    if not checkpoints or not parameter.requires_grad:
        gradient = differentiable_gradient(loss, parameter)
        yield None if gradient is None else block_product(gradient, parameter)
        return
    among = list(nodes(loss))
    require_right_derivatives(among, parameter)
    with OpenCheckpoints(checkpoints, parameter) as opened:
        with _watched_pass(loss, among):
            gradient = opened.gradient(loss, _seed(loss), create_graph=True)

        def product(v: Tensor) -> Tensor:
            assert gradient is not None
            with missing_derivatives_explained():
                column = opened.gradient(gradient, v, create_graph=False)
            return torch.zeros_like(parameter, requires_grad=False) if column is None else column.detach()

        yield None if gradient is None else product


@contextmanager
def missing_derivatives_explained() -> Iterator[None]:
    """Turn what torch says where it cannot differentiate a gradient into an error that says what to do.

    Errors that a plain backward pass has as well pass through: memory that is used up, and graphs that are.

    Raises:
        NoCurvatureError: in place of any other of torch's.
    """
    try:
        yield
    except (NoCurvatureError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        text = str(error)
        if any(mark in text for mark in MISUSED):
            raise
        said = first_line(error)
        if any(mark in text for mark in _ONCE_ONLY):
            raise no_second_derivative(said) from error
        raise NoCurvatureError(
            "Torch cannot differentiate the gradient of this loss once more by the parameter whose Hessian is due. It "
            f"says: {said} Put the parameters below that operation into a group with order=1, or write the operation "
            "in another way."
        ) from error


def no_second_derivative(found: str) -> NoCurvatureError:
    """The error for an operation that has none, ``found`` being what gave it away."""
    return NoCurvatureError(
        "An operation between the loss and the parameter whose Hessian is due has no second derivative "
        f"({found}). Run the forward pass with an implementation that has one: the module uncompiled "
        "(`sgdph_fx.compile_between_refreshes` sees to it), attention under "
        "`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, plain batch norm instead of SyncBatchNorm; "
        "or put the parameters below that operation into a group with order=1."
    )
