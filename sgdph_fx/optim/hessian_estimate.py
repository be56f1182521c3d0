"""The Hessian diagonal that is due, from the backward pass that finds it to the step that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from operator import is_
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, product_only
from sgdph_fx.curvature.gauss_newton import gauss_newton_diagonal
from sgdph_fx.curvature.hvp import block_product, product_by_double_backward
from sgdph_fx.curvature.probes import Probe
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.isolated_forward import isolated_loss
from sgdph_fx.optim.loss_checks import check_loss
from sgdph_fx.optim.nonfinite import Flag
from sgdph_fx.optim.request import HessianRequest

__all__ = ["HessianEstimate", "from_gradient", "from_loss"]


@dataclass(frozen=True, slots=True, eq=False)
class HessianEstimate:
    """What the losses of one step have brought.

    Args:
        parameters: The parameters that were due; none where the step refreshes no average.
        hessians: For each the diagonal of its block by the probe, of its shape, dtype and device, without graph; None
            where the loss does not use the parameter, or no product was taken. Empty for None throughout.
        finite: Whether each loss was finite.
        factors: What the losses were multiplied by last, see :func:`sgdph_fx.optim.scaling.multipliers`.
        by_gradient: Whether \\|g\\| is to stand in for the Hessian at the step.
        missing: Why there is no product, if an operation has no second derivative.
    """

    parameters: tuple[Tensor, ...] = ()
    hessians: tuple[Tensor | None, ...] = ()
    finite: tuple[Flag, ...] = ()
    factors: tuple[Tensor, ...] = ()
    by_gradient: bool = False
    missing: NoCurvatureError | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all losses were; the host waits for their forward passes, and no longer."""
        return all(self.finite)

    def allows(self, gradients_finite: Tensor) -> Tensor:
        """Whether losses and gradients are finite, as one bool on the device."""
        for flag in self.finite:
            if flag.on_device is not None:  # else the host has read it, and there would be no step
                gradients_finite = gradients_finite & flag.on_device
        return gradients_finite

    def pairs(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each parameter with its diagonal."""
        return zip(self.parameters, self.hessians or repeat(None), strict=False)

    def is_of(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these very parameters were due."""
        return len(self.parameters) == len(parameters) and all(map(is_, self.parameters, parameters))

    def accumulate(self, other: HessianEstimate | None) -> HessianEstimate:
        """The sum over two micro-batches; the Hessian is linear in their losses."""
        if other is None:
            return self
        same = other.is_of(self.parameters)
        hessians = self.hessians
        if same:
            pairs = zip(self.pairs(), other.pairs(), strict=True)
            hessians = tuple(_sum(mine, theirs) for (_, mine), (_, theirs) in pairs)
        return HessianEstimate(
            self.parameters,
            hessians,
            self.finite + other.finite,
            self.factors + other.factors,
            self.by_gradient or (same and other.by_gradient),
            self.missing or (other.missing if same else None),
        )

    def unscale(self, scale: Tensor | None) -> HessianEstimate:
        """That of a loss that was multiplied by ``scale``, one number."""
        if scale is None:
            return self
        return self.changed(lambda h: (h / scale.to(h.device, non_blocking=True)).to(h.dtype))

    def changed(self, change: Callable[[Tensor], Tensor]) -> HessianEstimate:
        """With every diagonal that there is changed."""
        return replace(self, hessians=tuple(None if h is None else change(h) for h in self.hessians))


def _sum(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return mine + theirs


def from_loss(
    loss: Tensor,
    due: HessianRequest | None,
    hessian_loss: Callable[[], Tensor] | None = None,
    *,
    retain_graph: bool = False,
    to_host: bool = True,
) -> HessianEstimate:
    """``loss.backward()``, and the due Hessian: beside it, or of ``hessian_loss`` after it.

    Args:
        loss: The loss.
        due: What the step refreshes.
        hessian_loss: Computes the loss that the Hessian is of, where that is another.
        retain_graph: Whether the graph of ``loss`` is kept.
        to_host: Whether the host is going to ask whether the loss is finite.

    Raises:
        NoCurvatureError: if an operation has no second derivative and ``due.required``; no gradient has been
            written, unless it is ``hessian_loss`` that fails.
    """

    def backward() -> None:
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    finite = (Flag(torch.isfinite(loss.detach()).all(), to_host=to_host),)
    found = HessianEstimate(() if due is None else due.parameters, finite=finite)
    if due is None or due.probe is None or not any(p.requires_grad for p in due.parameters):
        backward()
        return replace(found, by_gradient=due is not None and due.probe is None)
    if hessian_loss is not None:
        backward()
        other = check_loss(isolated_loss(hessian_loss, loss.device))
        return _product_of(lambda leaves, due: _without_gradients(other, leaves, due), due, found)
    found = _product_of(lambda leaves, due: _beside_backward(loss, leaves, due, retain_graph), due, found)
    if found.missing is not None:
        _backward_after(found.missing, backward)
    return found


def _backward_after(missing: NoCurvatureError, backward: Callable[[], None]) -> None:
    """The gradients, where the attempt at a product has failed; most fail before they use the graph up."""
    try:
        backward()
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise missing from error


Found = tuple[Tensor | None, ...]
Finding = Callable[[list[Tensor], HessianRequest], Found]


def _product_of(find: Finding, due: HessianRequest, found: HessianEstimate) -> HessianEstimate:
    try:
        with due.leaves() as leaves:
            return replace(found, hessians=find(leaves, due))
    except NoCurvatureError as error:
        if due.required:
            raise
        return replace(found, missing=error)


def _beside_backward(loss: Tensor, leaves: list[Tensor], due: HessianRequest, retain_graph: bool) -> Found:
    if _probe(due).single and not due.is_gauss_newton:
        product = partial(backward_with_product, retain_graph=retain_graph)
        return (_by_one_product(product, loss, leaves[0], due),)
    found = _gauss_newton(loss, leaves, due) if due.is_gauss_newton else (_by_products(loss, leaves[0], due),)
    loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
    return found


def _without_gradients(loss: Tensor, leaves: list[Tensor], due: HessianRequest) -> Found:
    if due.is_gauss_newton:
        return _gauss_newton(loss, leaves, due)
    if _probe(due).single:
        return (_by_one_product(product_only, loss, leaves[0], due),)
    return (_by_products(loss, leaves[0], due),)


def _gauss_newton(loss: Tensor, leaves: list[Tensor], due: HessianRequest) -> Found:
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(gauss_newton_diagonal(loss, asked, due.sign_key if due.draws_signs else None))
    return tuple(next(found) if leaf.requires_grad else None for leaf in leaves)


def _by_one_product(
    product: Callable[[Tensor, Tensor, Tensor], Tensor | None],
    loss: Tensor,
    leaf: Tensor,
    due: HessianRequest,
) -> Tensor | None:
    v = next(_probe(due).vectors(leaf, due.generator))
    column = product(loss, leaf, v)
    return None if column is None else _probe(due).read(v, column)


def _by_products(loss: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor | None:
    with product_by_double_backward(loss, leaf) as product:
        return None if product is None else _probe(due).estimate(product, leaf, due.generator)


def _estimate(gradient: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor:
    return _probe(due).estimate(block_product(gradient, leaf), leaf, due.generator)


def _probe(due: HessianRequest) -> Probe:
    assert due.probe is not None, "a request without a probe takes no product"
    return due.probe


def from_gradient(due: HessianRequest, gradients: Any) -> HessianEstimate:
    """Differentiate the due ``parameter.grad``, which ``loss.backward(create_graph=True)`` left with its graph.

    Args:
        due: What is asked for.
        gradients: All gradients that the optimizer holds.

    Raises:
        NoCurvatureError: if none of them carries a graph, or an operation has no second derivative and
            ``due.required``.
    """
    found = HessianEstimate(due.parameters, by_gradient=due.probe is None)
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
            f"The Hessian of parameter {due.told} is due at this step, but the gradients "
            "carry no graph to differentiate again, so nothing has been changed. Either call "
            "`optimizer.backward(loss)` in place of `loss.backward()`, or `loss.backward(create_graph=True)`."
        )
    return _product_of(lambda leaves, due: (_estimate(present[0], leaves[0], due),), due, found)
