"""For trainers that call ``loss.backward()`` themselves: a loss whose backward pass is the optimizer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["LightningMixin", "TrainerMixin", "attach"]


def attach(loss: Tensor, optimizer: Any) -> Tensor:
    """A loss whose ``backward()`` is ``optimizer.backward(loss)``, for loops that you cannot change.

    What is computed from it, such as ``loss / 4`` or ``scaler.scale(loss)``, behaves in the same way. ``create_graph``
    is ignored, because the optimizer needs no graph; ``retain_graph`` is passed on.

    Args:
        loss: One real number. If it requires no gradient, as in evaluation, it is returned as it is.
        optimizer: :class:`sgdph_fx.SGDPH`, or a wrapper that holds it as ``.optimizer``, such as Accelerate's.

    Returns:
        The same number with the same graph.

    Raises:
        OptimizerError: if there is no SGDPH in ``optimizer``.

    >>> import torch
    >>> from torch import nn
    >>> from sgdph_fx import SGDPH, attach, param_groups
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    >>> optimizer = SGDPH(param_groups(net), lr=0.1)
    >>> loss = attach(net(torch.randn(16, 4)).square().mean(), optimizer)
    >>> (loss / 2).backward()  # as a trainer does
    >>> optimizer.step()
    """
    innermost = _sgdph_in(optimizer)
    if innermost is None:
        raise OptimizerError(
            f"attach() needs SGDPH, or a wrapper with SGDPH as its `.optimizer`; got {type(optimizer).__name__}."
        )
    return loss if not loss.requires_grad else _owned(loss, innermost)


def _sgdph_in(optimizer: Any) -> SGDPH | None:
    """The optimizer itself, or what wrappers hold; None if there is none."""
    while optimizer is not None and not isinstance(optimizer, SGDPH):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


class _AttachedLoss(Tensor):
    """One number that knows its optimizer."""

    _optimizer: SGDPH

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        given = (getattr(value, "_optimizer", None) for value in pytree.tree_leaves((args, kwargs)))
        optimizer = next(filter(None, given), None)
        return pytree.tree_map(lambda value: _handed_on(value, optimizer), result)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        with torch._C.DisableTorchFunctionSubclass():
            plain = self.as_subclass(Tensor)
            if inputs is not None:
                plain.backward(gradient, retain_graph, create_graph, inputs)  # type: ignore[no-untyped-call]
                return
            loss = plain if gradient is None else plain * gradient
            self._optimizer.backward(loss, retain_graph=bool(retain_graph))


def _owned(loss: Tensor, optimizer: SGDPH) -> _AttachedLoss:
    with torch._C.DisableTorchFunctionSubclass():
        attached = loss.as_subclass(_AttachedLoss)
    attached._optimizer = optimizer
    return attached


def _handed_on(value: Any, optimizer: SGDPH | None) -> Any:
    """A result of an operation on attached losses: attached as well, unless it cannot be differentiated."""
    if not isinstance(value, _AttachedLoss) or hasattr(value, "_optimizer"):
        return value
    if optimizer is None or not value.requires_grad:
        return value.as_subclass(Tensor)
    return _owned(value, optimizer)


class TrainerMixin:
    """Hugging Face's ``Trainer`` with the optimizer's own backward pass: put it before ``Trainer`` in a class of yours.

    Give the trainer the prepared model and ``optimizers=(SGDPH(...), scheduler)``. With another optimizer it does
    nothing. ::

        class MyTrainer(sgdph_fx.TrainerMixin, transformers.Trainer):
            pass
    """

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """As of the trainer; the loss that it returns is attached to the optimizer.

        Args:
            args: As of the trainer's.
            kwargs: As of the trainer's.

        Returns:
            What the trainer's returns.
        """
        trainer: Any = super()
        found = trainer.compute_loss(*args, **kwargs)
        optimizer = getattr(self, "optimizer", None)
        if _sgdph_in(optimizer) is None:
            return found
        if isinstance(found, tuple):
            return (attach(found[0], optimizer), *found[1:])
        return attach(found, optimizer)


class LightningMixin:
    """A ``LightningModule`` with the optimizer's own backward pass: put it before ``LightningModule``.

    It is for automatic optimization; in manual optimization call ``optimizer.backward(loss)`` in your step. ::

        class MyModule(sgdph_fx.LightningMixin, lightning.LightningModule):
            ...
    """

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As of the module; where its one optimizer is SGDPH, that does the backward pass.

        Args:
            loss: What ``training_step`` returned, divided and scaled as Lightning does.
            args: As of the module's.
            kwargs: As of the module's.
        """
        module: Any = self
        optimizer = module.optimizers(use_pl_optimizer=False)
        if _sgdph_in(optimizer) is not None:
            loss = attach(loss, optimizer)
        parent: Any = super()
        parent.backward(loss, *args, **kwargs)
