"""One operation as a loss that bends in all its inputs, and torch's own Hessian-vector product of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = [
    "LENGTH",
    "Operation",
    "activities",
    "bent_sum",
    "difference_of_gradients",
    "double_backward",
    "inputs_of",
    "loss_of",
    "product_by_torch",
    "torch_lacks",
]

LENGTH = 6
"""Numbers of the due parameter."""

Operation: TypeAlias = "tuple[Callable[..., Any], list[tuple[int, ...]]]"
"""A function of tensors, and the shapes of these."""


def loss_of(p: Tensor, operation: Operation, active: tuple[bool, ...]) -> Tensor:
    """A number that bends in every input: each is a linear map of p, or a leaf of its own."""
    function, _ = operation
    return bent_sum(function(*inputs_of(p, operation, active)))


def inputs_of(p: Tensor, operation: Operation, active: tuple[bool, ...]) -> list[Tensor]:
    """The inputs of an operation, of p's dtype."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for shape, made in zip(operation[1], active, strict=True):
        mix = torch.randn(*shape, LENGTH, dtype=torch.float64, generator=generator).to(p)
        inputs.append(mix @ p if made else mix.sum(-1).requires_grad_())
    return inputs


def bent_sum(out: Tensor) -> Tensor:
    """A number that bends in every number of ``out``."""
    weights = torch.linspace(-1, 1.5, out.numel(), dtype=torch.float64).view(out.shape).to(out) + 0.1
    loss: Tensor = (weights * (out + 0.1 * out * out)).sum()
    return loss


def product_by_torch(p: Tensor, v: Tensor, operation: Operation, active: tuple[bool, ...]) -> Tensor:
    """Hv of that loss, by :func:`double_backward`."""
    return double_backward(lambda: loss_of(p, operation, active), p, v)


def double_backward(loss: Callable[[], Tensor], p: Tensor, v: Tensor) -> Tensor:
    """Hv of any loss, by torch's double backward; zeros where the gradient does not depend on p.

    Older versions of torch lack the second derivative of some operations. There it is the difference of gradients, so p
    must be in double precision.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH):
            (g,) = torch.autograd.grad(loss(), p, create_graph=True)
        if not g.requires_grad:
            return torch.zeros_like(p)
        (column,) = torch.autograd.grad(g, p, v, allow_unused=True)
    except RuntimeError as error:
        if not torch_lacks(error) or p.dtype is not torch.float64:
            raise
        return difference_of_gradients(loss, p, v)
    return torch.zeros_like(p) if column is None else column


def torch_lacks(error: RuntimeError) -> bool:
    """Whether torch says that it has no derivative of an operation."""
    return "derivative for aten::" in str(error)


def difference_of_gradients(
    loss: Callable[[], Tensor], p: Tensor, v: Tensor, step: float = 2.0**-6
) -> Tensor:
    """Hv by six gradients along v, in error by the sixth power of the step; exact where the loss is quadratic.

    Args:
        loss: Reads p, which is moved meanwhile and put back.
        p: A leaf in double precision.
        v: The direction.
        step: Near enough that no kink lies between.
    """
    start = p.detach().clone()

    def gradient(at: float) -> Tensor:
        with torch.no_grad():
            p.copy_(start + at * v)
        (g,) = torch.autograd.grad(loss(), p)
        return g

    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    try:
        terms = [w * (gradient(n * step) - gradient(-n * step)) / step for n, w in weights.items()]
    finally:
        with torch.no_grad():
            p.copy_(start)
    return terms[0] + terms[1] + terms[2]


def activities(operation: Operation) -> list[tuple[bool, ...]]:
    """Which inputs are made from the due parameter: all of them, or each alone."""
    count = len(operation[1])
    one = [tuple(i == j for j in range(count)) for i in range(count)]
    return [(True,) * count, *(one if count > 1 else [])]
