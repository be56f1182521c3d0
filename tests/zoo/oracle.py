"""Numerical truth about a convolution: does scaling its filters change what the model computes in training?"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["absorbs", "convolutions"]

# Batch norm with eps > 0 is not exactly invariant, so it is made negligible. It is not zero: a channel that
# is constant over the batch would give 0 / 0.
_EPS = 1e-20
_SEED = 7

Inputs = tuple[Tensor, ...] | Callable[[nn.Module], Any]


def convolutions(model: nn.Module) -> list[str]:
    """Names of the model's convolution modules."""
    return [name for name, module in model.named_modules() if isinstance(module, _ConvNd)]


@torch.no_grad()
def absorbs(model: nn.Module, name: str, inputs: Inputs, tolerance: float = 1e-9) -> bool:
    """Whether a positive gain on each output filter of ``name`` leaves the training-mode output unchanged.

    The model is copied, set to float64 and training mode, its norms' eps made negligible. Gains are powers
    of two, so that scaling itself rounds nothing. Dropout and stochastic depth draw the same numbers before
    and after.

    Args:
        model: Any model; it is left as it is.
        name: Name of a convolution module. Its bias is scaled along.
        inputs: Positional arguments, converted to float64, or a callable that runs a float64 model. They
            should leave the deepest batch norm more than two values for each channel: of two values a batch norm
            keeps only the order.
        tolerance: Largest relative difference, in the largest norm, that counts as none.
    """
    truth = copy.deepcopy(model).double().train()
    _make_telling(truth)
    before = _run(truth, inputs)
    module = truth.get_submodule(name)
    assert isinstance(module, _ConvNd)
    _scale_filters(module)
    after = _run(truth, inputs)
    return all(_close(a, b, tolerance) for a, b in zip(before, after, strict=True))


def _make_telling(model: nn.Module) -> None:
    """Remove what would hide a difference: eps, and parameters that start constant.

    A LayerScale of 1e-6 or a head of zeros passes nothing on, so constants get noise.
    """
    generator = torch.Generator().manual_seed(_SEED)
    for module in model.modules():
        if hasattr(module, "eps"):
            vars(module)["eps"] = _EPS
    for parameter in model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise, alpha=0.3)


def _run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    # Models of speech mask with NumPy's random numbers.
    random.seed(_SEED)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
    # Copies, as in-place operations must not reach the caller's tensors.
    copies = () if callable(inputs) else tuple(x.to(torch.float64, copy=True) for x in inputs)
    with _AllInDouble():
        output = inputs(model) if callable(inputs) else model(*copies)
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


class _AllInDouble(TorchFunctionMode):
    """``x.float()`` and ``x.to(torch.float32)`` mean float64: a model that computes a step so would round there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (args and isinstance(args[0], Tensor)):
            return func(*args, **(kwargs or {}))
        func = torch.Tensor.double if func is torch.Tensor.float else func
        named = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **named)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _scale_filters(convolution: _ConvNd) -> None:
    generator = torch.Generator().manual_seed(_SEED)
    exponents = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)
    gain = exponents[torch.randint(4, (convolution.out_channels,), generator=generator)].exp2()
    # Two equal neighbours would not tell a norm over both from a norm over each.
    gain[::2] = gain[::2].clamp(max=0.5)
    gain[1::2] = gain[1::2].clamp(min=2.0)
    weight = convolution.weight
    if isinstance(convolution, _ConvTransposeNd):
        # (C_in, C_out / groups, ...): group g's inputs meet output channels g * C_out / groups + j.
        groups = convolution.groups
        grouped = weight.view(groups, -1, *weight.shape[1:])
        grouped *= gain.view(groups, 1, -1, *[1] * (weight.dim() - 2))
    else:
        weight *= gain.view(-1, *[1] * (weight.dim() - 1))
    if convolution.bias is not None:
        convolution.bias *= gain


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(a.abs().max()), 1e-300)
    return float((a - b).abs().max()) <= tolerance * scale
