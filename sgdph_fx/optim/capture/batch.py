"""The batches of captured steps: their tensors on the device, and the place in memory that a graph reads them from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.seen_values import PLAIN

__all__ = ["Batch", "Places"]

_PLAIN = (*PLAIN, Enum, Number)  # NumPy's numbers say that they are some


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs and targets, taken apart.

    Args:
        leaves: Tensors on the device, and plain values.
        spec: What they are the parts of.
    """

    leaves: list[Any]
    spec: Any

    @classmethod
    def of(cls, inputs: Any, targets: Any, device: torch.device, trains: Callable[[Tensor], bool]) -> Batch:
        """The parts of inputs and targets, tensors moved to the device.

        Args:
            inputs: As of a step.
            targets: Likewise.
            device: Where.
            trains: Whether the optimizer has the tensor.

        Raises:
            CaptureError: for a tensor with a graph, a parameter, and an object that cannot be taken apart.
        """
        leaves, spec = pytree.tree_flatten((inputs, targets))
        for leaf in leaves:
            if (
                isinstance(leaf, Tensor)
                and leaf.requires_grad
                and (isinstance(leaf, nn.Parameter) or trains(leaf))
            ):
                raise CaptureError(
                    f"The batch holds a parameter of shape {tuple(leaf.shape)}, which would get no gradient: "
                    "CapturedStep copies the tensors of every batch to the same place in memory. Make it part of the "
                    "model or of the loss function, as an attribute of a module, or pass it detached."
                )
        return cls([_on(device, leaf) for leaf in leaves], spec)

    def loss(self, model: Callable[..., Any], loss_fn: Callable[[Any, Any], Tensor]) -> Tensor:
        """``loss_fn(model(inputs), targets)``, with a tuple or a dict of inputs as the model's arguments."""
        inputs, targets = self._put_together()
        if isinstance(inputs, dict):
            return loss_fn(model(**inputs), targets)
        return loss_fn(model(*inputs) if isinstance(inputs, tuple) else model(inputs), targets)

    def _put_together(self) -> Any:
        """Inputs and targets; tensors share memory with the leaves, and have no gradients yet."""
        leaves = [
            t.detach().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t for t in self.leaves
        ]
        return pytree.tree_unflatten(leaves, self.spec)


def _on(device: torch.device, leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        if isinstance(leaf, _PLAIN):
            return leaf
        raise CaptureError(
            f"The batch holds a {type(leaf).__name__}, and CapturedStep moves the tensors of every batch to the same "
            "place in memory, so it has to find them. Pass tensors, numbers and texts, in tuples, lists and dicts "
            "(`dict(batch)`), or tell torch how to take the class apart: `torch.utils._pytree.register_pytree_node`."
        )
    if leaf.grad_fn is not None:
        raise CaptureError(
            f"A tensor of the batch has a graph ({type(leaf.grad_fn).__name__}), and a CUDA graph ends at the batch. "
            "Detach it, or make what computed it part of the model."
        )
    return leaf.detach().to(device, non_blocking=True).requires_grad_(leaf.requires_grad)


class Places:
    """Where graphs find the batch: memory that stays where it is.

    Args:
        first: The first batch, which decides shapes, dtypes and plain values.
    """

    def __init__(self, first: Batch) -> None:
        own = [
            t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
            for t in first.leaves
        ]
        self.batch = Batch(own, first.spec)

    def misfit(self, batch: Batch) -> str:
        """In what a batch differs from the first one, so that it cannot be put in its place; empty if in nothing."""
        if batch.spec != self.batch.spec:
            return "another structure"
        rows = zip(batch.leaves, self.batch.leaves, strict=True)
        return next((told for leaf, place in rows if (told := _difference(leaf, place))), "")

    def take(self, batch: Batch) -> None:
        """Copy the tensors of a batch that fits."""
        with torch.no_grad():
            for place, leaf in zip(self.batch.leaves, batch.leaves, strict=True):
                if isinstance(place, Tensor):
                    place.copy_(leaf, non_blocking=True)


def _difference(leaf: Any, place: Any) -> str:
    if not isinstance(leaf, Tensor) or not isinstance(place, Tensor):
        return "" if type(leaf) is type(place) and leaf == place else f"{leaf!r} in place of {place!r}"
    if leaf.is_nested or place.is_nested or not leaf.layout == place.layout == torch.strided:
        return f"a{' nested' * leaf.is_nested} tensor of layout {leaf.layout}"
    if leaf.shape != place.shape:
        return f"a tensor of shape {tuple(leaf.shape)} in place of {tuple(place.shape)}"
    if leaf.dtype != place.dtype or leaf.requires_grad != place.requires_grad:
        return f"a tensor of {leaf.dtype}, requires_grad={leaf.requires_grad}"
    return ""
