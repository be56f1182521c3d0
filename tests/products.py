"""One operation as a loss that bends in all its inputs, and torch's own Hessian-vector product of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["LENGTH", "Operation", "activities", "loss_of", "product_by_torch"]

LENGTH = 6
"""Numbers of the due parameter."""

Operation: TypeAlias = "tuple[Callable[..., Any], list[tuple[int, ...]]]"
"""A function of tensors, and the shapes of these."""


def loss_of(p: Tensor, operation: Operation, active: tuple[bool, ...]) -> Tensor:
    """A number that bends in every input: each is a linear map of p, or a leaf of its own."""
    function, shapes = operation
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for shape, made in zip(shapes, active, strict=True):
        mix = torch.randn(*shape, LENGTH, dtype=torch.float64, generator=generator).to(p.device)
        inputs.append(mix @ p if made else mix.sum(-1).requires_grad_())
    out = function(*inputs)
    weights = torch.linspace(-1, 1.5, out.numel(), dtype=torch.float64, device=p.device).view(out.shape) + 0.1
    loss: Tensor = (weights * (out + 0.1 * out * out)).sum()
    return loss


def product_by_torch(p: Tensor, v: Tensor, operation: Operation, active: tuple[bool, ...]) -> Tensor:
    """Hv of that loss, by torch's double backward."""
    with sdpa_kernel(SDPBackend.MATH):
        (g,) = torch.autograd.grad(loss_of(p, operation, active), p, create_graph=True)
    if not g.requires_grad:
        return torch.zeros_like(p)
    (column,) = torch.autograd.grad(g, p, v, allow_unused=True)
    return torch.zeros_like(p) if column is None else column


def activities(operation: Operation) -> list[tuple[bool, ...]]:
    """Which inputs are made from the due parameter: all of them, or each alone."""
    count = len(operation[1])
    one = [tuple(i == j for j in range(count)) for i in range(count)]
    return [(True,) * count, *(one if count > 1 else [])]
