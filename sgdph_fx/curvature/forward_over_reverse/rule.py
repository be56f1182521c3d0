"""What a rule for one operation is: how tangents pass through it, forward and backward.

Symbols, for an operation y = f(x) with inputs x, and a direction v of the due parameter along which all is
differentiated: ẋ = ∂x/∂v and ẏ are tangents, g = ∂L/∂y the gradient that autograd brings, ġ = ∂g/∂v its tangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import Edge

__all__ = [
    "BILINEAR",
    "LINEAR",
    "NONLINEAR",
    "BackwardNode",
    "Edge",
    "ForwardNode",
    "GiveUp",
    "Rule",
    "Tensors",
    "as_gradient",
    "output_dtype",
    "output_shape",
    "saved",
    "saved_ints",
    "total",
]

Tensors: TypeAlias = Sequence[Tensor | None]
"""One for each input or output of an operation; None is a zero."""

# From how many inputs that depend on the due parameter on an operation's backward depends on the tangents.
NONLINEAR, BILINEAR, LINEAR = 1, 2, 1 << 30


class GiveUp(Exception):
    """A rule cannot take this operation; raised in the forward sweep, before any gradient is written.

    Args:
        why: What the rule does not understand, as a clause.
    """


@dataclass(frozen=True, slots=True)
class Rule:
    """How tangents pass one operation.

    Args:
        jvp: ẋ of the inputs ↦ ẏ of the outputs. A rule that knows the first outputs' alone gives those, and the
            product gives up where another output is used.
        vjp_tangent: One turn in the backward pass ↦ the tangents of the gradients by the inputs.
        linearity: ``NONLINEAR``, ``BILINEAR`` or ``LINEAR``: decides whether ẋ is kept for ``vjp_tangent``.
        owns_output: Whether what both give lies in memory of its own, or in that of the tangents they were given.
        part: For an operation that reads a part of its first input: the view of that part, of any tensor of its shape.
    """

    jvp: Callable[[ForwardNode], Tensors]
    vjp_tangent: Callable[[BackwardNode], Tensors]
    linearity: int
    owns_output: bool = False
    part: Callable[[Node, Tensor], Tensor] | None = None


@dataclass(slots=True, eq=False)
class ForwardNode:
    """One operation between the due parameter and the loss.

    Args:
        node: The operation's node in autograd's graph.
        rule: How tangents pass it.
        active: For each input, whether it depends on the due parameter.
        tangents: ẋ of each input.
        writable: Of each ẋ, whether ``jvp`` may write over it.
        memo: What ``jvp`` likes to leave for ``vjp_tangent``.
    """

    node: Node
    rule: Rule
    active: tuple[bool, ...]
    tangents: Tensors
    writable: Sequence[bool]
    memo: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class BackwardNode:
    """The same operation when the backward pass has just done it.

    Args:
        fwd: What the forward sweep left.
        g: ∂L/∂y of each output.
        dg: ġ of each output.
        writable: Of each ġ, whether ``vjp_tangent`` may write over it.
        by_inputs: What autograd found, ∂L/∂x of each input.
    """

    fwd: ForwardNode
    g: Tensors
    dg: Tensors
    writable: Sequence[bool]
    by_inputs: Tensors

    @property
    def node(self) -> Node:
        """The operation's node."""
        return self.fwd.node

    @property
    def active(self) -> tuple[bool, ...]:
        """For each input, whether its ġ is asked for."""
        return self.fwd.active

    @property
    def tangents(self) -> Tensors:
        """ẋ of each input."""
        return self.fwd.tangents


def saved(node: Node, name: str) -> Any:
    """Read what the forward pass saved under ``name``.

    Autograd shows a negative integer as a large unsigned one; the integer that was saved is returned.

    Raises:
        GiveUp: if this version of torch saves nothing of that name.
    """
    try:
        value = getattr(node, f"_saved_{name}")
    except AttributeError:
        raise GiveUp(f"torch {torch.__version__} saves no {name} for {type(node).__name__}") from None
    if type(value) is int:
        return _signed(value)
    return tuple(map(_signed, value)) if type(value) is tuple else value


def saved_ints(node: Node, name: str) -> list[int]:
    """Read a list of integers; empty where nothing was given."""
    return list(saved(node, name) or ())


def output_shape(node: Node, number: int = 0) -> tuple[int, ...]:
    """The shape of an output of the operation."""
    shape: tuple[int, ...] = node._input_metadata[number].shape
    return tuple(shape)


def output_dtype(node: Node) -> torch.dtype:
    """Return the dtype of the operation's first output."""
    dtype: torch.dtype = node._input_metadata[0].dtype
    return dtype


def as_gradient(edge: Edge, tangent: Tensor) -> Tensor:
    """ġ of a value, as the engine would make it: operations that broadcast leave the sum over it."""
    node, number = edge
    if node is None:
        return tangent
    declared = node._input_metadata[number]
    shape = tuple(declared.shape)
    if tangent.shape != shape:
        tangent = tangent.sum_to_size(shape)
    dtype: torch.dtype = declared.dtype
    return tangent if tangent.dtype is dtype else tangent.to(dtype)


def total(*terms: Tensor | None) -> Tensor | None:
    """The sum of what is there."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], start=present[0]) if present else None


def _signed(value: Any) -> Any:
    return value - (1 << 64) if type(value) is int and value >= 1 << 63 else value
