"""An operation as losses of one parameter p, in the positions in which people use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["LENGTH", "Position", "positions"]

LENGTH = 5
"""Numbers of p, which is zero: every input is then the sample itself."""


@dataclass(frozen=True)
class Position:
    """One way to make a loss.

    Args:
        name: ``under`` the operation, its ``gradient`` held in the loss, or ``output 1`` (and so on) used alone.
        loss: p ↦ one real number.
        rounds: Whether an output is in lower precision than p, so that the loss is a staircase.
    """

    name: str
    loss: Callable[[Tensor], Tensor]
    rounds: bool


def positions(operation: Any, sample: Any) -> Iterator[Position]:
    """All positions of an operation on one sample of torch's database."""
    outputs = _outputs(operation, sample, torch.zeros(LENGTH, dtype=torch.float64))
    rounds = any(t.dtype not in (torch.float64, torch.complex128) for t in outputs)
    yield Position("under", lambda p: _total(_outputs(operation, sample, p)), rounds)
    if any(t.requires_grad for t in _outputs(operation, sample, _leaf())):
        yield Position("gradient", lambda p: _of_gradient(operation, sample, p), rounds)
    for number in range(len(outputs) if len(outputs) > 1 else 0):
        yield Position(f"output {number}", _one(operation, sample, number), rounds)


def _one(operation: Any, sample: Any, number: int) -> Callable[[Tensor], Tensor]:
    return lambda p: _total(_outputs(operation, sample, p)[number : number + 1])


def _leaf() -> Tensor:
    return torch.zeros(LENGTH, dtype=torch.float64, requires_grad=True)


def _outputs(operation: Any, sample: Any, p: Tensor, *, leaves: list[Tensor] | None = None) -> list[Tensor]:
    """The differentiable outputs, with every differentiable input made of p and, beside it, of a leaf of its own."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def made(value: Any) -> Any:
        if not _differentiable(value):
            return value
        moved = value.detach() + _mixed(value, p, generator)
        if leaves is not None:
            leaves.append(torch.zeros_like(value, requires_grad=True))
            moved = moved + leaves[-1]
        return moved

    first, args, kwargs = pytree.tree_map(made, (sample.input, tuple(sample.args), dict(sample.kwargs)))
    torch.manual_seed(1)
    out = sample.output_process_fn_grad(
        operation.gradcheck_wrapper(operation.get_op(), first, *args, **kwargs)
    )
    return [t for t in pytree.tree_leaves(out) if _differentiable(t)]


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _mixed(like: Tensor, p: Tensor, generator: torch.Generator) -> Tensor:
    """A random linear map of p, of the shape and dtype of an input."""
    real = [torch.randn(*like.shape, LENGTH, dtype=torch.float64, generator=generator) @ p for _ in range(2)]
    mixed = torch.complex(*real) if like.is_complex() else real[0]
    return (
        mixed.to(like.dtype)
        if like.layout is torch.strided
        else mixed.to(like.dtype).to_sparse(layout=like.layout)
    )


def _total(outputs: list[Tensor]) -> Tensor:
    """A number that bends in each output, real and imaginary part by themselves."""
    total = torch.zeros((), dtype=torch.float64)
    for t in outputs:
        dense = t.to_dense() if t.layout is not torch.strided else t
        for part in (dense.real, dense.imag) if dense.is_complex() else (dense,):
            weights = torch.linspace(-1, 1.5, part.numel(), dtype=torch.float64).view(part.shape) + 0.1
            total = total + (weights * (part + 0.1 * part * part)).sum()
    return total


def _of_gradient(operation: Any, sample: Any, p: Tensor) -> Tensor:
    """A loss that holds the operation's gradient, as gradient penalties do."""
    leaves: list[Tensor] = []
    inner = _total(_outputs(operation, sample, p, leaves=leaves))
    gradients = torch.autograd.grad(inner, leaves, create_graph=True, allow_unused=True)
    return _total([g for g in gradients if g is not None])
