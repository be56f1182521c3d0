"""The Hessian diagonal that is due, from the backward pass that finds it to the step that uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sgdph_fx.curvature.hvp import block_product, differentiable_gradient
from sgdph_fx.curvature.probes import PROBES
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.validation import name_of

__all__ = ["Pending", "from_gradient", "from_loss", "release_graphs"]


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """What was found for the due parameter.

    Args:
        parameter: The parameter that was due.
        hessian: diag(H) of its block by the probe, of its shape, dtype and device, without graph; None where
            the loss does not use the parameter.
    """

    parameter: Tensor
    hessian: Tensor | None

    def plus(self, other: Pending | None) -> Pending:
        """The sum over two micro-batches, to whose losses it is linear."""
        if other is None or other.parameter is not self.parameter or other.hessian is None:
            return self
        if self.hessian is None:
            return other
        return Pending(self.parameter, self.hessian + other.hessian)


def from_loss(loss: Tensor, parameter: Tensor) -> Pending:
    """Differentiate ``loss`` twice by one parameter; no ``.grad`` is touched, its graph is kept."""
    gradient = differentiable_gradient(loss, parameter)
    if gradient is None:
        return Pending(parameter, None)
    return Pending(parameter, PROBES["ones"](block_product(gradient, parameter), parameter))


def from_gradient(parameter: Tensor, groups: Sequence[Mapping[str, Any]]) -> Pending:
    """Differentiate ``parameter.grad``, which ``loss.backward(create_graph=True)`` left with its graph.

    Raises:
        NoCurvatureError: if no gradient of the groups carries a graph.
    """
    gradient = parameter.grad
    if gradient is None or not parameter.requires_grad:
        return Pending(parameter, None)
    # A constant gradient has no graph of its own even then: its Hessian is zero, and not missing.
    if not any(p.grad is not None and p.grad.requires_grad for group in groups for p in group["params"]):
        raise NoCurvatureError(
            f"The Hessian of parameter {name_of(parameter, groups)} is due at this step, but the gradients "
            "carry no graph to differentiate again, so nothing has been changed. Either call "
            "`optimizer.backward(loss)` in place of `loss.backward()`, or `loss.backward(create_graph=True)`."
        )
    return Pending(parameter, PROBES["ones"](block_product(gradient, parameter), parameter))


def release_graphs(groups: Sequence[Mapping[str, Any]]) -> None:
    """Take the graphs off all gradients: p → p.grad → graph → p is a circle that no collector sees."""
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.requires_grad:
                parameter.grad = parameter.grad.detach()
