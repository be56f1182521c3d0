"""Loss functions by name, or from a person's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from .load import load_function
from .loss_names import LOSSES

__all__ = ["loss_function"]

Loss = Callable[[Any, Any], Tensor]
"""(outputs, targets) ↦ one number."""


def _labels(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Classes are dimension 1 of the outputs, as cross-entropy reads them."""
    shape = (outputs.shape[0], *outputs.shape[2:])
    return torch.randint(outputs.shape[1], shape, generator=generator).to(outputs.device)


def _numbers(outputs: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(outputs.shape, generator=generator).to(outputs.device, outputs.dtype)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.dim() < 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"cross-entropy compares classes, which are dimension 1 of the outputs, and there "
            f"{'is only one' if outputs.dim() > 1 else 'is no such dimension'}: the loss would be 0 whatever the "
            "weights are. Take --loss mse, or a function of your own"
        )
    return F.cross_entropy(outputs, targets)


FUNCTIONS: Mapping[str, tuple[Loss, Callable[[Tensor, torch.Generator], Tensor]]] = {
    "cross-entropy": (_cross_entropy, _labels),
    "mse": (F.mse_loss, _numbers),
}
"""Each loss by name, with what draws targets for it from (outputs, generator)."""


def loss_function(name: str, seed: int) -> Loss:
    """The loss called ``name``; where there are no targets it draws them, the same for the same seed.

    Raises:
        BadParameter: if ``name`` is neither in :data:`LOSSES` nor the place of a function.
        ModelNotLoadedError: if it is such a place, and there is no function that can be loaded.
    """
    if name not in LOSSES and ":" not in name:
        raise click.BadParameter(
            f"{name!r} is not known; choose {' or '.join(LOSSES)}, or write FILE.py:NAME of a function of the model's "
            "outputs and the targets.",
            param_hint="--loss",
        )
    if name not in LOSSES:
        return load_function(name)
    loss, draw = FUNCTIONS[name]

    def named(outputs: Any, targets: Any) -> Tensor:
        found = _tensor_of(outputs)
        if targets is None:
            targets = draw(found, torch.Generator().manual_seed(seed))
        return loss(found, targets)

    named.__name__ = name
    return named


def _tensor_of(outputs: Any) -> Tensor:
    """The outputs, or the logits among them."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    found = outputs if logits is None else logits
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the model returns a {type(found).__name__}, and a loss by name takes one tensor. Write a function that "
            "takes what is wanted out of it: --loss FILE.py:NAME"
        )
    return found
