"""How the Hessian diagonal that is due is found: beside the backward pass, after it, or of gradients with a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import Order
from sgdph_fx.curvature.gauss_newton import gauss_newton_entries
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.hessian.estimate import HessianEstimate
from sgdph_fx.optim.hessian.hidden_uses import Written, dropped_graph, hidden_use
from sgdph_fx.optim.hessian.isolated_forward import isolated_loss
from sgdph_fx.optim.hessian.loss_checks import check_loss
from sgdph_fx.optim.hessian.products import Found, Passes, of_gradients, of_hessian
from sgdph_fx.optim.hessian.request import HessianRequest

__all__ = ["from_gradient", "from_loss"]


def from_loss(
    loss: Tensor,
    due: HessianRequest | None,
    hessian_loss: Callable[[], Tensor] | None = None,
    *,
    retain_graph: bool = False,
    order: Order | None = None,
    on_give_up: Callable[[str], None] | None = None,
) -> HessianEstimate:
    """``loss.backward()``, and the due Hessian: beside it, or of ``hessian_loss`` after it.

    Args:
        loss: The loss.
        due: What the step refreshes.
        hessian_loss: Computes the loss that the Hessian is of, where that is another.
        retain_graph: Whether the graph of ``loss`` is kept.
        order: The operations of ``loss``, producers first, where they are known.
        on_give_up: Called with the reason where torch's double backward takes the product.

    Raises:
        NoCurvatureError: if an operation has no second derivative and ``due.required``; no gradient has been
            written, unless it is ``hessian_loss`` that fails, or a function that hides its use of the parameter.
    """
    passes = Passes.beside(loss, retain_graph, on_give_up, order)
    found = HessianEstimate() if due is None else _nothing(due)
    found = replace(found, losses=(loss.detach().clone(),))
    if due is None or due.probe is None or not any(p.requires_grad for p in due.parameters):
        passes.backward()
        return found
    if hessian_loss is not None:
        passes.backward()
        other = check_loss(isolated_loss(hessian_loss, loss.device))
        return _product_of(
            lambda leaves, due: _found(other, leaves, due, Passes.alone(on_give_up)), due, found
        )
    written = [Written(parameter) for parameter in due.parameters]
    found = _product_of(lambda leaves, due: _found(loss, leaves, due, passes), due, found)
    if found.missing is not None:
        _backward_after(found.missing, passes.backward)
    elif (hidden := _hidden(loss, due, found, written)) is not None:
        if due.required:
            raise hidden
        found = replace(found, missing=hidden)
    return found


def _nothing(due: HessianRequest) -> HessianEstimate:
    """An estimate of what is due, without numbers yet."""
    return HessianEstimate(due.parameters, by_gradient=due.probe is None, pairs=due.pairs)


_USED_UP = ("backward through the graph a second time", "backward an extra time")


def _backward_after(missing: NoCurvatureError, backward: Callable[[], None]) -> None:
    """The gradients, where the attempt at a product has failed; most fail before they use the graph up."""
    try:
        backward()
    except RuntimeError as error:
        if not any(mark in str(error) for mark in _USED_UP):
            raise
        raise missing from error


_Find = Callable[[list[Tensor], HessianRequest], Found]


def _product_of(find: _Find, due: HessianRequest, found: HessianEstimate) -> HessianEstimate:
    try:
        with due.leaves() as leaves:
            return replace(found, hessians=find(leaves, due))
    except NoCurvatureError as error:
        if due.required:
            raise
        return replace(found, missing=error)


def _hidden(
    loss: Tensor, due: HessianRequest, found: HessianEstimate, written: Sequence[Written]
) -> NoCurvatureError | None:
    """The error for a parameter whose gradient was written though nothing was found for it."""
    if due.module is not None:
        return None
    every = zip(due.names, found.diagonals(), written, strict=True)
    hidden = [name for name, (_, hessian), wrote in every if hessian is None and wrote]
    return hidden_use(loss, hidden[0]) if hidden else None


def _found(loss: Tensor, leaves: list[Tensor], due: HessianRequest, passes: Passes) -> Found:
    """Products beside a backward pass, or what takes passes of its own, and then that pass."""
    if not due.is_gauss_newton:
        return _descended(of_hessian(loss, leaves, due, passes), due)
    found = _gauss_newton(loss, leaves, due)
    passes.backward()
    return found


def _descended(found: Found, due: HessianRequest) -> Found:
    """Of the Hessian of the loss, that of -loss for whoever climbs."""
    if not any(due.maximized):
        return found
    rows = zip(found, due.turned, strict=True)
    return tuple(-h if h is not None and is_turned else h for h, is_turned in rows)


def _gauss_newton(loss: Tensor, leaves: list[Tensor], due: HessianRequest) -> Found:
    """That of the loss, and that of -loss for whoever climbs: what is convex in one is not in the other."""
    found: list[Tensor | None] = [None] * (len(leaves) + len(due.pairs))
    for climbs in sorted(set(due.maximized)):
        with torch.enable_grad():
            descended = -loss if climbs else loss
        places = [i for i, leaf in enumerate(leaves) if leaf.requires_grad and due.maximized[i] is climbs]
        if not places:
            continue
        row_of = {id(due.parameters[place]): row for row, place in enumerate(places)}
        coupled = [i for i, pair in enumerate(due.pairs) if all(id(p) in row_of for p in pair.both)]
        pairs = [due.pairs[i].both for i in coupled]
        rows = [(row_of[id(scale)], row_of[id(shift)]) for scale, shift in pairs]
        key = due.sign_key if due.draws_signs else None
        entries = gauss_newton_entries(descended, [leaves[place] for place in places], rows, key)
        for place, entry in zip((*places, *(len(leaves) + i for i in coupled)), chain(*entries), strict=True):
            found[place] = entry
    return tuple(found)


def from_gradient(due: HessianRequest, gradients: Any, unseen: Sequence[Tensor] = ()) -> HessianEstimate:
    """Differentiate the due ``parameter.grad``, which ``loss.backward(create_graph=True)`` left with its graph.

    Args:
        due: What is asked for.
        gradients: All gradients that the optimizer holds.
        unseen: Those of the due parameters whose product has not been checked before.

    Raises:
        NoCurvatureError: if none of them carries a graph. Or if one of the due may have lost its graph, an operation
            has no second derivative, or one that torch gets wrong, and ``due.required``.
    """
    found = _nothing(due)
    present = [p.grad for p in due.parameters if p.grad is not None and p.requires_grad]
    if not present or due.probe is None:
        return found
    if due.is_gauss_newton:
        raise NoCurvatureError(
            f"The Gauss-Newton matrix of parameter {due.told} is due at this step, and only the loss knows it; "
            "nothing has been changed. Call `optimizer.backward(loss)` in place of `loss.backward()`."
        )
    # A constant gradient has no graph of its own even then: its Hessian is zero, and not missing.
    if not any(g.requires_grad for g in gradients):
        raise NoCurvatureError(
            f"The Hessian of parameter {due.told} is due at this step, but the gradients carry no graph to "
            "differentiate again, so nothing has been changed. Call `optimizer.backward(loss)` in place of "
            "`loss.backward()`. `loss.backward(create_graph=True)` leaves graphs as well, unless the loss is linear "
            "in all parameters: its gradients are constants, and only `optimizer.backward(loss)` can tell."
        )

    def find(leaves: list[Tensor], due: HessianRequest) -> Found:
        _require_graphs(due, gradients, unseen)
        return _descended(of_gradients(leaves, due, unseen), due)

    return _product_of(find, due, found)


def _require_graphs(due: HessianRequest, gradients: Iterable[Tensor], unseen: Sequence[Tensor]) -> None:
    """Refuse gradients that have lost their graph; where there is one, it is read for parameters not seen before."""
    for name, p in zip(due.names, due.parameters, strict=True):
        if (
            p.requires_grad
            and p.grad is not None
            and (not p.grad.requires_grad or any(p is q for q in unseen))
        ):
            dropped = dropped_graph(p, gradients, name)
            if dropped is not None:
                raise dropped
