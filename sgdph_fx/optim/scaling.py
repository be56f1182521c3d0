"""The factor that a GradScaler puts on the loss, and takes off the gradients but not off the Hessian."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.autograd.graph import Node
from torch.optim import Optimizer

from sgdph_fx.errors import OptimizerError

__all__ = ["LossScale", "multipliers"]

# What may stand between a scaled loss and the loss that the optimizer was given: a mean over micro-batches, a sum.
_PASSED = frozenset(
    f"{name}Backward0"
    for name in ("Add", "Alias", "Div", "Mean", "Mul", "Neg", "Stack", "Sub", "Sum", "ToCopy", "Unsqueeze")
)
_MOST_PASSED = 32


def multipliers(loss: Tensor) -> tuple[Tensor, ...]:
    """The single float32 numbers that the loss was multiplied by last; a scaler's is one of them."""
    return tuple(_multipliers(loss))


def _multipliers(loss: Tensor) -> Iterator[Tensor]:
    stack: list[Node | None] = [loss.grad_fn]
    for _ in range(_MOST_PASSED):
        if not stack:
            return
        node = stack.pop()
        if node is None or type(node).__name__ not in _PASSED:
            continue
        stack.extend(child for child, _ in node.next_functions)
        if type(node).__name__ == "MulBackward0" and node.next_functions[1][0] is None:
            factor: Any = _saved_factor(node)
            if isinstance(factor, Tensor) and factor.dim() == 0 and factor.dtype is torch.float32:
                yield factor


def _saved_factor(node: Any) -> Any:
    try:
        return node._saved_other
    except RuntimeError:  # the graph has been freed, which the backward pass will say
        return None


class LossScale:
    """Finds the scale of whichever ``GradScaler`` has divided the gradients of one optimizer.

    A scaler never tells the optimizer by what it has divided. So it is looked for among the callers of ``step``,
    where ``scaler.step(optimizer)`` and the methods of subclasses are. If it is not there but the loss looks scaled,
    because ``unscale_`` was called and then ``optimizer.step()``, it is looked for among all live objects.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakSet[GradScaler] = weakref.WeakSet()
        self._searches = 0

    def of(self, optimizer: Optimizer, factors: tuple[Tensor, ...], unseen: Tensor | None) -> Tensor | None:
        """The scale, one number; None if no enabled scaler is at work.

        Args:
            optimizer: The one that takes a step.
            factors: The :func:`multipliers` of its losses, where it has seen them.
            unseen: The due parameter, where it has not, because the graph of its gradient was differentiated.

        Raises:
            OptimizerError: if the loss was scaled and the gradients still are.
        """
        suspected = bool(factors) or (unseen is not None and _may_be_scaled(unseen))
        scaler = _calling(thoroughly=suspected)
        if scaler is not None:
            return scaler._get_scale_async() if scaler.is_enabled() else None
        if not suspected:
            return None
        scalers = self._alive()
        for scaler in scalers:
            if _has_unscaled(scaler, optimizer):
                return scaler._get_scale_async()
        _refuse_still_scaled(scalers, factors)
        return None

    def _alive(self) -> list[GradScaler]:
        # Each search takes tens of milliseconds, so if nothing is found they become ever rarer.
        self._searches += 1
        if not self._known and self._searches.bit_count() == 1:
            self._known.update(o for o in gc.get_objects() if issubclass(type(o), GradScaler))
        return [scaler for scaler in self._known if scaler.is_enabled()]


def _refuse_still_scaled(scalers: list[GradScaler], factors: tuple[Tensor, ...]) -> None:
    for scaler in scalers:
        if any(factor is scaler._scale for factor in factors):
            raise OptimizerError(
                f"The loss was scaled by a {type(scaler).__name__}, and the gradients still are: call "
                "`scaler.step(optimizer)` in place of `optimizer.step()`, or `scaler.unscale_(optimizer)` "
                "before it. Nothing has been changed."
            )


def _has_unscaled(scaler: GradScaler, optimizer: Optimizer) -> bool:
    state = scaler._per_optimizer_states.get(id(optimizer))
    return state is not None and state["stage"] is not OptState.READY


def _may_be_scaled(parameter: Tensor) -> bool:
    """Whether the gradient has a graph, and was not divided by one number as part of that graph."""
    node = None if parameter.grad is None else parameter.grad.grad_fn
    if node is None or type(node).__name__ not in ("DivBackward0", "MulBackward0"):
        return node is not None
    factor = _saved_factor(node)
    return not (isinstance(factor, Tensor) and factor.dim() == 0)


def _calling(*, thoroughly: bool) -> GradScaler | None:
    """The scaler that has called; ``thoroughly`` finds subclasses that have a ``step`` of their own too."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is GradScaler.step.__code__ or (thoroughly and code.co_varnames[:1] == ("self",)):
            caller = frame.f_locals.get("self")
            if isinstance(caller, GradScaler):
                return caller
        frame = frame.f_back
    return None
