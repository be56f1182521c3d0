"""loss.backward() and a Hessian-vector product, in one forward sweep of tangents and one backward pass.

Forward over reverse: the tangents ẋ of all that depends on the due parameter are pushed forward from it to the loss,
operation by operation, along the graph that the forward pass left. Then ``loss.backward()`` runs as it always does.
Beside each of those operations, as soon as autograd is done with it, the tangent ġ of its gradient is pulled back. What
arrives at the parameter is Hv. Nothing below the parameter is differentiated twice, no gradient of a weight is taken
that Hv does not need, and no graph of a gradient is built.

The sweep may give up at any operation, before any gradient is written. Then torch's own double backward takes the whole
product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import Order
from sgdph_fx.curvature.forward_over_reverse.backward_hooks import BackwardHooks
from sgdph_fx.curvature.forward_over_reverse.forward import forward_sweep
from sgdph_fx.curvature.forward_over_reverse.path import source
from sgdph_fx.curvature.forward_over_reverse.rule import GiveUp
from sgdph_fx.curvature.hvp import product_by_double_backward

__all__ = ["backward_with_product", "product_only"]

Told = Callable[[str], None]
"""Called with the reason where the sweep gives up."""


def backward_with_product(
    loss: Tensor,
    parameter: Tensor,
    v: Tensor,
    retain_graph: bool = False,
    on_give_up: Told | None = None,
    order: Order | None = None,
) -> Tensor | None:
    """``loss.backward()``, and Hv of one parameter's block beside it.

    Args:
        loss: One number with its graph.
        parameter: A leaf p of any shape that requires a gradient.
        v: Of the shape, dtype and device of p.
        retain_graph: Keep the graph of ``loss`` for another backward pass.
        on_give_up: Called with the reason, where torch's own double backward takes the product instead.
        order: What :func:`sgdph_fx.curvature.autograd_graph.producers_first` finds of the loss, if you have it already.

    Returns:
        Hv, without a graph, of the shape, dtype and device of p; None where the loss does not depend on p. Every
        ``.grad`` is what ``loss.backward()`` leaves, to the bit. Each hook runs once, unless the sweep gives up:
        torch's double backward runs the hooks on its way as well.

    Raises:
        NoCurvatureError: if an operation between p and the loss has no second derivative. No ``.grad`` has
            been written then.

    Example:
        Of the loss p³, H = 6 p = 12:

        >>> p = torch.tensor([2.0], requires_grad=True)
        >>> backward_with_product((p**3).sum(), p, torch.ones(1)).tolist()
        [12.0]
        >>> p.grad.tolist()
        [12.0]
    """

    def backward() -> None:
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    return _product(loss, parameter, v, backward, on_give_up, order)


def product_only(
    loss: Tensor,
    parameter: Tensor,
    v: Tensor,
    on_give_up: Told | None = None,
    *,
    retain_graph: bool = False,
) -> Tensor | None:
    """As :func:`backward_with_product`, but no ``.grad`` is written, and no gradient taken but what Hv needs.

    Example:
        >>> p = torch.tensor([2.0], requires_grad=True)
        >>> product_only((p**3).sum(), p, torch.ones(1)).tolist()
        [12.0]
    """

    def backward() -> None:
        torch.autograd.grad(loss, parameter, retain_graph=retain_graph, allow_unused=True)

    return _product(loss, parameter, v, backward, on_give_up)


def _product(
    loss: Tensor,
    parameter: Tensor,
    v: Tensor,
    backward: Callable[[], object],
    on_give_up: Told | None,
    order: Order | None = None,
) -> Tensor | None:
    try:
        forward_nodes = forward_sweep(loss, parameter, v, order)
    except GiveUp as reason:
        if on_give_up is not None:
            on_give_up(str(reason))
        with product_by_double_backward(loss, parameter) as product:
            column = None if product is None else product(v)
        # What the parameter is inside of may hide it from autograd until the pass that writes gradients.
        backward()
        return column
    is_used = bool(forward_nodes) or loss is parameter
    with BackwardHooks(forward_nodes) as hooks:
        # The hooks alone hold the tangents now, and let go of each as soon as it has served.
        del forward_nodes
        backward()
    if not is_used:
        return None
    return hooks.column(source(parameter), like=parameter)
