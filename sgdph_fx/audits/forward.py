"""One forward pass to a loss that can be differentiated twice, or an error that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from sgdph_fx.errors import AuditError, first_line

__all__ = ["LossFunction", "loss_on", "twice_differentiable"]

LossFunction = Callable[[Any, Any], Tensor]
"""(the model's outputs, targets) ↦ one number."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Gradients on, and attention by the formula that has a second derivative: the fused kernels have none."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def loss_on(model: nn.Module, loss_fn: LossFunction, inputs: Any, targets: Any) -> Tensor:
    """The loss with its graph: one finite number of a floating dtype.

    Raises:
        AuditError: if the model does not run on the inputs, the loss function fails, or what it returns is
            anything else.
    """
    try:
        outputs = _run(model, inputs)
    except Exception as error:
        raise AuditError(
            f"{type(model).__name__} does not run on the batch ({_described(inputs)}; its parameters are "
            f"{_dtypes(model)}): {_first_line(error)}. Pass `batch=(inputs, targets)` (on the "
            "command line: --input or --data) with the inputs as the model takes them in training."
        ) from error
    try:
        loss = loss_fn(outputs, targets)
    except Exception as error:
        raise AuditError(
            f"The loss function fails on the model's outputs ({_described(outputs)}) and the targets "
            f"({_described(targets)}): {_first_line(error)}. It is called as loss_fn(model(inputs), targets)."
        ) from error
    return _checked(loss)


def _run(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise AuditError(
            f"The loss is {_described(loss)}, where one real number is needed: a Hessian is that of a "
            "single number. Reduce it, by its mean for instance."
        )
    if not torch.isfinite(loss):
        raise AuditError(f"The loss on this batch is {loss.item()}, so its Hessian means nothing.")
    if not loss.requires_grad:
        raise AuditError(
            "The loss carries no graph, so there is nothing to differentiate: all parameters on its way are "
            "frozen, or the model or the loss function runs under torch.no_grad or detaches."
        )
    return loss.reshape(())


def _described(value: Any) -> str:
    found = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    if not found:
        return f"a {type(value).__name__}"
    return ", ".join(f"{_dtype(t)} of shape {tuple(t.shape)}" for t in found)


def _dtypes(model: nn.Module) -> str:
    return ", ".join(sorted({_dtype(p) for p in model.parameters()})) or "none"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return first_line(error).rstrip(".")
