"""The products of two parameters' joint Hessian, H (v, 0) and H (0, v), beside one backward pass.

Two sweeps push tangents forward, one from each parameter; the other one's tangent is zero. Then one backward pass runs,
and beside it the tangents of both sweeps are pulled back to both parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import producers_first
from sgdph_fx.curvature.forward_over_reverse.backward_hooks import BackwardHooks
from sgdph_fx.curvature.forward_over_reverse.forward import forward_sweep
from sgdph_fx.curvature.forward_over_reverse.path import source
from sgdph_fx.curvature.forward_over_reverse.rule import GiveUp
from sgdph_fx.curvature.forward_over_reverse.sweep import Told
from sgdph_fx.curvature.pair_blocks import Columns, columns_by_double_backward

__all__ = ["backward_with_columns", "columns_only"]


def backward_with_columns(
    loss: Tensor,
    pair: Sequence[Tensor],
    v: Tensor,
    retain_graph: bool = False,
    on_give_up: Told | None = None,
) -> Columns:
    """``loss.backward()``, and both products beside it.

    Args:
        loss: One number with its graph, which depends on both parameters.
        pair: Two leaves of one shape, dtype and device that require gradients.
        v: Of their shape, dtype and device.
        retain_graph: Keep the graph of ``loss`` for another backward pass.
        on_give_up: Called with the reason, where torch's own double backward takes the products instead.

    Returns:
        H (v, 0) and H (0, v), each as its two parts, without a graph. Every ``.grad`` is what ``loss.backward()``
        leaves, to the bit.

    Raises:
        NoCurvatureError: if an operation between the parameters and the loss has no second derivative. No ``.grad``
            has been written then.

    Example:
        Of the loss p² q at p = 2, q = 3 the Hessian is [[2q, 2p], [2p, 0]]:

        >>> p, q = (torch.tensor([x], requires_grad=True) for x in (2.0, 3.0))
        >>> columns = backward_with_columns((p * p * q).sum(), [p, q], torch.ones(1))
        >>> [[part.item() for part in column] for column in columns]
        [[6.0, 4.0], [4.0, 0.0]]
    """

    def backward() -> None:
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    return _columns(loss, pair, v, backward, on_give_up)


def columns_only(
    loss: Tensor,
    pair: Sequence[Tensor],
    v: Tensor,
    on_give_up: Told | None = None,
    *,
    retain_graph: bool = False,
) -> Columns:
    """As :func:`backward_with_columns`, but no ``.grad`` is written."""

    def backward() -> None:
        torch.autograd.grad(loss, list(pair), retain_graph=retain_graph, allow_unused=True)

    return _columns(loss, pair, v, backward, on_give_up)


def _columns(
    loss: Tensor, pair: Sequence[Tensor], v: Tensor, backward: Callable[[], object], on_give_up: Told | None
) -> Columns:
    scale, shift = pair
    try:
        order = producers_first(loss)
        from_scale = forward_sweep(loss, scale, v, order, [shift])
        from_shift = forward_sweep(loss, shift, v, order, [scale])
    except GiveUp as reason:
        if on_give_up is not None:
            on_give_up(str(reason))
        columns = columns_by_double_backward(loss, pair)(v)
        backward()
        return columns
    with BackwardHooks(from_scale) as first, BackwardHooks(from_shift, beside=first) as second:
        backward()
    return _parts(first, scale, shift), _parts(second, scale, shift)


def _parts(hooks: BackwardHooks, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return hooks.column(source(scale), like=scale), hooks.column(source(shift), like=shift)
