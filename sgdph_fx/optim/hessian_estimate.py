"""The Hessian diagonal that is due, from the backward pass that finds it to the step that uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, product_only
from sgdph_fx.curvature.hvp import block_product, differentiable_gradient
from sgdph_fx.curvature.probes import PROBES, Probe, generator_at
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.isolated_forward import isolated_loss
from sgdph_fx.optim.nonfinite import Flag
from sgdph_fx.optim.shards import whole
from sgdph_fx.optim.validation import check_loss, name_of

__all__ = ["HessianEstimate", "HessianRequest", "from_gradient", "from_loss", "release_graphs"]


@dataclass(frozen=True, slots=True, eq=False)
class HessianEstimate:
    """What the losses of one step have brought.

    Args:
        parameter: The parameter that was due; None where the step needs no product.
        hessian: diag(H) of its block by the probe, of its shape, dtype and device, without graph; None where
            the loss does not use the parameter.
        finite: Whether each loss was finite.
    """

    parameter: Tensor | None
    hessian: Tensor | None
    finite: tuple[Flag, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether all losses were; the host waits for their forward passes, and no longer."""
        return all(self.finite)

    def accumulate(self, other: HessianEstimate | None) -> HessianEstimate:
        """The sum over two micro-batches, to whose losses it is linear."""
        if other is None:
            return self
        hessian = self.hessian
        if other.parameter is self.parameter and other.hessian is not None:
            hessian = other.hessian if hessian is None else hessian + other.hessian
        return HessianEstimate(self.parameter, hessian, self.finite + other.finite)

    def unscale(self, scale: Tensor | None) -> HessianEstimate:
        """That of a loss that was multiplied by ``scale``, one number."""
        if scale is None or self.hessian is None:
            return self
        hessian = self.hessian / scale.to(self.hessian.device, non_blocking=True)
        return HessianEstimate(self.parameter, hessian.to(self.hessian.dtype), self.finite)


@dataclass(frozen=True, slots=True)
class HessianRequest:
    """The parameter whose Hessian a step refreshes, its name, and how it is probed there."""

    parameter: Tensor
    name: str
    probe: Probe
    generator: torch.Generator
    module: nn.Module | None

    @classmethod
    def for_step(
        cls, parameter: Tensor, groups: Sequence[Mapping[str, Any]], t: int, module: nn.Module | None = None
    ) -> HessianRequest:
        """As the group of the parameter says, at step t; ``module`` is what knows a sharded one whole."""
        group = next(g for g in groups if any(p is parameter for p in g["params"]))
        name = name_of(parameter, groups)
        return cls(parameter, name, PROBES[group["probe"]], generator_at(group["seed"], t), module)

    def leaf(self) -> AbstractContextManager[Tensor]:
        """The parameter as a loss was just computed with it; within, its graph may be differentiated."""
        return whole(self.parameter, self.name, self.module)


def from_loss(
    loss: Tensor, due: HessianRequest | None, hessian_loss: Callable[[], Tensor] | None = None
) -> HessianEstimate:
    """``loss.backward()``, and the due Hessian: beside it, or of ``hessian_loss`` after it."""
    finite = (Flag(torch.isfinite(loss.detach()).all()),)
    if due is None or not due.parameter.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
        return HessianEstimate(None if due is None else due.parameter, None, finite)
    if hessian_loss is None:
        with due.leaf() as leaf:
            return HessianEstimate(due.parameter, _beside_backward(loss, leaf, due), finite)
    loss.backward()  # type: ignore[no-untyped-call]
    other = check_loss(isolated_loss(hessian_loss, loss.device))
    with due.leaf() as leaf:
        return HessianEstimate(due.parameter, _without_gradients(other, leaf, due), finite)


def _beside_backward(loss: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor | None:
    if due.probe.single:
        return _by_one_product(backward_with_product, loss, leaf, due)
    found = _by_products(loss, leaf, due)
    loss.backward()  # type: ignore[no-untyped-call]
    return found


def _without_gradients(loss: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor | None:
    return (
        _by_one_product(product_only, loss, leaf, due) if due.probe.single else _by_products(loss, leaf, due)
    )


def _by_one_product(
    product: Callable[[Tensor, Tensor, Tensor], Tensor | None],
    loss: Tensor,
    leaf: Tensor,
    due: HessianRequest,
) -> Tensor | None:
    v = next(due.probe.vectors(leaf, due.generator))
    column = product(loss, leaf, v)
    return None if column is None else due.probe.read(v, column)


def _by_products(loss: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor | None:
    gradient = differentiable_gradient(loss, leaf)
    return None if gradient is None else _estimate(gradient, leaf, due)


def _estimate(gradient: Tensor, leaf: Tensor, due: HessianRequest) -> Tensor:
    return due.probe.estimate(block_product(gradient, leaf), leaf, due.generator)


def from_gradient(due: HessianRequest, groups: Sequence[Mapping[str, Any]]) -> HessianEstimate:
    """Differentiate the due ``parameter.grad``, which ``loss.backward(create_graph=True)`` left with its graph.

    The loss itself is out of sight: it counts as finite if that gradient is.

    Raises:
        NoCurvatureError: if no gradient of the groups carries a graph.
    """
    parameter = due.parameter
    gradient = parameter.grad
    if gradient is None or not parameter.requires_grad:
        return HessianEstimate(parameter, None)
    # A constant gradient has no graph of its own even then: its Hessian is zero, and not missing.
    if not any(p.grad is not None and p.grad.requires_grad for group in groups for p in group["params"]):
        raise NoCurvatureError(
            f"The Hessian of parameter {due.name} is due at this step, but the gradients "
            "carry no graph to differentiate again, so nothing has been changed. Either call "
            "`optimizer.backward(loss)` in place of `loss.backward()`, or `loss.backward(create_graph=True)`."
        )
    finite = (Flag(torch.isfinite(gradient.detach()).all()),)
    return HessianEstimate(parameter, _estimate(gradient, parameter, due), finite)


def release_graphs(groups: Sequence[Mapping[str, Any]]) -> None:
    """Take the graphs off all gradients: p → p.grad → graph → p is a circle that no collector sees."""
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.requires_grad:
                parameter.grad = parameter.grad.detach()
