"""A compiled model for the steps that refresh no Hessian, the model itself for those that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["compile_between_refreshes"]


def compile_between_refreshes(model: nn.Module, optimizer: SGDPH, **options: Any) -> Callable[..., Any]:
    """``torch.compile`` where it can be: compiled code has no second derivative, so that the due step runs without.

    Args:
        model: Called without a compiler where ``optimizer.due`` names a parameter and gradients are recorded.
        optimizer: Of the model's parameters; with ``hessian_interval=k``, k - 1 of k steps run compiled.
        options: As of ``torch.compile``, which compiles at the first call that needs it.

    Returns:
        A function of the model's arguments. Weights, modes and checkpoints remain the model's.
    """
    plain: nn.Module = getattr(model, "_orig_mod", model)  # of one that is compiled already
    compiled = torch.compile(plain, **options)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or optimizer.due is None:
            return compiled(*args, **kwargs)
        # `plain.compile()` has put compiled code into the call of the module itself.
        call: Callable[..., Any] = plain if plain._compiled_call_impl is None else plain._call_impl
        return call(*args, **kwargs)

    return forward
